//! f64 references.

use crate::ops::pointwise::reference::{gelu_slope, normal_cdf};
use crate::reference::Reference;

pub(super) fn gemm(c: &mut Reference) {
    let (r, i, o) = sizes(c);
    let (x, w, bias) = (c.f(0), c.f(1), c.f(2));
    let mut y = vec![0.0; r * o];
    for row in 0..r {
        for col in 0..o {
            let sum: f64 = (0..i).map(|j| x[row * i + j] * w[col * i + j]).sum();
            y[row * o + col] = sum + bias.get(col).unwrap_or(&0.0);
        }
    }
    put_forward(c, 3, y);
}

pub(super) fn gemm_dx(c: &mut Reference) {
    let (r, i, o) = sizes(c);
    let (dy, w) = (c.f(0), c.f(1));
    let mut dx = vec![0.0; r * i];
    for row in 0..r {
        for col in 0..i {
            dx[row * i + col] = (0..o).map(|k| dy[row * o + k] * w[k * i + col]).sum();
        }
    }
    put_back(c, 2, dx);
}

/// `y` as argument `at`; if the next one is present `gelu(y)`, and there the derivative.
pub(in crate::ops) fn put_forward(c: &mut Reference, at: usize, y: Vec<f64>) {
    if c.has(at + 1) {
        c.put_f(at, y.iter().map(|y| y * normal_cdf(*y)).collect());
        c.put_f(at + 1, y.into_iter().map(gelu_slope).collect());
    } else {
        c.put_f(at, y);
    }
}

/// `dx` as argument `at`, times the next one if it is present.
pub(in crate::ops) fn put_back(c: &mut Reference, at: usize, mut dx: Vec<f64>) {
    if c.has(at + 1) {
        dx.iter_mut().zip(c.f(at + 1)).for_each(|(dx, slope)| *dx *= slope);
    }
    c.put_f(at, dx);
}

pub(super) fn gemm_dw(c: &mut Reference) {
    let (r, i, o) = sizes(c);
    let dw = outer(&c.f(0), &c.f(1), r, i, o);
    c.put_f(2, dw);
}

pub(super) fn bias_dw(c: &mut Reference) {
    let db = column_sums(&c.f(0), c.dims.size('r'), c.dims.size('o'), c.dims.scalar(0) as usize);
    c.put_f(1, db);
}

/// `dyᵀ x`.
pub(in crate::ops) fn outer(dy: &[f64], x: &[f64], r: usize, i: usize, o: usize) -> Vec<f64> {
    let mut g = vec![0.0; o * i];
    for row in 0..r {
        for k in 0..o {
            for j in 0..i {
                g[k * i + j] += dy[row * o + k] * x[row * i + j];
            }
        }
    }
    g
}

/// Sum of `dy[r, o * inner]` over rows and the inner index.
pub(in crate::ops) fn column_sums(dy: &[f64], r: usize, o: usize, inner: usize) -> Vec<f64> {
    let mut sums = vec![0.0; o];
    for row in 0..r {
        for (k, sum) in sums.iter_mut().enumerate() {
            *sum += dy[(row * o + k) * inner..][..inner].iter().sum::<f64>();
        }
    }
    sums
}

fn sizes(c: &Reference) -> (usize, usize, usize) {
    (c.dims.size('r'), c.dims.size('i'), c.dims.size('o'))
}
