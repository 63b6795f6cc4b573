//! Small dense systems in f64: a Cholesky factor and what is solved with it.

/// Lower factor `L` of a symmetric positive definite matrix, `a = L Lᵀ`, row major.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cholesky {
    n: usize,
    lower: Vec<f64>,
}

impl Cholesky {
    /// Factors `a[n, n]`, of which the lower half is read; `None` if it is not positive definite.
    pub(crate) fn new(mut a: Vec<f64>, n: usize) -> Option<Cholesky> {
        for j in 0..n {
            for i in j..n {
                let (above, row) = a.split_at(i * n);
                let other = if i == j { &row[..j] } else { &above[j * n..][..j] };
                let sum = row[j] - row[..j].iter().zip(other).map(|(x, y)| x * y).sum::<f64>();
                if i == j {
                    // Also refuses NaN.
                    if !(sum > 0.0 && sum.is_finite()) {
                        return None;
                    }
                    a[j * n + j] = sum.sqrt();
                } else {
                    a[i * n + j] = sum / a[j * n + j];
                }
            }
        }
        Some(Cholesky { n, lower: a })
    }

    /// `ln det a`.
    pub(crate) fn log_det(&self) -> f64 {
        (0..self.n).map(|j| 2.0 * self.lower[j * self.n + j].ln()).sum()
    }

    /// Replaces `x` by `L⁻¹ x`, so that `|x|²` becomes `xᵀ a⁻¹ x`.
    pub(crate) fn whiten(&self, x: &mut [f64]) {
        for i in 0..self.n {
            let row = &self.lower[i * self.n..][..=i];
            let sum: f64 = row[..i].iter().zip(&*x).map(|(l, x)| l * x).sum();
            x[i] = (x[i] - sum) / row[i];
        }
    }

    /// Replaces `x` by `a⁻¹ x`.
    pub(crate) fn solve(&self, x: &mut [f64]) {
        self.whiten(x);
        for i in (0..self.n).rev() {
            x[i] /= self.lower[i * self.n + i];
            for j in 0..i {
                x[j] -= self.lower[i * self.n + j] * x[i];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Cholesky;
    use proptest::prelude::{prop_assert, proptest};

    #[test]
    fn by_hand() {
        let factor = Cholesky::new(vec![4.0, 0.0, 2.0, 5.0], 2).unwrap();
        assert_eq!(factor.lower[..1], [2.0]);
        assert_eq!(factor.lower[2..], [1.0, 2.0]);
        assert!((factor.log_det() - 16f64.ln()).abs() < 1e-15);
        let mut x = [8.0, 9.0];
        factor.solve(&mut x);
        assert!((x[0] - 1.375).abs() < 1e-15 && (x[1] - 1.25).abs() < 1e-15, "{x:?}");
        for bad in [[1.0, 0.0, 2.0, 4.0], [f64::NAN, 0.0, 0.0, 1.0], [0.0; 4]] {
            assert_eq!(Cholesky::new(bad.to_vec(), 2), None);
        }
    }

    proptest! {
        #[test]
        fn solves(n in 1usize..12, values in proptest::collection::vec(-1f64..1.0, 12 * 13)) {
            // B Bᵀ + I is positive definite.
            let b = |i: usize, j: usize| values[i * 12 + j];
            let a: Vec<f64> = (0..n * n).map(|at| {
                let (i, j) = (at / n, at % n);
                (0..n).map(|k| b(i, k) * b(j, k)).sum::<f64>() + f64::from(u8::from(i == j))
            }).collect();
            let want = &values[12 * 12..][..n];
            let product: Vec<f64> = a.chunks_exact(n).map(|row| row.iter().zip(want).map(|(a, x)| a * x).sum()).collect();
            let factor = Cholesky::new(a, n).unwrap();
            let mut x = product.clone();
            factor.solve(&mut x);
            prop_assert!(x.iter().zip(want).all(|(x, w)| (x - w).abs() < 1e-9), "{x:?} {want:?}");
            let mut white = product.clone();
            factor.whiten(&mut white);
            let quadratic: f64 = product.iter().zip(want).map(|(p, w)| p * w).sum();
            prop_assert!((white.iter().map(|w| w * w).sum::<f64>() - quadratic).abs() < 1e-9 * (1.0 + quadratic));
        }
    }
}
