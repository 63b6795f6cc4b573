//! How many weights a mask takes, whether a copy has room, and what a finished task owns. Source: method.md 5.3, 5.6.

use crate::options::{HALF, KeepSchedule, Options, Profile, Selection};
use autograd::Select;
use dt::autograd;

/// Entries a mask takes of one tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Of all candidates, or of the free entries where the two are ranked apart.
    pub k: u32,
    /// Of the occupied entries where the two are ranked apart.
    pub k_occupied: u32,
    /// Free entries that are wanted but not there.
    pub short: u32,
}

/// `max(1, round(ratio * n))`, half to even, at most `n`; 0 for no candidates.
pub fn count(ratio: f64, n: usize) -> usize {
    if n == 0 { 0 } else { ((ratio * n as f64).round_ties_even() as usize).clamp(1, n) }
}

impl Options {
    /// Ratio of task `number`.
    pub fn ratio(&self, number: usize) -> f64 {
        match self.schedule {
            KeepSchedule::EqualRemaining => {
                (1.0 / self.announced.saturating_sub(number).max(1) as f64).clamp(1e-3, 1.0)
            }
            _ => self.keep_ratio.clamp(1e-3, 1.0),
        }
    }

    /// How masks are selected on the device.
    pub fn select(&self) -> Select {
        match (self.selection, self.schedule) {
            (Selection::Free, _) => Select::Free,
            (_, KeepSchedule::NewBudget) | (Selection::Split, _) => Select::Split,
            (Selection::Any, _) => Select::Any,
        }
    }

    /// Entries that task `number` takes of a tensor of `n` entries of which `occupied` belong to earlier tasks, if it
    /// does not start warm.
    pub fn budget(&self, number: usize, n: usize, occupied: usize) -> Budget {
        self.budget_with(number, n, occupied, HALF)
    }

    /// As [`Options::budget`] for a mask of which a share in 0..=1 is to be occupied, where the two are ranked apart and
    /// the schedule leaves that open.
    pub fn budget_with(&self, number: usize, n: usize, occupied: usize, inherit: f64) -> Budget {
        let ratio = self.ratio(number);
        let free = n - occupied;
        // The reference takes its ratio of what is left, so that masks shrink from task to task and never starve.
        let of_free = self.profile == Profile::Official || self.schedule == KeepSchedule::EqualRemaining;
        let (new, old) = match self.select() {
            Select::Any => return Budget { k: count(ratio, n) as u32, k_occupied: 0, short: 0 },
            Select::Free if of_free => (count(ratio, free), 0),
            Select::Free => (count(ratio, n), 0),
            Select::Split => {
                let all = count(ratio, n);
                let old = match self.schedule {
                    KeepSchedule::NewBudget => all - all.min((ratio * free as f64).round_ties_even() as usize),
                    _ => (all as f64 * inherit) as usize,
                };
                (all - old.min(occupied), old.min(occupied))
            }
        };
        let short = new.saturating_sub(free);
        // What the free part lacks is borrowed from the occupied part where masks may share weights.
        let borrowed = if self.select() == Select::Split { short.min(occupied - old) } else { 0 };
        Budget { k: (new - short) as u32, k_occupied: (old + borrowed) as u32, short: short as u32 }
    }

    /// True if a copy has room for a mask: over all tensors `(n, occupied)`, at most one wanted new entry in a hundred
    /// is missing. (Tensors of a few entries fill up after a task or two; alone they must not cost a whole copy.)
    pub fn fits(&self, number: usize, tensors: impl Iterator<Item = (usize, usize)>) -> bool {
        let (mut short, mut wanted, mut free) = (0u64, 0u64, 0u64);
        for (n, occupied) in tensors {
            let budget = self.budget(number, n, occupied);
            short += u64::from(budget.short);
            wanted += u64::from(budget.k + budget.k_occupied + budget.short);
            free += (n - occupied) as u64;
        }
        free > 0 && short * 100 <= wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Strategy;
    use proptest::prelude::*;

    #[test]
    fn counts_round_half_to_even() {
        assert_eq!([count(0.5, 5), count(0.5, 3), count(0.08, 2), count(1.0, 7), count(0.3, 0)], [2, 2, 1, 7, 0]);
    }

    #[test]
    fn schedules_fill_a_copy() {
        let occupancy = |options: &Options| {
            let (n, mut occupied, mut seen) = (100_000, 0, Vec::new());
            for number in 0..5 {
                occupied += options.budget(number, n, occupied).k as usize;
                seen.push(occupied as f64 / n as f64);
            }
            seen
        };
        let mut options = Options::official(Strategy::Tsn);
        assert_eq!(occupancy(&options), [0.5, 0.75, 0.875, 0.9375, 0.96875]);
        options.schedule = KeepSchedule::EqualRemaining;
        options.announced = 5;
        let equal = occupancy(&options);
        assert!(equal.iter().zip([0.2, 0.4, 0.6, 0.8, 1.0]).all(|(a, b)| (a - b).abs() < 1e-4), "{equal:?}");
    }

    #[test]
    fn disjoint_masks_run_out_of_room() {
        let options = Options { keep_ratio: 0.25, ..Options::corrected(Strategy::Tsn) };
        assert!(options.fits(3, [(1000, 750)].into_iter()));
        assert!(!options.fits(4, [(1000, 1000)].into_iter()));
    }

    #[test]
    fn a_warm_mask_inherits_a_share() {
        let options = Options { keep_ratio: 0.1, ..Options::corrected(Strategy::TsnAffinity) };
        let of = |inherit, occupied| {
            let Budget { k, k_occupied, short } = options.budget_with(1, 1000, occupied, inherit);
            [k, k_occupied, short]
        };
        assert_eq!(of(HALF, 400), [50, 50, 0]);
        assert_eq!(of(0.9, 400), [10, 90, 0]);
        assert_eq!([of(0.0, 400), of(1.0, 400)], [[100, 0, 0], [0, 100, 0]]);
        // What is not there is not inherited, and what is not free is borrowed.
        assert_eq!([of(0.9, 30), of(0.1, 980)], [[70, 30, 0], [20, 80, 70]]);
        assert_eq!(options.budget(1, 1000, 400), options.budget_with(1, 1000, 400, HALF));
    }

    proptest! {
        #[test]
        fn a_mask_is_never_empty_and_never_too_large(n in 1usize..5000, part in 0.0f64..1.0, c in 0.001f64..1.0) {
            let occupied = (part * n as f64) as usize;
            for selection in [Selection::Any, Selection::Split] {
                for schedule in [KeepSchedule::Constant, KeepSchedule::NewBudget] {
                    let base = Options::corrected(Strategy::TsnAffinity);
                    let options = Options { selection, schedule, keep_ratio: c, ..base };
                    let Budget { k, k_occupied, .. } = options.budget(1, n, occupied);
                    prop_assert_eq!((k + k_occupied) as usize, count(options.ratio(1), n));
                    if options.select() == Select::Split {
                        prop_assert!(k as usize <= n - occupied && k_occupied as usize <= occupied);
                    }
                }
            }
        }
    }
}
