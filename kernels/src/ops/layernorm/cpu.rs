//! CPU code. Rows are independent in `layernorm` and `layernorm_dx`; `layernorm_dw` sums over them.
//!
//! A row is read from memory once: its second and third pass hit the first cache level.

use crate::contract::{Dims, Scratch};
use crate::operand::{Call, Mat, MatMut};
use crate::ops::vmath::{Body, Simd};

/// Elements of one task, about.
const BLOCK: usize = 16 * 1024;
/// Rows of one partial sum of `layernorm_dw`.
const SUM_ROWS: usize = 64;

fn block(cols: usize) -> usize {
    (BLOCK / cols.max(1)).max(1)
}

/// One sum after the other, element by element.
pub(super) fn plain_layernorm(c: &mut Call<'_>) {
    let (x, w, b, y, stats) = (c.f32(0), c.f32(1).row(0), c.f32_opt(2), c.f32_mut(3), c.f32_mut(4));
    let eps = c.dims.scalar_f32(0);
    c.pool.rows((y.split(), stats.split()), block(x.cols), &mut [], |first, (mut y, mut stats), _| {
        for r in 0..y.rows {
            let x = x.row(first + r);
            let mean = x.iter().sum::<f32>() / x.len() as f32;
            let var = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() / x.len() as f32;
            let rstd = 1.0 / (var + eps).sqrt();
            for (i, y) in y.row(r).iter_mut().enumerate() {
                *y = (x[i] - mean) * rstd * w[i] + b.map_or(0.0, |b| b.data[i]);
            }
            stats.row(r).copy_from_slice(&[mean, rstd]);
        }
    });
}

pub(super) fn plain_layernorm_dx(c: &mut Call<'_>) {
    let (dy, x, w, stats) = (c.f32(0), c.f32(1), c.f32(2).row(0), c.f32(3));
    let (add, dx) = (c.f32_opt(4), c.f32_mut(5));
    c.pool.rows(dx.split(), block(x.cols), &mut [], |first, mut dx, _| {
        for r in 0..dx.rows {
            let (dy, x, stats) = (dy.row(first + r), x.row(first + r), stats.row(first + r));
            let (mut sum_g, mut sum_gx) = (0.0, 0.0);
            for i in 0..x.len() {
                let g = dy[i] * w[i];
                sum_g += g;
                sum_gx += g * (x[i] - stats[0]) * stats[1];
            }
            let n = x.len() as f32;
            for (i, dx) in dx.row(r).iter_mut().enumerate() {
                let xhat = (x[i] - stats[0]) * stats[1];
                let own = stats[1] * (dy[i] * w[i] - sum_g / n - xhat * (sum_gx / n));
                *dx = add.map_or(own, |a| a.row(first + r)[i] + own);
            }
        }
    });
}

pub(super) fn plain_layernorm_dw(c: &mut Call<'_>) {
    let (dy, x, stats, dw, mut db) = (c.f32(0), c.f32(1), c.f32(2), c.f32_mut(3), c.f32_mut_opt(4));
    for i in 0..x.cols {
        let (mut sum_gx, mut sum_g) = (0.0, 0.0);
        for r in 0..x.rows {
            sum_gx += dy.row(r)[i] * (x.row(r)[i] - stats.row(r)[0]) * stats.row(r)[1];
            sum_g += dy.row(r)[i];
        }
        dw.data[i] = sum_gx;
        if let Some(db) = &mut db {
            db.data[i] = sum_g;
        }
    }
}

/// Four vector accumulators per sum.
pub(super) fn layernorm<S: Simd>(c: &mut Call<'_>) {
    let (x, w, b, y, stats) = (c.f32(0), c.f32(1).row(0), c.f32_opt(2), c.f32_mut(3), c.f32_mut(4));
    let (eps, b) = (c.dims.scalar_f32(0), b.map(|b| b.row(0)));
    c.pool.rows((y.split(), stats.split()), block(x.cols), &mut [], |first, (y, stats), _| {
        S::run(Forward { x, w, b, eps, first, y, stats });
    });
}

struct Forward<'a> {
    x: Mat<'a, f32>,
    w: &'a [f32],
    b: Option<&'a [f32]>,
    eps: f32,
    first: usize,
    y: MatMut<'a, f32>,
    stats: MatMut<'a, f32>,
}

impl Body for Forward<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Forward { x, w, b, eps, first, mut y, mut stats } = self;
        let cols = x.cols;
        for r in 0..y.rows {
            let x = x.row(first + r);
            let mean = reduce(
                s,
                cols,
                #[inline(always)]
                |s, i, m, acc| s.add(acc, load(s, x, i, m)),
            ) / cols as f32;
            let m = s.splat(mean);
            let var = reduce(
                s,
                cols,
                #[inline(always)]
                |s, i, n, acc| {
                    let d = s.sub(load(s, x, i, n), if n == S::WIDTH { m } else { first_lanes(s, m, n) });
                    s.madd(d, d, acc)
                },
            ) / cols as f32;
            let rstd = 1.0 / (var + eps).sqrt();
            let scale = s.splat(rstd);
            let y = y.row(r);
            each(
                s,
                cols,
                #[inline(always)]
                |s, i, n| {
                    let xhat = s.mul(s.sub(load(s, x, i, n), m), scale);
                    let v = match b {
                        Some(b) => s.madd(xhat, load(s, w, i, n), load(s, b, i, n)),
                        None => s.mul(xhat, load(s, w, i, n)),
                    };
                    store(s, v, y, i, n);
                },
            );
            stats.row(r).copy_from_slice(&[mean, rstd]);
        }
    }
}

pub(super) fn layernorm_dx<S: Simd>(c: &mut Call<'_>) {
    let (dy, x, w, stats) = (c.f32(0), c.f32(1), c.f32(2).row(0), c.f32(3));
    let (add, dx) = (c.f32_opt(4), c.f32_mut(5));
    c.pool.rows(dx.split(), block(x.cols), &mut [], |first, dx, _| {
        S::run(Backward { dy, x, w, stats, add, first, dx });
    });
}

struct Backward<'a> {
    dy: Mat<'a, f32>,
    x: Mat<'a, f32>,
    w: &'a [f32],
    stats: Mat<'a, f32>,
    add: Option<Mat<'a, f32>>,
    first: usize,
    dx: MatMut<'a, f32>,
}

impl Body for Backward<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Backward { dy, x, w, stats, add, first, mut dx } = self;
        let cols = x.cols;
        for r in 0..dx.rows {
            let (dy, x, stats) = (dy.row(first + r), x.row(first + r), stats.row(first + r));
            let (mean, rstd) = (s.splat(stats[0]), s.splat(stats[1]));
            let sum_g = reduce(
                s,
                cols,
                #[inline(always)]
                |s, i, n, acc| s.madd(load(s, dy, i, n), load(s, w, i, n), acc),
            );
            let sum_gx = reduce(
                s,
                cols,
                #[inline(always)]
                |s, i, n, acc| {
                    let xhat = s.mul(s.sub(load(s, x, i, n), mean), rstd);
                    s.madd(s.mul(load(s, dy, i, n), load(s, w, i, n)), xhat, acc)
                },
            );
            let (mean_g, mean_gx) = (s.splat(sum_g / cols as f32), s.splat(sum_gx / cols as f32));
            let (add, dx) = (add.map(|a| a.row(first + r)), dx.row(r));
            each(
                s,
                cols,
                #[inline(always)]
                |s, i, n| {
                    let xhat = s.mul(s.sub(load(s, x, i, n), mean), rstd);
                    let g = s.sub(s.mul(load(s, dy, i, n), load(s, w, i, n)), mean_g);
                    let own = s.mul(rstd, s.nmadd(xhat, mean_gx, g));
                    let own = match add {
                        Some(add) => s.add(load(s, add, i, n), own),
                        None => own,
                    };
                    store(s, own, dx, i, n);
                },
            );
        }
    }
}

/// Partial sums over [`SUM_ROWS`] rows each, then added in order of their rows.
pub(super) fn layernorm_dw<S: Simd>(c: &mut Call<'_>) {
    let (dy, x, stats, dw, db) = (c.f32(0), c.f32(1), c.f32(2), c.f32_mut(3), c.f32_mut_opt(4));
    let (cols, blocks) = (x.cols, x.rows.div_ceil(SUM_ROWS));
    let mut partial = MatMut::dense(&mut c.shared[..2 * blocks * cols], blocks, 2 * cols);
    c.pool.rows(partial.reborrow().split(), 1, &mut [], |at, mut sums, _| {
        let rows = at * SUM_ROWS..x.rows.min((at + 1) * SUM_ROWS);
        let (gx, g) = sums.row(0).split_at_mut(cols);
        S::run(ColumnSums { dy, x, stats, rows, gx, g });
    });
    let combine = |out: &mut [f32], at: usize| {
        out.fill(0.0);
        for sums in partial.data.chunks_exact(2 * cols.max(1)) {
            out.iter_mut().zip(&sums[at..]).for_each(|(o, s)| *o += s);
        }
    };
    combine(&mut dw.data[..cols], 0);
    if let Some(db) = db {
        combine(&mut db.data[..cols], cols);
    }
}

pub(super) fn partial_sums(d: &Dims) -> Scratch {
    Scratch { shared: 2 * d.size('r').div_ceil(SUM_ROWS) * d.size('c'), worker: 0 }
}

struct ColumnSums<'a> {
    dy: Mat<'a, f32>,
    x: Mat<'a, f32>,
    stats: Mat<'a, f32>,
    rows: std::ops::Range<usize>,
    gx: &'a mut [f32],
    g: &'a mut [f32],
}

impl Body for ColumnSums<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let ColumnSums { dy, x, stats, rows, gx, g } = self;
        // Two vectors of columns at a time, so that four sums run side by side.
        let mut i = 0;
        while i < gx.len() {
            let n = S::WIDTH.min(gx.len() - i);
            let n2 = S::WIDTH.min(gx.len() - i - n);
            let mut sums = [s.splat(0.0); 4];
            for r in rows.clone() {
                let (dy, x, stats) = (dy.row(r), x.row(r), stats.row(r));
                let (mean, rstd) = (s.splat(stats[0]), s.splat(stats[1]));
                let (d, v) = (load(s, dy, i, n), load(s, x, i, n));
                sums[0] = s.madd(d, s.mul(s.sub(v, mean), rstd), sums[0]);
                sums[1] = s.add(d, sums[1]);
                if n2 > 0 {
                    let (d, v) = (load(s, dy, i + n, n2), load(s, x, i + n, n2));
                    sums[2] = s.madd(d, s.mul(s.sub(v, mean), rstd), sums[2]);
                    sums[3] = s.add(d, sums[3]);
                }
            }
            store(s, sums[0], gx, i, n);
            store(s, sums[1], g, i, n);
            if n2 > 0 {
                store(s, sums[2], gx, i + n, n2);
                store(s, sums[3], g, i + n, n2);
            }
            i += n + n2;
        }
    }
}

#[inline(always)]
fn load<S: Simd>(s: S, from: &[f32], at: usize, n: usize) -> S::V {
    if n == S::WIDTH { s.load(&from[at..]) } else { s.load_part(&from[at..at + n]) }
}

#[inline(always)]
fn store<S: Simd>(s: S, v: S::V, to: &mut [f32], at: usize, n: usize) {
    if n == S::WIDTH { s.store(v, &mut to[at..]) } else { s.store_part(v, &mut to[at..at + n]) }
}

/// The first `n` elements, then zeros.
#[inline(always)]
fn first_lanes<S: Simd>(s: S, v: S::V, n: usize) -> S::V {
    let mut all = [0.0; 16];
    s.store_part(v, &mut all[..n]);
    s.load(&all)
}

// Closures are `inline(always)`: one that is called is not compiled for the instruction set.

/// Calls `f(s, at, n)` for every vector of a row; `n` is below `WIDTH` only in the last.
#[inline(always)]
fn each<S: Simd>(s: S, cols: usize, mut f: impl FnMut(S, usize, usize)) {
    let mut i = 0;
    while i + S::WIDTH <= cols {
        f(s, i, S::WIDTH);
        i += S::WIDTH;
    }
    if i < cols {
        f(s, i, cols - i);
    }
}

/// Sum over a row of what `f(s, at, n, accumulator)` adds, in four accumulators.
#[inline(always)]
fn reduce<S: Simd>(s: S, cols: usize, f: impl Fn(S, usize, usize, S::V) -> S::V) -> f32 {
    let mut acc = [s.splat(0.0); 4];
    let mut i = 0;
    while i + 4 * S::WIDTH <= cols {
        for (k, acc) in acc.iter_mut().enumerate() {
            *acc = f(s, i + k * S::WIDTH, S::WIDTH, *acc);
        }
        i += 4 * S::WIDTH;
    }
    while i + S::WIDTH <= cols {
        acc[0] = f(s, i, S::WIDTH, acc[0]);
        i += S::WIDTH;
    }
    if i < cols {
        acc[1] = f(s, i, cols - i, acc[1]);
    }
    s.sum(s.add(s.add(acc[0], acc[1]), s.add(acc[2], acc[3])))
}
