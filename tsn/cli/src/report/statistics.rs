//! Numbers over seeds and tasks: what a report says of every strategy, and of every pair on the seeds that both have.
//!
//! A measure is a value per task and run. Its mean over tasks is the metric of that run; over runs, the standard
//! deviation is that of those metrics, and intervals draw runs anew within every task. Intervals over episodes are
//! another thing: they keep the runs and draw the evaluation episodes of each task anew.

use serde::Serialize;
use tsn::metrics::{Summary, summarise};

use super::group::{Group, RESAMPLES};
use super::run::{Run, Version};

/// What is measured of a matrix `P`, per task `j`; `n` tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    /// `P[n-1][j]`; its mean is ACC.
    Final,
    /// `max_{i>=j} P[i][j]`.
    Best,
    /// `P[j][j]`.
    Learned,
    /// `P[n-1][j] - P[j][j]`, `j < n-1`.
    Bwt,
    /// `max_{i>=j} P[i][j] - P[n-1][j]`, `j < n-1`.
    Forgetting,
    /// `P[j-1][j]` minus the score of an untrained model, `j >= 1`.
    Fwt,
}

impl Measure {
    pub(super) const ALL: [Measure; 6] =
        [Measure::Final, Measure::Best, Measure::Learned, Measure::Bwt, Measure::Forgetting, Measure::Fwt];

    /// Key in files.
    pub(super) fn key(self) -> &'static str {
        match self {
            Measure::Final => "final",
            Measure::Best => "best",
            Measure::Learned => "learned",
            Measure::Bwt => "bwt",
            Measure::Forgetting => "forgetting",
            Measure::Fwt => "fwt",
        }
    }

    /// Label for readers.
    pub(super) fn label(self) -> &'static str {
        match self {
            Measure::Final => "final",
            Measure::Best => "best",
            Measure::Learned => "when learned",
            Measure::Bwt => "BWT",
            Measure::Forgetting => "forgetting",
            Measure::Fwt => "FWT",
        }
    }

    /// Value per task of the run; `None` unless it is known for every task that the measure is about.
    pub(super) fn of(self, run: &Run, version: Version) -> Option<Vec<f64>> {
        let n = run.tasks.len();
        let last = n.checked_sub(1)?;
        let p = |after: usize, on: usize| run.entry(version, after, on);
        let best = |on: usize| (on..n).filter_map(|after| p(after, on)).reduce(f64::max);
        let tasks = match self {
            Measure::Bwt | Measure::Forgetting => 0..last,
            Measure::Fwt => 1..n,
            _ => 0..n,
        };
        let value = |on: usize| match self {
            Measure::Final => p(last, on),
            Measure::Best => p(last, on).and(best(on)),
            Measure::Learned => p(on, on),
            Measure::Bwt => Some(p(last, on)? - p(on, on)?),
            Measure::Forgetting => Some(best(on)? - p(last, on)?),
            Measure::Fwt => Some(p(on - 1, on)? - run.untrained(version, on)?),
        };
        let values: Option<Vec<f64>> = tasks.map(value).collect();
        values.filter(|values| !values.is_empty())
    }
}

/// Numbers of a measure over runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Statistic {
    /// Runs that have it.
    pub(super) runs: usize,
    /// Values: runs times tasks, or episodes.
    pub(super) values: usize,
    pub(super) mean: f64,
    /// Of the runs' means; absent for one run.
    pub(super) std: Option<f64>,
    /// Of the mean; absent for one run, which has no spread to draw from.
    pub(super) mean_interval: Option<[f64; 2]>,
    /// Interquartile mean of all values.
    pub(super) iqm: f64,
    pub(super) iqm_interval: Option<[f64; 2]>,
}

impl Statistic {
    /// Of runs with one value per task each, all equally many; `None` without a run.
    pub(super) fn of(runs: &[Vec<f64>]) -> Option<Statistic> {
        let tasks = runs.first()?.len();
        let strata: Vec<Vec<f64>> = (0..tasks).map(|task| runs.iter().map(|run| run[task]).collect()).collect();
        let all: Summary = summarise(&strata, RESAMPLES, 0).ok()?;
        let means: Vec<f64> = runs.iter().map(|run| run.iter().sum::<f64>() / run.len() as f64).collect();
        let std = summarise(&[means], 1, 0).ok()?.std;
        let several = runs.len() > 1;
        Some(Statistic {
            runs: runs.len(),
            values: all.count,
            mean: all.mean,
            std: several.then_some(std),
            mean_interval: several.then_some(all.mean_interval),
            iqm: all.iqm,
            iqm_interval: several.then_some(all.iqm_interval),
        })
    }
}

/// Final raw scores of the episodes of some tasks, by run: what is drawn anew is the episodes of a task in a run.
///
/// The deviation is that of episodes, and stated for one task alone: those of different tasks have no common one.
pub(super) fn over_episodes(runs: &[Vec<Vec<f64>>]) -> Option<Statistic> {
    let strata: Vec<Vec<f64>> = runs.iter().flatten().cloned().collect();
    let all = summarise(&strata, RESAMPLES, 0).ok()?;
    let several = strata.iter().all(|episodes| episodes.len() > 1);
    Some(Statistic {
        runs: runs.len(),
        values: all.count,
        mean: all.mean,
        std: (several && runs.iter().all(|tasks| tasks.len() == 1)).then_some(all.std),
        mean_interval: several.then_some(all.mean_interval),
        iqm: all.iqm,
        iqm_interval: several.then_some(all.iqm_interval),
    })
}

/// [`over_episodes`] of all tasks and of each, for the runs of a group that recorded every episode.
pub(super) fn episodes(group: &Group<'_>) -> Option<(Statistic, Vec<Statistic>)> {
    let tasks = group.first().tasks.len();
    let of = |run: &&Run| (0..tasks).map(|task| run.episodes(task)).collect::<Option<Vec<_>>>();
    let runs: Vec<Vec<Vec<f64>>> = group.runs.iter().filter_map(of).collect();
    let all = over_episodes(&runs)?;
    let one = |task: usize| over_episodes(&runs.iter().map(|run| vec![run[task].clone()]).collect::<Vec<_>>());
    Some((all, (0..tasks).map(one).collect::<Option<_>>()?))
}

/// One line of `report.csv`, and one object of the JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Row {
    /// `mean` over tasks, one `task`, or `difference` from the strategy `against`, on the seeds that both have; `episodes`
    /// of all tasks and `task_episodes` of one have intervals over episodes instead of seeds.
    pub(super) kind: &'static str,
    pub(super) suite: String,
    pub(super) strategy: String,
    pub(super) against: Option<String>,
    /// `raw`, `normalised` or `success` scores, or `cost`.
    pub(super) scores: &'static str,
    pub(super) measure: &'static str,
    pub(super) task: Option<String>,
    #[serde(flatten)]
    pub(super) statistic: Statistic,
}

/// Value per task, or one for the run as a whole.
type Cost = fn(&Run) -> Option<Vec<f64>>;

/// What a run costs: key, and value per task or for the run as a whole.
const COSTS: [(&str, Cost); 15] = [
    ("density", |run| per_task(run, "density")),
    ("newly_claimed", |run| per_task(run, "newly_claimed")),
    ("occupied", |run| per_task(run, "occupied")),
    ("time_per_task_s", |run| per_task(run, "time_per_task_s")),
    ("added_masks_packed_bytes", |run| added(run, "masks_packed")),
    ("added_claimed_weights_bytes", |run| added(run, "claimed_weights")),
    ("added_norms_bytes", |run| added(run, "norms")),
    ("added_statistics_bytes", |run| added(run, "statistics")),
    ("added_routing_bytes", |run| added(run, "routing")),
    ("added_extra_bytes", |run| added(run, "extra")),
    ("added_records_bytes", |run| added(run, "records")),
    ("added_codebooks_bytes", |run| added(run, "codebooks")),
    ("copies", |run| Some(vec![run.copies()?])),
    ("memory_factor", |run| Some(vec![run.metric("memory_factor")?])),
    ("memory_factor_with_te", |run| Some(vec![run.metric("memory_factor_with_te")?])),
];

fn per_task(run: &Run, key: &str) -> Option<Vec<f64>> {
    let values: Option<Vec<f64>> = (0..run.tasks.len()).map(|task| run.per_task(key, task)).collect();
    values.filter(|values| !values.is_empty())
}

fn added(run: &Run, kind: &str) -> Option<Vec<f64>> {
    let values: Option<Vec<f64>> = (0..run.tasks.len()).map(|task| run.added(kind, task)).collect();
    values.filter(|values| !values.is_empty())
}

/// Every number of every strategy, then every pair's differences.
pub(super) fn rows(groups: &[Group<'_>]) -> Vec<Row> {
    let mut rows = Vec::new();
    for group in groups {
        for version in Version::ALL {
            for measure in Measure::ALL {
                let values = values(group, version, measure);
                let first = if measure == Measure::Fwt { 1 } else { 0 };
                rows.extend(of_group(group, version.key(), measure.key(), &values, first));
            }
        }
        if let Some((all, each)) = episodes(group) {
            rows.push(Row { kind: "episodes", ..row(group, "raw", "final", all) });
            rows.extend(each.into_iter().zip(&group.first().tasks).map(|(one, task)| Row {
                kind: "task_episodes",
                task: Some(task.clone()),
                ..row(group, "raw", "final", one)
            }));
        }
        for (key, of) in COSTS {
            let values: Vec<Vec<f64>> = group.runs.iter().filter_map(|run| of(run)).collect();
            rows.extend(of_group(group, "cost", key, &values, 0));
        }
    }
    for (a, b) in pairs(groups) {
        for version in Version::ALL {
            for measure in Measure::ALL {
                let Some(statistic) = difference(a, b, version, measure) else { continue };
                let (scores, measure) = (version.key(), measure.key());
                rows.push(Row {
                    kind: "difference",
                    against: Some(b.label.clone()),
                    ..row(a, scores, measure, statistic)
                });
            }
        }
    }
    rows
}

/// The mean over tasks, then one row per task, the first of which is task `first`.
fn of_group(
    group: &Group<'_>,
    scores: &'static str,
    measure: &'static str,
    runs: &[Vec<f64>],
    first: usize,
) -> Vec<Row> {
    let Some(all) = Statistic::of(runs) else { return Vec::new() };
    let mut rows = vec![row(group, scores, measure, all)];
    // A single value belongs to the run, unless the run has a single task.
    let tasks = if runs[0].len() > 1 { runs[0].len() } else { 0 };
    for at in 0..tasks {
        let one: Vec<Vec<f64>> = runs.iter().map(|run| vec![run[at]]).collect();
        let Some(statistic) = Statistic::of(&one) else { continue };
        let task = Some(group.first().tasks[first + at].clone());
        rows.push(Row { kind: "task", task, ..row(group, scores, measure, statistic) });
    }
    rows
}

fn row(group: &Group<'_>, scores: &'static str, measure: &'static str, statistic: Statistic) -> Row {
    let (suite, strategy) = (group.first().suite.clone(), group.label.clone());
    Row { kind: "mean", suite, strategy, against: None, scores, measure, task: None, statistic }
}

/// A measure of the runs that have it.
pub(super) fn values(group: &Group<'_>, version: Version, measure: Measure) -> Vec<Vec<f64>> {
    group.runs.iter().filter_map(|run| measure.of(run, version)).collect()
}

/// Every two strategies on the same tasks.
pub(super) fn pairs<'g, 'r>(groups: &'g [Group<'r>]) -> Vec<(&'g Group<'r>, &'g Group<'r>)> {
    let later = |at: usize| groups[at + 1..].iter().map(move |other| (&groups[at], other));
    (0..groups.len()).flat_map(later).filter(|(a, b)| a.comparable(b)).collect()
}

/// `a - b`, task by task on the seeds that both have; the first run of a seed counts.
pub(super) fn difference(a: &Group<'_>, b: &Group<'_>, version: Version, measure: Measure) -> Option<Statistic> {
    let mut seen = Vec::new();
    let mut runs = Vec::new();
    for ours in &a.runs {
        let Some(seed) = ours.seed().filter(|seed| !seen.contains(seed)) else { continue };
        let theirs = b.runs.iter().find(|run| run.seed() == Some(seed));
        let values = |run: &Run| measure.of(run, version);
        let Some((x, y)) = values(ours).zip(theirs.and_then(|run| values(run))) else { continue };
        seen.push(seed);
        runs.push(x.iter().zip(&y).map(|(x, y)| x - y).collect());
    }
    Statistic::of(&runs)
}

/// The rows as CSV.
pub(super) fn csv(rows: &[Row]) -> String {
    use crate::record::quoted;
    use std::fmt::Write as _;
    let mut text = String::from(
        "kind,suite,strategy,against,scores,measure,task,runs,values,mean,std,mean_low,mean_high,iqm,iqm_low,iqm_high\n",
    );
    let name = |name: &Option<String>| name.as_deref().map_or_else(String::new, quoted);
    let cell = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.6}"));
    for row in rows {
        let Statistic { runs, values, mean, std, mean_interval, iqm, iqm_interval } = row.statistic;
        let ends = |interval: Option<[f64; 2]>| {
            format!("{},{}", cell(interval.map(|ends| ends[0])), cell(interval.map(|ends| ends[1])))
        };
        // Writing into a string cannot fail.
        _ = writeln!(
            text,
            "{},{},{},{},{},{},{},{runs},{values},{mean:.6},{},{},{iqm:.6},{}",
            row.kind,
            quoted(&row.suite),
            quoted(&row.strategy),
            name(&row.against),
            row.scores,
            row.measure,
            name(&row.task),
            cell(std),
            ends(mean_interval),
            ends(iqm_interval)
        );
    }
    text
}
