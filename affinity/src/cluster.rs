//! Prototypes of a task by spherical k-means, and the cosine affinity to them.

use crate::error::{Error, Result, in_range, rows_of};
use crate::stats::dot;
use engine::kernels::philox::{Rng, Stream};

/// Most rounds of [`Prototypes::fit`]; fewer if no row changes its cluster.
const ROUNDS: usize = 50;

/// What is subtracted from rows before they are normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The task's own mean: hidden vectors share a large common part that would make all cosines nearly 1.
    Mean,
    /// Nothing: pooled pixels, whose common part tells tasks apart.
    Zero,
}

/// Directions that stand for a task's latents: `mean[d]`, and `center[m, d]` of length 1 (or 0).
#[derive(Clone, Debug, PartialEq)]
pub struct Prototypes {
    mean: Vec<f32>,
    center: Vec<f32>,
}

impl Prototypes {
    /// From stored values: `mean[d]`, `center[m, d]`.
    ///
    /// # Errors
    /// [`Error::Empty`] without dimensions or centres, [`Error::Length`] if a centre is cut short, [`Error::Range`] if a
    /// value is not finite.
    pub fn new(mean: Vec<f32>, center: Vec<f32>) -> Result<Prototypes> {
        let _centers = rows_of("center", &center, mean.len())?;
        for x in mean.iter().chain(&center) {
            in_range("prototype value", f64::from(*x), "the finite numbers", |_| true)?;
        }
        Ok(Prototypes { mean, center })
    }

    /// `min(m, n)` centres of `rows[n, d]`: spherical k-means with k-means++ seeding on `1 - cos`.
    ///
    /// Deterministic in `(seed, task)`: Philox stream `Routing`, place `(task, 1)`. Ties go to the lower index; a cluster
    /// that loses its last row takes the row that is worst served. Cost `2 n m d` flop a round, at most 50 rounds.
    ///
    /// # Errors
    /// [`Error::Empty`] without rows, columns or centres, [`Error::Length`] if a row is cut short, [`Error::Range`] if a
    /// value is not finite.
    ///
    /// Source: Dhillon and Modha (2001); Arthur and Vassilvitskii (2007) for the seeding.
    pub fn fit(rows: &[f32], d: usize, m: usize, origin: Origin, seed: u64, task: u32) -> Result<Prototypes> {
        let n = rows_of("rows", rows, d)?.len();
        let m = m.min(n);
        if m == 0 {
            return Err(Error::Empty { what: "list of centres" });
        }
        for x in rows {
            in_range("row value", f64::from(*x), "the finite numbers", |_| true)?;
        }
        let mean = match origin {
            Origin::Zero => vec![0.0; d],
            Origin::Mean => column_means(rows, d),
        };
        let unit: Vec<f32> = rows.chunks_exact(d).flat_map(|row| direction(row, &mean)).collect();
        let mut center = seeding(&unit, d, m, &mut Rng::new(seed, Stream::Routing, [task, 1]));
        let mut cluster = vec![usize::MAX; n];
        for _ in 0..ROUNDS {
            let mut moved = false;
            let mut served = vec![0.0; n];
            for (at, row) in unit.chunks_exact(d).enumerate() {
                let (best, cosine) = nearest(row, &center, d);
                moved |= cluster[at] != best;
                (cluster[at], served[at]) = (best, cosine);
            }
            if !moved {
                break;
            }
            center = means(&unit, d, m, &mut cluster, &mut served);
        }
        Ok(Prototypes { mean, center })
    }

    /// What is subtracted from a row.
    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// Centres, row major.
    pub fn center(&self) -> &[f32] {
        &self.center
    }

    /// Number of dimensions.
    pub fn width(&self) -> usize {
        self.mean.len()
    }

    /// Task-level cosine affinity `C`: the mean over `rows[n, d]` of the largest cosine of `row - mean` with a centre.
    ///
    /// In -1..1, higher is closer; routing uses the error form `1 - C`. The rows are the new task's latents under this
    /// task's subnetwork.
    ///
    /// # Errors
    /// [`Error::Empty`] without rows, [`Error::Length`] if a row is cut short, [`Error::Range`] if a value is not finite.
    ///
    /// Source: section 10.2 of the method.
    pub fn affinity(&self, rows: &[f32]) -> Result<f64> {
        let d = self.width();
        let each = rows_of("rows", rows, d)?;
        let n = each.len() as f64;
        let total: f64 = each.map(|row| nearest(&direction(row, &self.mean), &self.center, d).1).sum();
        in_range("cosine affinity of the rows", total / n, "the finite numbers", |_| true)
    }
}

fn column_means(rows: &[f32], d: usize) -> Vec<f32> {
    let n = (rows.len() / d) as f64;
    let mut mean = vec![0.0; d];
    for row in rows.chunks_exact(d) {
        mean.iter_mut().zip(row).for_each(|(mean, x)| *mean += f64::from(*x) / n);
    }
    mean.iter().map(|m| *m as f32).collect()
}

/// `row - mean` scaled to length 1; zero stays zero.
fn direction(row: &[f32], mean: &[f32]) -> Vec<f32> {
    let gap: Vec<f64> = row.iter().zip(mean).map(|(x, mean)| f64::from(*x) - f64::from(*mean)).collect();
    let length = gap.iter().map(|x| x * x).sum::<f64>().sqrt().max(1e-8);
    gap.iter().map(|x| (x / length) as f32).collect()
}

/// The centre of largest cosine, the lower one on ties, and that cosine.
fn nearest(row: &[f32], center: &[f32], d: usize) -> (usize, f64) {
    let mut best = (0, f64::NEG_INFINITY);
    for (at, center) in center.chunks_exact(d).enumerate() {
        let cosine = dot(row, center);
        // A NaN from the caller's rows must come out, not vanish in a comparison.
        if cosine > best.1 || cosine.is_nan() {
            best = (at, cosine);
        }
    }
    best
}

/// A random row, then each time a row drawn in proportion to its squared distance from the centres chosen so far.
fn seeding(unit: &[f32], d: usize, m: usize, rng: &mut Rng) -> Vec<f32> {
    let n = unit.len() / d;
    let row = |at: usize| &unit[at * d..(at + 1) * d];
    let mut center = row(rng.below(n as u64) as usize).to_vec();
    let mut far = vec![f64::INFINITY; n];
    while center.len() < m * d {
        let last = center[center.len() - d..].to_vec();
        far.iter_mut().enumerate().for_each(|(at, far)| *far = far.min((1.0 - dot(row(at), &last)).max(0.0)));
        let mut left = rng.unit() * far.iter().sum::<f64>();
        // Where rounding leaves a rest, or all rows are equal, the last row serves.
        let mut pick = n - 1;
        for (at, far) in far.iter().enumerate() {
            left -= far;
            if left < 0.0 {
                pick = at;
                break;
            }
        }
        center.extend_from_slice(row(pick));
    }
    center
}

/// Directions of the sums of each cluster.
fn means(unit: &[f32], d: usize, m: usize, cluster: &mut [usize], served: &mut [f64]) -> Vec<f32> {
    let mut count = vec![0usize; m];
    cluster.iter().for_each(|c| count[*c] += 1);
    for empty in 0..m {
        if count[empty] > 0 {
            continue;
        }
        // There are at least as many rows as clusters, so some cluster has two.
        let lendable = (0..cluster.len()).filter(|at| count[cluster[*at]] > 1);
        if let Some(worst) = lendable.min_by(|a, b| served[*a].total_cmp(&served[*b])) {
            count[cluster[worst]] -= 1;
            count[empty] = 1;
            (cluster[worst], served[worst]) = (empty, 1.0);
        }
    }
    let mut sums = vec![0.0; m * d];
    for (row, cluster) in unit.chunks_exact(d).zip(&*cluster) {
        sums[cluster * d..][..d].iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
    }
    let lengths: Vec<f64> =
        sums.chunks_exact(d).map(|s| s.iter().map(|x| x * x).sum::<f64>().sqrt().max(1e-8)).collect();
    sums.iter().enumerate().map(|(at, sum)| (sum / lengths[at / d]) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::{Origin, Prototypes, Rng, Stream, dot};
    use proptest::prelude::{any, prop_assert, proptest};

    /// `n` rows around `groups` axes, far from the origin.
    fn grouped(n: usize, d: usize, groups: usize, seed: u64) -> Vec<f32> {
        let mut rng = Rng::new(seed, Stream::Data, [0, 0]);
        let mut rows = Vec::new();
        for at in 0..n {
            for j in 0..d {
                let axis = if j == at % groups { 3.0 } else { 0.0 };
                rows.push((5.0 + axis + 0.1 * rng.normal()) as f32);
            }
        }
        rows
    }

    #[test]
    fn finds_the_groups() {
        let rows = grouped(240, 6, 4, 1);
        let fit = Prototypes::fit(&rows, 6, 4, Origin::Mean, 7, 2).unwrap();
        assert!(fit.affinity(&rows).unwrap() > 0.99);
        // Reflected at the mean the rows point away from every centre.
        let away: Vec<f32> = rows.iter().enumerate().map(|(at, x)| 2.0 * fit.mean()[at % 6] - x).collect();
        assert!(fit.affinity(&away).unwrap() < 0.5);
        // Without centring everything looks alike.
        let raw = Prototypes::fit(&rows, 6, 4, Origin::Zero, 7, 2).unwrap();
        assert!(raw.affinity(&away).unwrap() > 0.9);
    }

    #[test]
    fn one_seed_one_result() {
        let rows = grouped(100, 5, 3, 2);
        let fit = |seed, task| Prototypes::fit(&rows, 5, 9, Origin::Mean, seed, task).unwrap();
        assert_eq!(fit(3, 1), fit(3, 1));
        assert_ne!(fit(3, 1), fit(4, 1));
        assert_ne!(fit(3, 1), fit(3, 2));
    }

    #[test]
    fn few_or_equal_rows() {
        let fit = Prototypes::fit(&[1.0, 2.0, 3.0, 4.0], 2, 16, Origin::Mean, 0, 0).unwrap();
        assert_eq!(fit.center().len(), 4);
        let equal = Prototypes::fit(&[2.0; 12], 3, 3, Origin::Mean, 0, 0).unwrap();
        assert_eq!(equal.affinity(&[2.0; 3]), Ok(0.0));
        assert!(Prototypes::fit(&[], 2, 3, Origin::Mean, 0, 0).is_err());
        assert!(Prototypes::fit(&[1.0], 1, 0, Origin::Mean, 0, 0).is_err());
        assert!(Prototypes::fit(&[1.0, f32::INFINITY], 1, 1, Origin::Mean, 0, 0).is_err());
        assert!(equal.affinity(&[f32::NAN; 3]).is_err());
        assert!(equal.affinity(&[1.0; 4]).is_err());
        assert_eq!(Prototypes::new(fit.mean().to_vec(), fit.center().to_vec()), Ok(fit));
        assert!(Prototypes::new(vec![0.0; 2], vec![1.0; 3]).is_err());
    }

    proptest! {
        #[test]
        fn laws(n in 1usize..40, d in 1usize..8, m in 1usize..10, seed in any::<u64>()) {
            let rows = grouped(n, d, 3, seed);
            let fit = Prototypes::fit(&rows, d, m, Origin::Zero, seed, 0).unwrap();
            for center in fit.center().chunks_exact(d) {
                prop_assert!((dot(center, center) - 1.0).abs() < 1e-6);
            }
            let c = fit.affinity(&rows).unwrap();
            prop_assert!(c.abs() <= 1.0 + 1e-6);
            let longer: Vec<f32> = rows.iter().map(|x| x * 4.0).collect();
            prop_assert!((fit.affinity(&longer).unwrap() - c).abs() < 1e-6);
        }
    }
}
