//! Scores of continual learning from a matrix of returns, and their summary over seeds.
//!
//! `P[i][j]` is the score on task `j` after training task `i`, both from 0; NaN marks what was not evaluated. A metric
//! that needs a missing entry, or the mean of nothing, is `None`. All sums are in f64, in index order.
//!
//! Source: Lopez-Paz and Ranzato, "Gradient episodic memory" (2017), section 3, for ACC, BWT and FWT; the exact variants
//! are the formulas beside each function.

use dt::autograd::engine::kernels::philox::{Rng, Stream};

use crate::error::Error;

/// A square matrix of scores.
#[derive(Clone, Debug)]
pub struct Scores {
    tasks: usize,
    values: Vec<f64>, // row after row
}

/// Scores outside the matrix, one per task; NaN where unknown.
#[derive(Clone, Debug)]
pub struct References {
    /// Of a random policy.
    pub random: Vec<f64>,
    /// Of a model trained on this task alone.
    pub single: Vec<f64>,
    /// Of an untrained model.
    pub untrained: Vec<f64>,
}

impl Scores {
    /// From rows; each as long as there are rows.
    ///
    /// # Errors
    /// [`Error::Range`] if there is no row or a row of another length.
    pub fn new(rows: &[Vec<f64>]) -> Result<Scores, Error> {
        let tasks = rows.len();
        if let Some(row) = rows.iter().find(|row| row.len() != tasks) {
            return Err(range("row of a score matrix", format!("{tasks} entries, one per row"), row.len()));
        }
        if tasks == 0 {
            return Err(range("score matrix", "at least one row".to_owned(), 0));
        }
        Ok(Scores { tasks, values: rows.concat() })
    }

    /// Number of tasks.
    pub fn tasks(&self) -> usize {
        self.tasks
    }

    /// Score on task `on` after training task `after`, or `None` if it was not evaluated.
    pub fn get(&self, after: usize, on: usize) -> Option<f64> {
        let inside = after < self.tasks && on < self.tasks;
        inside.then(|| self.values[after * self.tasks + on]).filter(|score| !score.is_nan())
    }

    /// Mean of the last row: `ACC = mean_j P[N-1][j]`.
    pub fn acc(&self) -> Option<f64> {
        self.acc_at(self.tasks - 1)
    }

    /// `BWT = mean_{j<N-1} (P[N-1][j] - P[j][j])`. Zero is no forgetting, negative is forgetting.
    pub fn bwt(&self) -> Option<f64> {
        self.bwt_at(self.tasks - 1)
    }

    /// `mean_{j<N-1} (max_{i>=j} P[i][j] - P[N-1][j])`: rows before a task was trained are no learned performance.
    pub fn forgetting(&self) -> Option<f64> {
        self.forgetting_at(self.tasks - 1)
    }

    /// As [`Scores::forgetting`] with the maximum over all rows, as the official code has it.
    pub fn forgetting_official(&self) -> Option<f64> {
        let last = self.tasks - 1;
        mean((0..last).map(|j| Some(self.best_between(0, last, j)? - self.get(last, j)?)))
    }

    /// `mean_{j<N-1} (P[j][j] - P[N-1][j])`, which is `-BWT`.
    pub fn forgetting_diag(&self) -> Option<f64> {
        self.bwt().map(|bwt| 0.0 - bwt)
    }

    /// `FWT = mean_{j>=1} (P[j-1][j] - untrained[j])`.
    pub fn fwt(&self, references: &References) -> Option<f64> {
        mean((1..self.tasks).map(|j| Some(self.get(j - 1, j)? - at(&references.untrained, j)?)))
    }

    /// Mean over tasks of the best score since a task was trained: `mean_j max_{i>=j} P[i][j]`.
    pub fn best(&self) -> Option<f64> {
        mean((0..self.tasks).map(|j| self.best_between(j, self.tasks - 1, j)))
    }

    /// `mean_{j<=i} P[i][j]`.
    pub fn acc_at(&self, i: usize) -> Option<f64> {
        mean((0..=i).map(|j| self.get(i, j)))
    }

    /// `mean_{j<i} (P[i][j] - P[j][j])`.
    pub fn bwt_at(&self, i: usize) -> Option<f64> {
        mean((0..i).map(|j| Some(self.get(i, j)? - self.get(j, j)?)))
    }

    /// `mean_{j<i} (max_{j<=k<=i} P[k][j] - P[i][j])`.
    pub fn forgetting_at(&self, i: usize) -> Option<f64> {
        mean((0..i).map(|j| Some(self.best_between(j, i, j)? - self.get(i, j)?)))
    }

    /// `(P[N-1][j] - random_j) / (single_j - random_j)`, per task.
    pub fn norm(&self, references: &References) -> Vec<Option<f64>> {
        self.per_task(|j| {
            let (random, single) = (at(&references.random, j)?, at(&references.single, j)?);
            ratio(self.last(j)? - random, single - random)
        })
    }

    /// `P[N-1][j] / single_j`, per task with a positive reference.
    pub fn norm_ref(&self, references: &References) -> Vec<Option<f64>> {
        self.per_task(|j| ratio(self.last(j)?, at(&references.single, j).filter(|single| *single > 0.0)?))
    }

    /// Mean of [`Scores::norm`]: the "84 %" style number, as a fraction.
    pub fn avg_score(&self, references: &References) -> Option<f64> {
        mean(self.norm(references))
    }

    /// `single_j - P[N-1][j]`, per task.
    pub fn gap(&self, references: &References) -> Vec<Option<f64>> {
        self.per_task(|j| Some(at(&references.single, j)? - self.last(j)?))
    }

    /// Mean of [`Scores::gap`].
    pub fn avg_gap(&self, references: &References) -> Option<f64> {
        mean(self.gap(references))
    }

    /// `(P[N-1][j] - random_j) / (P[j][j] - random_j)`, per task.
    pub fn retention(&self, references: &References) -> Vec<Option<f64>> {
        self.per_task(|j| {
            let random = at(&references.random, j)?;
            ratio(self.last(j)? - random, self.get(j, j)? - random)
        })
    }

    /// `100 mean_{j<N-1} max(0, 1 - retention_j)`, in percent.
    pub fn forget_pct(&self, references: &References) -> Option<f64> {
        let retention = self.retention(references);
        mean(retention[..self.tasks - 1].iter().map(|kept| Some(100.0 * (1.0 - (*kept)?).max(0.0))))
    }

    /// `mean_j (single_j - P[j][j]) / (single_j - random_j)`: plasticity lost against training alone.
    pub fn intransigence(&self, references: &References) -> Option<f64> {
        mean(self.per_task(|j| {
            let (random, single) = (at(&references.random, j)?, at(&references.single, j)?);
            ratio(single - self.get(j, j)?, single - random)
        }))
    }

    fn per_task(&self, value: impl Fn(usize) -> Option<f64>) -> Vec<Option<f64>> {
        (0..self.tasks).map(value).collect()
    }

    fn last(&self, j: usize) -> Option<f64> {
        self.get(self.tasks - 1, j)
    }

    /// Largest evaluated entry of column `j` in rows `first..=last`.
    fn best_between(&self, first: usize, last: usize, j: usize) -> Option<f64> {
        (first..=last).filter_map(|i| self.get(i, j)).reduce(f64::max)
    }
}

/// One number over several seeds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Values, over all strata.
    pub count: usize,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation with `count - 1`; 0 for one value.
    pub std: f64,
    /// Mean of the middle half: a quarter of the values, rounded down, is left out at each end.
    pub iqm: f64,
    /// Lower and upper end of the 95 % bootstrap interval of the mean.
    pub mean_interval: [f64; 2],
    /// The same for `iqm`.
    pub iqm_interval: [f64; 2],
}

/// Summary of values in strata, for example one stratum per task with one value per seed.
///
/// The interval is a percentile bootstrap: each of `resamples` draws takes, within every stratum, as many values as it
/// has, with replacement. One `seed` gives one result.
///
/// # Errors
/// [`Error::Range`] if there is no value, an empty stratum, a value that is not finite, or no resample.
///
/// Source: Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice" (2021), section 4.
pub fn summarise(strata: &[Vec<f64>], resamples: usize, seed: u64) -> Result<Summary, Error> {
    if strata.is_empty() || strata.iter().any(Vec::is_empty) {
        return Err(range("values of a stratum", "at least one".to_owned(), 0));
    }
    if let Some(value) = strata.iter().flatten().find(|value| !value.is_finite()) {
        return Err(range("value to summarise", "a finite number".to_owned(), value));
    }
    if resamples == 0 {
        return Err(range("bootstrap resamples", "at least one".to_owned(), 0));
    }
    let mut all = strata.concat();
    let (mean, iqm) = (mean_of(&all), interquartile_mean(&mut all));
    let squares: f64 = all.iter().map(|value| (value - mean).powi(2)).sum();
    let std = (squares / (all.len() - 1).max(1) as f64).sqrt();

    let mut rng = Rng::new(seed, Stream::Evaluation, [0, 0]);
    let (mut means, mut iqms) = (Vec::with_capacity(resamples), Vec::with_capacity(resamples));
    let mut drawn = Vec::with_capacity(all.len());
    for _ in 0..resamples {
        drawn.clear();
        for stratum in strata {
            drawn.extend((0..stratum.len()).map(|_| stratum[rng.below(stratum.len() as u64) as usize]));
        }
        means.push(mean_of(&drawn));
        iqms.push(interquartile_mean(&mut drawn));
    }
    Ok(Summary {
        count: all.len(),
        mean,
        std,
        iqm,
        mean_interval: middle_95(&mut means),
        iqm_interval: middle_95(&mut iqms),
    })
}

fn mean(values: impl IntoIterator<Item = Option<f64>>) -> Option<f64> {
    let values: Option<Vec<f64>> = values.into_iter().collect();
    values.filter(|values| !values.is_empty()).map(|values| mean_of(&values))
}

fn mean_of(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn interquartile_mean(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let cut = values.len() / 4;
    mean_of(&values[cut..values.len() - cut])
}

/// The 2.5 % and 97.5 % quantiles, linear between neighbours.
fn middle_95(values: &mut [f64]) -> [f64; 2] {
    values.sort_unstable_by(f64::total_cmp);
    [0.025, 0.975].map(|share| {
        let place = share * (values.len() - 1) as f64;
        let (low, part) = (place as usize, place.fract());
        let high = (low + 1).min(values.len() - 1);
        values[low] + part * (values[high] - values[low])
    })
}

fn at(values: &[f64], j: usize) -> Option<f64> {
    values.get(j).copied().filter(|value| !value.is_nan())
}

fn ratio(above: f64, below: f64) -> Option<f64> {
    (below != 0.0).then(|| above / below)
}

fn range(what: &'static str, expected: String, found: impl ToString) -> Error {
    Error::Range { what, expected, found: found.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three tasks; the first forgets, the second peaks before it is trained, the third is fine.
    fn example() -> (Scores, References) {
        let scores = Scores::new(&[vec![10.0, 9.0, 1.0], vec![6.0, 8.0, 2.0], vec![4.0, 7.0, 5.0]]).unwrap();
        let references =
            References { random: vec![0.0, 4.0, 1.0], single: vec![8.0, 12.0, 5.0], untrained: vec![0.0, 6.0, 1.0] };
        (scores, references)
    }

    #[test]
    fn by_hand() {
        let (p, r) = example();
        assert_eq!(p.acc(), Some(16.0 / 3.0));
        assert_eq!(p.bwt(), Some((-6.0 - 1.0) / 2.0));
        assert_eq!(p.forgetting(), Some((6.0 + 1.0) / 2.0));
        assert_eq!(p.forgetting_official(), Some((6.0 + 2.0) / 2.0));
        assert_eq!(p.forgetting_diag(), Some(3.5));
        assert_eq!(p.fwt(&r), Some((3.0 + 1.0) / 2.0));
        assert_eq!(p.best(), Some((10.0 + 8.0 + 5.0) / 3.0));
        assert_eq!((p.acc_at(0), p.acc_at(1)), (Some(10.0), Some(7.0)));
        assert_eq!((p.bwt_at(0), p.bwt_at(1), p.forgetting_at(1)), (None, Some(-4.0), Some(4.0)));
        assert_eq!(p.norm(&r), [Some(0.5), Some(0.375), Some(1.0)]);
        assert_eq!(p.norm_ref(&r), [Some(0.5), Some(7.0 / 12.0), Some(1.0)]);
        assert_eq!(p.avg_score(&r), Some(1.875 / 3.0));
        assert_eq!(p.gap(&r), [Some(4.0), Some(5.0), Some(0.0)]);
        assert_eq!(p.avg_gap(&r), Some(3.0));
        assert_eq!(p.retention(&r), [Some(0.4), Some(0.75), Some(1.0)]);
        let lost = p.forget_pct(&r).unwrap();
        assert!((lost - 42.5).abs() < 1e-9, "{lost}");
        assert_eq!(p.intransigence(&r), Some((-0.25 + 0.5 + 0.0) / 3.0));
    }

    #[test]
    fn missing_entries_are_absent_not_numbers() {
        let nan = f64::NAN;
        let p = Scores::new(&[vec![3.0, nan], vec![2.0, 4.0]]).unwrap();
        let r = References { random: vec![0.0, 4.0], single: vec![-1.0, 4.0], untrained: vec![] };
        assert_eq!((p.acc(), p.forgetting(), p.forgetting_official()), (Some(3.0), Some(1.0), Some(1.0)));
        assert_eq!(p.fwt(&r), None);
        assert_eq!(p.norm(&r)[1], None, "reference equals random");
        assert_eq!(p.norm_ref(&r)[0], None, "negative reference");
        let last_missing = Scores::new(&[vec![3.0, 1.0], vec![2.0, nan]]).unwrap();
        assert_eq!(last_missing.acc(), None);
        let one = Scores::new(&[vec![3.0]]).unwrap();
        assert_eq!((one.acc(), one.bwt(), one.forgetting()), (Some(3.0), None, None));
        assert!(Scores::new(&[]).is_err() && Scores::new(&[vec![1.0, 2.0]]).is_err());
    }

    #[test]
    fn summary_by_hand_and_repeatable() {
        let values = vec![vec![1.0, 2.0, 3.0, 100.0]];
        let s = summarise(&values, 2000, 7).unwrap();
        assert_eq!((s.count, s.mean, s.iqm), (4, 26.5, 2.5));
        assert!((s.std - 49.00680).abs() < 1e-4, "{}", s.std);
        assert!(s.mean_interval[0] < s.mean && s.mean < s.mean_interval[1]);
        assert_eq!(s, summarise(&values, 2000, 7).unwrap());
        assert_ne!(s.mean_interval, summarise(&values, 50, 8).unwrap().mean_interval);
        assert!(summarise(&[], 10, 0).is_err() && summarise(&[vec![]], 10, 0).is_err());
        assert!(summarise(&[vec![f64::NAN]], 10, 0).is_err() && summarise(&values, 0, 0).is_err());
    }

    /// Between-stratum spread must not widen the interval: constant strata have none at all.
    #[test]
    fn bootstrap_is_stratified() {
        let s = summarise(&[vec![0.0; 5], vec![100.0; 5]], 200, 1).unwrap();
        assert_eq!(s.mean_interval, [50.0, 50.0]);
    }

    /// The interval of a normal mean is close to the textbook one.
    #[test]
    fn bootstrap_width() {
        let mut rng = Rng::new(3, Stream::Data, [0, 0]);
        let values: Vec<f64> = (0..400).map(|_| rng.normal()).collect();
        let s = summarise(&[values], 2000, 1).unwrap();
        let half = 1.96 * s.std / 20.0;
        let width = s.mean_interval[1] - s.mean_interval[0];
        assert!((width / (2.0 * half) - 1.0).abs() < 0.1, "{width} against {}", 2.0 * half);
    }
}
