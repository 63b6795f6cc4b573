//! CPU code. Rows are independent but for `dw` and `db`, which are partial sums over blocks of rows, then their sum.
//!
//! A row is read from memory once: its second and third pass hit the first cache level.

use crate::contract::{Dims, Scratch};
use crate::operand::{Call, Mat, MatMut, Real};
use crate::ops::vmath::{Body, Simd};

/// Elements of one task, about.
const BLOCK: usize = 16 * 1024;
/// Rows ahead of the one in work that are asked for, if a row has at most so many elements.
const AHEAD: usize = 2;
const AHEAD_COLS: usize = 512;
/// Rows of one partial sum of `dw` and `db`.
const SUM_ROWS: usize = 64;

fn block(cols: usize) -> usize {
    (BLOCK / cols.max(1)).max(1)
}

/// One sum after the other, element by element.
pub(super) fn plain_layernorm<T: Real>(c: &mut Call<'_>) {
    let (x, w, b, y, stats) = (T::read(c, 0), c.f32(1).row(0), c.f32_opt(2), c.f32_mut(3), c.f32_mut(4));
    let eps = c.dims.scalar_f32(0);
    c.pool.rows((y.split(), stats.split()), block(x.cols), &mut [], |first, (mut y, mut stats), _| {
        for r in 0..y.rows {
            let x = x.row(first + r);
            let mean = x.iter().map(|x| (*x).into()).sum::<f32>() / x.len() as f32;
            let square = |x: &T| ((*x).into() - mean) * ((*x).into() - mean);
            let var = x.iter().map(square).sum::<f32>() / x.len() as f32;
            let rstd = 1.0 / (var + eps).sqrt();
            for (i, y) in y.row(r).iter_mut().enumerate() {
                *y = (x[i].into() - mean) * rstd * w[i] + b.map_or(0.0, |b| b.data[i]);
            }
            stats.row(r).copy_from_slice(&[mean, rstd]);
        }
    });
}

pub(super) fn plain_layernorm_dx<'a, T: Real>(c: &mut Call<'a>) {
    let (dy, x, w, stats) = (T::read(c, 0), T::read(c, 1), c.f32(2).row(0), c.f32(3));
    let (add, dx) = (c.f32_opt(4), c.f32_mut(5));
    c.pool.rows(dx.split(), block(x.cols), &mut [], |first, mut dx, _| {
        for r in 0..dx.rows {
            let (dy, x, stats) = (dy.row(first + r), x.row(first + r), stats.row(first + r));
            let (mut sum_g, mut sum_gx) = (0.0, 0.0);
            for i in 0..x.len() {
                let g = dy[i].into() * w[i];
                sum_g += g;
                sum_gx += g * (x[i].into() - stats[0]) * stats[1];
            }
            let n = x.len() as f32;
            for (i, dx) in dx.row(r).iter_mut().enumerate() {
                let xhat = (x[i].into() - stats[0]) * stats[1];
                let own = stats[1] * (dy[i].into() * w[i] - sum_g / n - xhat * (sum_gx / n));
                *dx = add.map_or(own, |a| a.row(first + r)[i] + own);
            }
        }
    });
    let all = |m: Option<MatMut<'a, f32>>| m.map_or(&mut [][..], |m| m.data);
    plain_sums(dy, x, stats, all(c.f32_mut_opt(6)), all(c.f32_mut_opt(7)));
}

/// Sums over rows, column by column.
fn plain_sums<T: Real>(dy: Mat<'_, T>, x: Mat<'_, T>, stats: Mat<'_, f32>, dw: &mut [f32], db: &mut [f32]) {
    for i in 0..x.cols {
        let (mut sum_gx, mut sum_g) = (0.0, 0.0);
        for r in 0..x.rows {
            let (dy, x, stats) = (dy.row(r)[i].into(), x.row(r)[i].into(), stats.row(r));
            sum_gx += dy * (x - stats[0]) * stats[1];
            sum_g += dy;
        }
        if let Some(dw) = dw.get_mut(i) {
            *dw = sum_gx;
        }
        if let Some(db) = db.get_mut(i) {
            *db = sum_g;
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
            if cols <= AHEAD_COLS && r + AHEAD < y.rows {
                s.fetch(x.row(first + r + AHEAD));
                s.fetch_to_write(y.row(r + AHEAD));
            }
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

/// Partial sums over [`SUM_ROWS`] rows each, then added in order of their rows.
pub(super) fn layernorm_dx<S: Simd>(c: &mut Call<'_>) {
    let (dy, x, w, stats) = (c.f32(0), c.f32(1), c.f32(2).row(0), c.f32(3));
    let (add, dx, dw, db) = (c.f32_opt(4), c.f32_mut(5), c.f32_mut_opt(6), c.f32_mut_opt(7));
    let (cols, blocks) = (x.cols, x.rows.div_ceil(SUM_ROWS));
    let sums = usize::from(dw.is_some() || db.is_some()) + usize::from(db.is_some());
    let mut partial = MatMut::dense(&mut c.shared[..sums * blocks * cols], blocks, sums * cols);
    let outputs = (dx.split_blocks(SUM_ROWS), partial.reborrow().split());
    c.pool.rows(outputs, 1, &mut [], |at, (dx, mut sums), _| {
        let sums = sums.row(0);
        sums.fill(0.0);
        let (gx, g) = sums.split_at_mut(cols.min(sums.len()));
        S::run(Backward { dy, x, w, stats, add, first: at * SUM_ROWS, dx, gx, g });
    });
    for (at, out) in [dw, db].into_iter().enumerate() {
        let Some(out) = out else { continue };
        let out = &mut out.data[..cols];
        out.fill(0.0);
        for sums in partial.data.chunks_exact((sums * cols).max(1)) {
            out.iter_mut().zip(&sums[at * cols..]).for_each(|(o, s)| *o += s);
        }
    }
}

pub(super) fn partial_sums(d: &Dims) -> Scratch {
    Scratch { shared: 2 * d.size('r').div_ceil(SUM_ROWS) * d.size('c'), worker: 0 }
}

struct Backward<'a> {
    dy: Mat<'a, f32>,
    x: Mat<'a, f32>,
    w: &'a [f32],
    stats: Mat<'a, f32>,
    add: Option<Mat<'a, f32>>,
    first: usize,
    dx: MatMut<'a, f32>,
    /// Sums of `dy ⊙ xhat` and of `dy` over these rows; empty if not wanted.
    gx: &'a mut [f32],
    g: &'a mut [f32],
}

impl Body for Backward<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Backward { dy, x, w, stats, add, first, mut dx, gx, g } = self;
        let cols = x.cols;
        for r in 0..dx.rows {
            if cols <= AHEAD_COLS && r + AHEAD < dx.rows {
                let soon = first + r + AHEAD;
                s.fetch(dy.row(soon));
                s.fetch(x.row(soon));
                if let Some(add) = add {
                    s.fetch(add.row(soon));
                }
                s.fetch_to_write(dx.row(r + AHEAD));
            }
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
                    let d = load(s, dy, i, n);
                    if !gx.is_empty() {
                        store(s, s.madd(d, xhat, load(s, gx, i, n)), gx, i, n);
                    }
                    if !g.is_empty() {
                        store(s, s.add(d, load(s, g, i, n)), g, i, n);
                    }
                    let own = s.mul(rstd, s.nmadd(xhat, mean_gx, s.sub(s.mul(d, load(s, w, i, n)), mean_g)));
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
