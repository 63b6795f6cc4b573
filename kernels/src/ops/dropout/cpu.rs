//! CPU code.
//!
//! Blocks of rows; a block without gaps is walked as one long row. Memory traffic is one pass.

use super::Draw;
use super::draw::{STRIP, bits_at};
use crate::operand::{Call, Mat, MatMut};
use crate::ops::vmath::{Body, Simd};
use crate::par::Pool;

/// Elements of one task, about.
const BLOCK: usize = 16 * 1024;

/// Elements ahead of the strip in work that are asked for, two KiB.
const AHEAD: usize = 512;

/// One Philox block per element, eight times more than needed: the definition as it stands.
pub(super) fn plain(c: &mut Call<'_>) {
    let (x, add, draw, y) = (c.f32(0), c.f32_opt(1), draw(c, 2), c.f32_mut(3));
    each_row_plain(c.pool, x, add, draw, y);
}

pub(super) fn plain_dx(c: &mut Call<'_>) {
    let (dy, draw, dx) = (c.f32(0), draw(c, 1), c.f32_mut(2));
    each_row_plain(c.pool, dy, None, draw, dx);
}

/// A vector of Philox blocks at a time.
pub(super) fn dropout<S: Simd>(c: &mut Call<'_>) {
    let (x, add, draw, y) = (c.f32(0), c.f32_opt(1), draw(c, 2), c.f32_mut(3));
    each_segment::<S>(c.pool, x, add, draw, y);
}

pub(super) fn dropout_dx<S: Simd>(c: &mut Call<'_>) {
    let (dy, draw, dx) = (c.f32(0), draw(c, 1), c.f32_mut(2));
    each_segment::<S>(c.pool, dy, None, draw, dx);
}

fn draw(c: &mut Call<'_>, rng: usize) -> Draw {
    Draw::new(c.u32(rng).row(0), c.dims.scalar_f32(0), c.dims.scalar(1))
}

fn each_row_plain(pool: &Pool, x: Mat<'_, f32>, add: Option<Mat<'_, f32>>, draw: Draw, y: MatMut<'_, f32>) {
    let cols = y.cols;
    pool.rows(y.split(), (BLOCK / cols.max(1)).max(1), &mut [], |first, mut y, _| {
        for r in 0..y.rows {
            let (x, add) = (x.row(first + r), add.map(|a| a.row(first + r)));
            for (c, y) in y.row(r).iter_mut().enumerate() {
                let kept = draw.keeps_all() || draw.keeps(((first + r) * cols + c) as u64);
                let scaled = if kept { x[c] * draw.scale() } else { 0.0 };
                *y = add.map_or(scaled, |a| a[c] + scaled);
            }
        }
    });
}

fn each_segment<S: Simd>(pool: &Pool, x: Mat<'_, f32>, add: Option<Mat<'_, f32>>, draw: Draw, y: MatMut<'_, f32>) {
    let cols = y.cols;
    if cols == 0 {
        return;
    }
    let gaps = x.ld != cols || y.ld != cols || add.is_some_and(|a| a.ld != cols);
    pool.rows(y.split(), (BLOCK / cols).max(1), &mut [], |first, mut y, _| {
        if gaps {
            for r in 0..y.rows {
                let (x, add) = (x.row(first + r), add.map(|a| a.row(first + r)));
                S::run(Segment { x, add, draw, element: ((first + r) * cols) as u64, y: y.row(r) });
            }
        } else {
            let at = first * cols;
            let whole = |m: Mat<'_, f32>| at..at + y.rows * m.cols;
            let (range, add) = (whole(x), add.map(|a| &a.data[whole(a)]));
            S::run(Segment { x: &x.data[range], add, draw, element: at as u64, y: &mut *y.data });
        }
    });
}

/// Neighbouring elements from number `element`.
struct Segment<'a> {
    x: &'a [f32],
    add: Option<&'a [f32]>,
    draw: Draw,
    element: u64,
    y: &'a mut [f32],
}

impl Body for Segment<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Segment { x, add, draw, element, y } = self;
        let scale = s.splat(draw.scale());
        let mut kept = [0xFF; STRIP];
        let (mut at, mut block, mut skip) = (0, element / 8, (element % 8) as usize);
        while at < y.len() {
            let n = (8 * S::WIDTH - skip).min(y.len() - at);
            if !draw.keeps_all() {
                draw.strip(s, block, &mut kept);
            }
            let soon = y.len().min(at + AHEAD)..y.len().min(at + AHEAD + n);
            s.fetch(&x[soon.clone()]);
            if let Some(add) = add {
                s.fetch(&add[soon.clone()]);
            }
            s.fetch_to_write(&mut y[soon]);
            let (x, y) = (&x[at..at + n], &mut y[at..at + n]);
            let add = add.map(|a| &a[at..at + n]);
            let mut i = 0;
            while i < n {
                let m = S::WIDTH.min(n - i);
                let full = m == S::WIDTH;
                let v = if full { s.load(&x[i..]) } else { s.load_part(&x[i..]) };
                let mut v = s.keep(s.mul(v, scale), bits_at(&kept, skip + i));
                if let Some(add) = add {
                    v = s.add(v, if full { s.load(&add[i..]) } else { s.load_part(&add[i..]) });
                }
                if full {
                    s.store(v, &mut y[i..])
                } else {
                    s.store_part(v, &mut y[i..])
                }
                i += m;
            }
            (at, block, skip) = (at + n, block + S::WIDTH as u64, 0);
        }
    }
}
