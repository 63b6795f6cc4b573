//! Statistics of latents, and distances between them.

use crate::error::{Error, Result, in_range, rows_of};

/// Smallest variance of [`Gaussian::from_rows`].
const LEAST_VAR: f32 = 1e-6;

/// A diagonal Gaussian over latents: what a finished task keeps of its 256 frames. Shapes: `mean[d]`, `var[d]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Gaussian {
    mean: Vec<f32>,
    var: Vec<f32>,
}

impl Gaussian {
    /// From stored moments.
    ///
    /// # Errors
    /// [`Error::Length`] if the sizes differ, [`Error::Empty`] without dimensions, [`Error::Range`] if a mean is not
    /// finite or a variance is not finite and positive.
    pub fn new(mean: Vec<f32>, var: Vec<f32>) -> Result<Gaussian> {
        if mean.is_empty() {
            return Err(Error::Empty { what: "mean" });
        }
        if mean.len() != var.len() {
            return Err(Error::Length { what: "var", expected: mean.len(), found: var.len() });
        }
        for (at, (mean, var)) in mean.iter().zip(&var).enumerate() {
            in_range(&format!("mean[{at}]"), f64::from(*mean), "the finite numbers", |_| true)?;
            in_range(&format!("var[{at}]"), f64::from(*var), "the positive finite numbers", |v| v > 0.0)?;
        }
        Ok(Gaussian { mean, var })
    }

    /// Mean and population variance of every column of `rows[n, d]`, variances clamped to at least 1e-6. Two passes in
    /// f64.
    ///
    /// # Errors
    /// [`Error::Empty`] without rows or columns, [`Error::Length`] if a row is cut short, [`Error::Range`] if a value is
    /// not finite.
    ///
    /// Source: `tsn_improved_reuse` of the official code.
    pub fn from_rows(rows: &[f32], d: usize) -> Result<Gaussian> {
        let n = rows_of("rows", rows, d)?.len() as f64;
        let mut mean = vec![0.0; d];
        for row in rows.chunks_exact(d) {
            mean.iter_mut().zip(row).for_each(|(mean, x)| *mean += f64::from(*x) / n);
        }
        let mut var = vec![0.0; d];
        for row in rows.chunks_exact(d) {
            for ((var, mean), x) in var.iter_mut().zip(&mean).zip(row) {
                *var += (f64::from(*x) - mean).powi(2) / n;
            }
        }
        let var = var.iter().map(|v| (*v as f32).max(LEAST_VAR)).collect();
        Gaussian::new(mean.iter().map(|m| *m as f32).collect(), var)
    }

    /// Means.
    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// Variances, all positive.
    pub fn var(&self) -> &[f32] {
        &self.var
    }

    /// Number of dimensions.
    pub fn width(&self) -> usize {
        self.mean.len()
    }

    /// `(mean, var)` of each dimension of two Gaussians.
    fn pairs<'a>(&'a self, other: &'a Gaussian) -> Result<impl Iterator<Item = [f64; 4]> + 'a> {
        if self.width() != other.width() {
            return Err(Error::Length { what: "other Gaussian", expected: self.width(), found: other.width() });
        }
        let left = self.mean.iter().zip(&self.var);
        let right = other.mean.iter().zip(&other.var);
        Ok(left.zip(right).map(|((a, b), (c, d))| [a, b, c, d].map(|x| f64::from(*x))))
    }
}

/// Symmetric KL divergence between two diagonal Gaussians, in nats, summed over dimensions.
///
/// `½ (KL(p‖q) + KL(q‖p))`; the logarithms cancel, so `L(p, p) = 0` exactly. In `0..`; lower is closer.
///
/// # Errors
/// [`Error::Length`] if the widths differ. Variances were checked when the Gaussians were made.
///
/// Source: closed form for Gaussians; Bishop, PRML (2006), exercise 2.13; `tsn_improved_reuse` of the official code.
pub fn sym_kl(p: &Gaussian, q: &Gaussian) -> Result<f64> {
    let term = |[mean_p, var_p, mean_q, var_q]: [f64; 4]| {
        let gap = (mean_p - mean_q).powi(2);
        0.25 * ((var_p + gap) / var_q + (var_q + gap) / var_p - 2.0)
    };
    Ok(p.pairs(q)?.map(term).sum::<f64>().max(0.0))
}

/// Squared 2-Wasserstein distance between two diagonal Gaussians, in squared units of the latents.
///
/// `|mean_p - mean_q|² + |sd_p - sd_q|²`; lower is closer.
///
/// # Errors
/// [`Error::Length`] if the widths differ.
///
/// Source: Givens and Shortt (1984), for commuting covariances.
pub fn w2_squared(p: &Gaussian, q: &Gaussian) -> Result<f64> {
    let term =
        |[mean_p, var_p, mean_q, var_q]: [f64; 4]| (mean_p - mean_q).powi(2) + (var_p.sqrt() - var_q.sqrt()).powi(2);
    Ok(p.pairs(q)?.map(term).sum())
}

/// Cosine of two vectors of one length, norms clamped to at least 1e-8: `<a, b> / (max(|a|, 1e-8) max(|b|, 1e-8))`.
///
/// In -1..1, 0 for a zero vector. Accumulated in f64. For many pairs use the op `cosine`.
///
/// # Errors
/// [`Error::Length`] if the lengths differ.
pub fn cosine(a: &[f32], b: &[f32]) -> Result<f64> {
    if a.len() != b.len() {
        return Err(Error::Length { what: "second vector", expected: a.len(), found: b.len() });
    }
    Ok(dot(a, b) / (dot(a, a).sqrt().max(1e-8) * dot(b, b).sqrt().max(1e-8)))
}

pub(crate) fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(mean: f32, var: f32) -> Gaussian {
        Gaussian::new(vec![mean], vec![var]).expect("valid moments")
    }

    fn gaussian(d: usize) -> impl Strategy<Value = Gaussian> {
        let moments = (prop::collection::vec(-5f32..5.0, d), prop::collection::vec(1e-3f32..9.0, d));
        moments.prop_map(|(mean, var)| Gaussian::new(mean, var).expect("valid moments"))
    }

    #[test]
    fn values_by_hand() {
        assert_eq!(sym_kl(&one(0.0, 1.0), &one(1.0, 1.0)), Ok(0.5));
        assert_eq!(sym_kl(&one(0.0, 1.0), &one(0.0, 4.0)), Ok(0.5625));
        assert_eq!(w2_squared(&one(0.0, 1.0), &one(2.0, 9.0)), Ok(8.0));
        assert_eq!(cosine(&[3.0, 4.0], &[4.0, 3.0]), Ok(0.96));
        assert_eq!(cosine(&[0.0, 0.0], &[4.0, 3.0]), Ok(0.0));
    }

    #[test]
    fn moments_are_those_of_the_population() {
        let rows = [1.0, 5.0, 3.0, 5.0, 2.0, 5.0, 6.0, 5.0];
        assert_eq!(Gaussian::from_rows(&rows, 2), Gaussian::new(vec![3.0, 5.0], vec![3.5, LEAST_VAR]));
        assert_eq!(Gaussian::from_rows(&[], 2), Err(Error::Empty { what: "rows" }));
        assert_eq!(Gaussian::from_rows(&rows, 0), Err(Error::Empty { what: "rows" }));
        assert_eq!(Gaussian::from_rows(&rows, 3), Err(Error::Length { what: "rows", expected: 6, found: 8 }));
        assert!(matches!(Gaussian::from_rows(&[f32::NAN], 1), Err(Error::Range { .. })));
    }

    #[test]
    fn bad_moments_are_named() {
        for var in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            let error = Gaussian::new(vec![0.0, 0.0], vec![1.0, var]).expect_err("bad variance");
            assert!(matches!(&error, Error::Range { what, .. } if what == "var[1]"), "{error}");
        }
        assert!(Gaussian::new(vec![f32::NAN], vec![1.0]).is_err());
        assert!(Gaussian::new(vec![], vec![]).is_err());
        assert!(Gaussian::new(vec![0.0], vec![]).is_err());
        assert!(sym_kl(&one(0.0, 1.0), &Gaussian::new(vec![0.0; 2], vec![1.0; 2]).expect("valid")).is_err());
    }

    proptest! {
        #[test]
        fn distances(p in gaussian(5), q in gaussian(5), r in gaussian(5)) {
            for distance in [sym_kl, w2_squared] {
                prop_assert_eq!(distance(&p, &p), Ok(0.0));
                let (pq, qp) = (distance(&p, &q).unwrap(), distance(&q, &p).unwrap());
                prop_assert!(pq >= 0.0 && (pq - qp).abs() <= 1e-12 * pq);
            }
            // The root of W2² is a metric.
            let root = |a: &Gaussian, b: &Gaussian| w2_squared(a, b).unwrap().sqrt();
            prop_assert!(root(&p, &r) <= root(&p, &q) + root(&q, &r) + 1e-9);
            // The two directions by the definition, logarithms included.
            let kl = |a: &Gaussian, b: &Gaussian| -> f64 {
                a.pairs(b).unwrap().map(|[m, v, n, w]| 0.5 * ((w / v).ln() + (v + (m - n).powi(2)) / w - 1.0)).sum()
            };
            let by_definition = 0.5 * (kl(&p, &q) + kl(&q, &p));
            prop_assert!((sym_kl(&p, &q).unwrap() - by_definition).abs() <= 1e-9 * (1.0 + by_definition));
        }

        #[test]
        fn cosine_laws(pairs in prop::collection::vec((-9f32..9.0, -9f32..9.0), 1..20), scale in 0.01f32..100.0) {
            let (a, b): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            let one = cosine(&a, &b).unwrap();
            prop_assert!(one.abs() <= 1.0 + 1e-6);
            prop_assert_eq!(one, cosine(&b, &a).unwrap());
            let longer: Vec<f32> = a.iter().map(|x| x * scale).collect();
            prop_assert!((cosine(&longer, &b).unwrap() - one).abs() <= 1e-6);
        }
    }
}
