//! f64 references.

use crate::reference::Reference;
use std::f64::consts::{PI, SQRT_2};

pub(super) fn gelu(r: &mut Reference) {
    let y = r.f(0).iter().map(|x| x * normal_cdf(*x)).collect();
    r.put_f(1, y);
}

pub(super) fn gelu_dx(r: &mut Reference) {
    let dx = r.f(0).iter().zip(&r.f(1)).map(|(x, dy)| dy * gelu_slope(*x)).collect();
    r.put_f(2, dx);
}

pub(super) fn add(r: &mut Reference) {
    let y = r.f(0).iter().zip(&r.f(1)).map(|(a, b)| a + b).collect();
    r.put_f(2, y);
}

pub(super) fn fill(r: &mut Reference) {
    let n = r.dims.size('r') * r.dims.size('c');
    r.put_f(0, vec![f64::from(r.dims.scalar_f32(0)); n]);
}

/// Derivative of `x normal_cdf(x)`.
pub(crate) fn gelu_slope(x: f64) -> f64 {
    normal_cdf(x) + x * (-0.5 * x * x).exp() / (2.0 * PI).sqrt()
}

/// `(1 + erf(x / sqrt 2)) / 2`, without losing the lower tail.
pub(crate) fn normal_cdf(x: f64) -> f64 {
    let z = x.abs() / SQRT_2;
    let tail = if z < 3.0 { 0.5 * (1.0 - erf_series(z)) } else { 0.5 * erfc_fraction(z) };
    if x > 0.0 { 1.0 - tail } else { tail }
}

/// Taylor series `2 / sqrt(π) * exp(-z^2) * sum (2 z^2)^n z / (1 * 3 * .. * (2n + 1))`; all terms are positive.
fn erf_series(z: f64) -> f64 {
    let (mut term, mut sum) = (z, z);
    for n in 1..100 {
        term *= 2.0 * z * z / f64::from(2 * n + 1);
        sum += term;
    }
    2.0 / PI.sqrt() * (-z * z).exp() * sum
}

/// Continued fraction of Laplace, `exp(-z^2) / sqrt(π) / (z + 1/2 / (z + 1 / (z + 3/2 / ..)))`; NaN for NaN.
fn erfc_fraction(z: f64) -> f64 {
    let mut tail = z;
    for n in (1..=100).rev() {
        tail = z + f64::from(n) / 2.0 / tail;
    }
    (-z * z).exp() / PI.sqrt() / tail
}
