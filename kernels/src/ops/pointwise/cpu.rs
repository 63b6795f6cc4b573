//! CPU code. One pass over memory; a block of rows without gaps is walked as one long row.

use crate::operand::{Call, Mat, MatMut};
use crate::ops::vmath::{Body, Portable, Simd, normal_cdf};
use crate::par::Pool;

/// Elements of one task, about.
const BLOCK: usize = 16 * 1024;

const DENSITY_AT_0: f32 = 0.398_942_3; // 1 / sqrt(2π)

/// One element at a time.
pub(super) fn plain_gelu(c: &mut Call<'_>) {
    let (x, y) = (c.f32(0), c.f32_mut(1));
    segments(c.pool, [x, x], y, |[x, _], y| {
        for (x, y) in x.iter().zip(y) {
            *y = x * plain_cdf(*x).0;
        }
    });
}

pub(super) fn plain_gelu_dx(c: &mut Call<'_>) {
    let (x, dy, dx) = (c.f32(0), c.f32(1), c.f32_mut(2));
    segments(c.pool, [x, dy], dx, |[x, dy], dx| {
        for ((x, dy), dx) in x.iter().zip(dy).zip(dx) {
            let (cdf, e) = plain_cdf(*x);
            *dx = dy * (cdf + x * (e * DENSITY_AT_0));
        }
    });
}

pub(super) fn add(c: &mut Call<'_>) {
    let (a, b, y) = (c.f32(0), c.f32(1), c.f32_mut(2));
    segments(c.pool, [a, b], y, |[a, b], y| {
        for ((a, b), y) in a.iter().zip(b).zip(y) {
            *y = a + b;
        }
    });
}

pub(super) fn fill(c: &mut Call<'_>) {
    let (value, mut y) = (c.dims.scalar_f32(0), c.f32_mut(0));
    (0..y.rows).for_each(|r| y.row(r).fill(value));
}

fn plain_cdf(x: f32) -> (f32, f32) {
    struct One<'a>(f32, &'a mut (f32, f32));
    impl Body for One<'_> {
        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            let (cdf, e) = normal_cdf(s, s.splat(self.0));
            let mut all = [0.0; 16];
            s.store(cdf, &mut all);
            self.1.0 = all[0];
            s.store(e, &mut all);
            self.1.1 = all[0];
        }
    }
    let mut out = (0.0, 0.0);
    Portable::run(One(x, &mut out));
    out
}

/// Vectors.
pub(super) fn gelu<S: Simd>(c: &mut Call<'_>) {
    let (x, y) = (c.f32(0), c.f32_mut(1));
    segments(c.pool, [x, x], y, |[x, _], y| S::run(Gelu { x, y }));
}

pub(super) fn gelu_dx<S: Simd>(c: &mut Call<'_>) {
    let (x, dy, dx) = (c.f32(0), c.f32(1), c.f32_mut(2));
    segments(c.pool, [x, dy], dx, |[x, dy], dx| S::run(GeluDx { x, dy, dx }));
}

/// Elements ahead of the vector in work that are asked for, a KiB.
const AHEAD: usize = 256;

struct Gelu<'a> {
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Body for Gelu<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (x, y, n) = (self.x, self.y, self.x.len());
        for at in (0..n).step_by(S::WIDTH) {
            let soon = n.min(at + AHEAD)..n.min(at + AHEAD + S::WIDTH);
            s.fetch(&x[soon.clone()]);
            s.fetch_to_write(&mut y[soon]);
            let (x, y) = (&x[at..n.min(at + S::WIDTH)], &mut y[at..n.min(at + S::WIDTH)]);
            let whole = x.len() == S::WIDTH;
            let v = if whole { s.load(x) } else { s.load_part(x) };
            let v = s.mul(v, normal_cdf(s, v).0);
            if whole { s.store(v, y) } else { s.store_part(v, y) }
        }
    }
}

/// `y` becomes `gelu(y)`, `slope` the derivative there.
pub(crate) struct GeluSlope<'a> {
    pub(crate) y: &'a mut [f32],
    pub(crate) slope: &'a mut [f32],
}

impl Body for GeluSlope<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let GeluSlope { y, slope } = self;
        let n = y.len();
        for at in (0..n).step_by(S::WIDTH) {
            s.fetch_to_write(&mut slope[n.min(at + AHEAD)..n.min(at + AHEAD + S::WIDTH)]);
            let here = at..n.min(at + S::WIDTH);
            let (y, slope) = (&mut y[here.clone()], &mut slope[here]);
            let whole = y.len() == S::WIDTH;
            let x = if whole { s.load(y) } else { s.load_part(y) };
            let (cdf, e) = normal_cdf(s, x);
            let (value, rise) = (s.mul(x, cdf), s.madd(x, s.mul(e, s.splat(DENSITY_AT_0)), cdf));
            if whole {
                s.store(value, y);
                s.store(rise, slope);
            } else {
                s.store_part(value, y);
                s.store_part(rise, slope);
            }
        }
    }
}

struct GeluDx<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [f32],
}

impl Body for GeluDx<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (x, dy, dx, n) = (self.x, self.dy, self.dx, self.x.len());
        for at in (0..n).step_by(S::WIDTH) {
            let soon = n.min(at + AHEAD)..n.min(at + AHEAD + S::WIDTH);
            s.fetch(&x[soon.clone()]);
            s.fetch(&dy[soon.clone()]);
            s.fetch_to_write(&mut dx[soon]);
            let here = at..n.min(at + S::WIDTH);
            let (x, dy, dx) = (&x[here.clone()], &dy[here.clone()], &mut dx[here]);
            let whole = x.len() == S::WIDTH;
            let (x, dy) = if whole { (s.load(x), s.load(dy)) } else { (s.load_part(x), s.load_part(dy)) };
            let (cdf, e) = normal_cdf(s, x);
            let v = s.mul(dy, s.madd(x, s.mul(e, s.splat(DENSITY_AT_0)), cdf));
            if whole { s.store(v, dx) } else { s.store_part(v, dx) }
        }
    }
}

/// Cuts two inputs and an output of one shape into the same segments of neighbouring elements.
fn segments(pool: &Pool, x: [Mat<'_, f32>; 2], y: MatMut<'_, f32>, f: impl Fn([&[f32]; 2], &mut [f32]) + Sync) {
    let (cols, gaps) = (y.cols, y.ld != y.cols || x.iter().any(|m| m.ld != m.cols));
    pool.rows(y.split(), (BLOCK / cols.max(1)).max(1), &mut [], |first, mut y, _| {
        if gaps {
            for r in 0..y.rows {
                f(x.map(|m| m.row(first + r)), y.row(r));
            }
        } else {
            f(x.map(|m| &m.data[first * cols..][..y.data.len()]), y.data);
        }
    });
}
