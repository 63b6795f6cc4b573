//! Runs that differ in their seed alone, and numbers over them.

use std::collections::BTreeSet;

use tsn::metrics::{Summary, summarise};

use super::run::Run;

/// Draws of the bootstrap.
pub(super) const RESAMPLES: usize = 2000;
/// Settings in which seeds of one experiment may differ.
const NOT_A_DIFFERENCE: [&str; 13] = [
    "seed",
    "train_seed",
    "data_seed",
    "started",
    "device",
    "threads",
    "tag",
    "commit",
    "git_commit",
    "version",
    "program_version",
    "wall_s",
    "run",
];

/// One strategy with one set of settings.
pub(super) struct Group<'r> {
    /// Strategy, and what tells the group from others of the same strategy.
    pub(super) label: String,
    pub(super) runs: Vec<&'r Run>,
}

/// Groups in the order of their first run.
pub(super) fn of(runs: &[Run]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for run in runs {
        match groups.iter_mut().find(|group| same(group.first(), run)) {
            Some(group) => group.runs.push(run),
            None => groups.push(Group { label: String::new(), runs: vec![run] }),
        }
    }
    let firsts: Vec<&Run> = groups.iter().map(Group::first).collect();
    for group in &mut groups {
        group.label = label(group.runs[0], &firsts);
    }
    groups
}

impl<'r> Group<'r> {
    /// The run that tells suite, strategy and tasks of all.
    pub(super) fn first(&self) -> &'r Run {
        self.runs[0]
    }

    /// Number over the runs that have it.
    pub(super) fn over(&self, value: impl Fn(&Run) -> Option<f64>) -> Option<Summary> {
        let values: Vec<f64> = self.runs.iter().filter_map(|run| value(run)).collect();
        summarise(&[values], RESAMPLES, 0).ok()
    }

    /// Can be drawn in one plot with the other.
    pub(super) fn comparable(&self, other: &Group<'_>) -> bool {
        (&self.first().suite, &self.first().tasks) == (&other.first().suite, &other.first().tasks)
    }
}

/// The run of which another is a copy: equal in settings, seed and scores, it is no draw of its own.
pub(super) fn original<'r>(run: &Run, earlier: &'r [Run]) -> Option<&'r Run> {
    let seed = |run: &Run| run.settings.get("seed").cloned();
    let equal = |other: &&Run| seed(other) == seed(run) && other.matrix == run.matrix && same(other, run);
    seed(run).and_then(|_| earlier.iter().find(equal))
}

fn same(a: &Run, b: &Run) -> bool {
    (&a.suite, &a.strategy, &a.tasks) == (&b.suite, &b.strategy, &b.tasks) && differences(a, b).is_empty()
}

/// Settings that are not equal.
fn differences<'r>(a: &'r Run, b: &'r Run) -> BTreeSet<&'r str> {
    let keys = a.settings.keys().chain(b.settings.keys()).map(String::as_str);
    keys.filter(|key| !NOT_A_DIFFERENCE.contains(key) && a.settings.get(*key) != b.settings.get(*key)).collect()
}

fn label(run: &Run, all: &[&Run]) -> String {
    let mut label = run.strategy.clone();
    if all.iter().any(|other| other.suite != run.suite) {
        label = format!("{}: {label}", run.suite);
    }
    let rivals = all.iter().filter(|other| (&other.suite, &other.strategy) == (&run.suite, &run.strategy));
    let (mut keys, mut tasks) = (BTreeSet::new(), false);
    for other in rivals {
        keys.extend(differences(run, other));
        tasks |= other.tasks != run.tasks;
    }
    let value = |key: &&str| format!("{key} {}", run.settings.get(*key).map_or("unset", String::as_str));
    let mut parts: Vec<String> = keys.iter().map(value).collect();
    if tasks {
        parts.insert(0, format!("{} tasks", run.tasks.len()));
    }
    if parts.is_empty() { label } else { format!("{label} ({})", parts.join(", ")) }
}
