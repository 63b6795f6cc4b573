//! In which order the launches of a plan run, and which of them run as one.
//!
//! A step of training has hundreds of small launches, and most of them need nothing of each other: an update of every tensor, a
//! mask of every tensor, weight gradients, which nothing reads before the norm. A launch is moved behind others, as far as what
//! reads its results allows, to where the same kernel is launched for another call, and both become one launch of a batch. Then
//! launches on rows that another one leaves are joined to it ([`joined`]).

use super::rows::joined;
use crate::plan::{Plan, RecordedCall, Slice, span};
use kernels::contract::cuda::Launch;
use kernels::{Access, Cuda, DType};

/// Blocks of a launch that takes no other into its batch: it runs for so long that a launch costs nothing, and results that
/// wait to be read occupy memory.
const FULL: u64 = 16_384;

/// A launch of a plan.
#[derive(Clone, Copy)]
pub(super) struct Step {
    pub(super) call: usize,
    pub(super) launch: &'static Launch,
    pub(super) grid: [u32; 3],
}

impl Step {
    pub(super) fn blocks(&self) -> u64 {
        self.grid.iter().map(|n| u64::from(*n)).product()
    }
}

/// Launches that run as one.
pub(super) struct Group {
    pub(super) steps: Vec<Step>,
    /// Each follows on the rows of the one before; otherwise they need nothing of each other and have one kernel.
    pub(super) rows: bool,
}

/// What runs when.
pub(super) struct Order {
    /// One after the other.
    pub(super) groups: Vec<Group>,
    /// Groups of every call, first and last.
    pub(super) used: Vec<(usize, usize)>,
}

/// Groups the launches of a plan, and puts its calls in the order of their first launches, which is as good an order as the
/// one in which they were recorded. Its buffers are then in use from group to group.
pub(super) fn order(plan: &mut Plan, variants: &mut Vec<&'static Cuda>) -> Order {
    let steps = steps(plan, variants);
    let mut groups = joined(plan, &steps, grouped(plan, variants, &steps));
    // A call of nothing has no launch; it may be anywhere.
    let mut used: Vec<Option<(usize, usize)>> = vec![None; plan.calls.len()];
    for (time, group) in groups.iter().enumerate() {
        for step in &group.steps {
            used[step.call] = Some((used[step.call].map_or(time, |(first, _)| first), time));
        }
    }
    let used: Vec<(usize, usize)> = used.into_iter().map(Option::unwrap_or_default).collect();
    let mut from: Vec<usize> = (0..plan.calls.len()).collect();
    from.sort_by_key(|call| (used[*call].0, *call));
    let mut to = vec![0; from.len()];
    from.iter().enumerate().for_each(|(place, call)| to[*call] = place);
    groups.iter_mut().flat_map(|group| &mut group.steps).for_each(|step| step.call = to[step.call]);
    plan.calls = from.iter().map(|call| plan.calls[*call].clone()).collect();
    *variants = from.iter().map(|call| variants[*call]).collect();
    let used: Vec<(usize, usize)> = from.iter().map(|call| used[*call]).collect();
    plan.buffers.iter_mut().for_each(|buffer| buffer.used = None);
    for (call, (begin, end)) in plan.calls.iter().zip(&used) {
        for slice in call.args.iter().flatten() {
            let buffer = &mut plan.buffers[slice.buffer.0 as usize].used;
            *buffer = Some(buffer.map_or((*begin, *end), |(first, last)| (first.min(*begin), last.max(*end))));
        }
    }
    Order { groups, used }
}

/// The launches of a plan with what they touch, in the order of its calls.
fn steps(plan: &Plan, variants: &[&'static Cuda]) -> Vec<(Step, Touched)> {
    let mut steps = Vec::new();
    for (call, (recorded, variant)) in plan.calls.iter().zip(variants).enumerate() {
        let all = Touched::of(plan, recorded);
        let launches = variant.launches.iter().map(|launch| (launch, (launch.grid)(&recorded.dims)));
        for (nth, (launch, grid)) in launches.filter(|(_, grid)| !grid.contains(&0)).enumerate() {
            // The first launch stands for the whole call, so that calls in the order of their first launches are right, too.
            let writes = |range: &&Range| {
                nth == 0 || launch.writes.is_none_or(|names| names.contains(&recorded.op.args[range.arg].name))
            };
            let written = all.written.iter().filter(writes).copied().collect();
            steps.push((Step { call, launch, grid }, Touched { read: all.read.clone(), written }));
        }
    }
    steps
}

/// Goes from the last launch to the first: each joins the earliest group of its kernel that is behind nothing which needs
/// it, or becomes a group in front of all. Groups are of places in `steps`, the one that runs first in front.
fn grouped(plan: &Plan, variants: &[&'static Cuda], steps: &[(Step, Touched)]) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new(); // the last one first
    for (at, (step, touched)) in steps.iter().enumerate().rev() {
        let needs = |later: &usize| steps[*later].0.call == step.call || touched.meets(&steps[*later].1);
        let before = groups.iter().rposition(|group| group.iter().any(needs)).map_or(0, |nth| nth + 1);
        let takes = |group: &Vec<usize>| {
            let blocks: u64 = group.iter().map(|at| steps[*at].0.blocks()).sum();
            step.launch.batched && same_kernel(plan, variants, &steps[group[0]].0, step) && blocks < FULL
        };
        match groups[before..].iter().rposition(takes) {
            Some(nth) => groups[before + nth].push(at),
            None => groups.push(vec![at]),
        }
    }
    groups.iter_mut().for_each(|group| group.reverse());
    groups.reverse();
    groups
}

/// Whether two launches are of one kernel with as much shared memory.
fn same_kernel(plan: &Plan, variants: &[&'static Cuda], a: &Step, b: &Step) -> bool {
    let shared = |step: &Step| step.launch.shared.map(|bytes| bytes(&plan.calls[step.call].dims));
    let module = |step: &Step| variants[step.call].module.name;
    a.launch.entry == b.launch.entry && module(a) == module(b) && shared(a) == shared(b)
}

/// Storage units of a buffer.
#[derive(Clone, Copy)]
pub(super) struct Range {
    pub(super) arg: usize,
    buffer: u32,
    begin: usize,
    end: usize,
}

impl Range {
    pub(super) fn meets(&self, other: &Range) -> bool {
        self.buffer == other.buffer && self.begin < other.end && other.begin < self.end
    }
}

/// What a launch reads and writes.
pub(super) struct Touched {
    pub(super) read: Vec<Range>,
    pub(super) written: Vec<Range>,
}

impl Touched {
    fn of(plan: &Plan, call: &RecordedCall) -> Touched {
        let range = |arg: usize, slice: &Slice| {
            let dtype: DType = plan.buffers[slice.buffer.0 as usize].dtype;
            let (begin, end) = span(slice, dtype).unwrap_or((0, usize::MAX));
            Range { arg, buffer: slice.buffer.0, begin, end }
        };
        let of = |unlike: Access| {
            let args = call.args.iter().zip(call.op.args).enumerate();
            let some = args.filter(move |(_, (_, arg))| arg.access != unlike);
            some.filter_map(|(at, (slice, _))| slice.as_ref().map(|slice| range(at, slice))).collect()
        };
        Touched { read: of(Access::Write), written: of(Access::Read) }
    }

    /// Whether one has to wait for the other.
    pub(super) fn meets(&self, other: &Touched) -> bool {
        let any = |a: &[Range], b: &[Range]| a.iter().any(|a| b.iter().any(|b| a.meets(b)));
        any(&self.written, &other.read) || any(&self.written, &other.written) || any(&self.read, &other.written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Builder, Life};
    use kernels::ops::adamw::SUMSQ;
    use kernels::ops::pointwise::ADD;
    use proptest::prelude::*;

    /// Sums of any two of some buffers into a third, and sums of squares, in some order.
    fn plan(calls: &[[u32; 3]]) -> (Plan, Vec<&'static Cuda>) {
        let mut plan = Builder::new();
        let names = ["0", "1", "2", "3", "4", "5", "6", "7"];
        let buffers = names.map(|name| plan.buffer(name, DType::F32, 1, 64, Life::State));
        let all = buffers.map(|buffer| plan.whole(buffer));
        for [x, y, to] in calls {
            let [x, y, to] = [x, y, to].map(|at| all[*at as usize]);
            let one = Slice { cols: 1, at: y.buffer.0, ..to };
            // Outputs that overlap inputs are refused.
            let _ = match x == y {
                true => plan.call(&SUMSQ, &[Some(x), None, Some(one)], &[]),
                false => plan.call(&ADD, &[Some(x), Some(y), Some(to)], &[]),
            };
        }
        let plan = plan.finish().expect("names differ");
        let variants = plan.calls.iter().map(|call| &call.op.cuda[0]).collect();
        (plan, variants)
    }

    /// What the buffers of a plan hold in the end, as a number that names how every element was computed.
    fn outcome(plan: &Plan) -> Vec<Vec<u64>> {
        let mix = |all: &[u64]| {
            all.iter().fold(7, |hash: u64, v| hash.rotate_left(9).wrapping_add(*v).wrapping_mul(0x9e37_79b9_7f4a_7c15))
        };
        let mut held: Vec<Vec<u64>> = (0..8).map(|at| (0..64).map(|nth| 64 * at + nth).collect()).collect();
        for call in &plan.calls {
            let at = |arg: usize| call.args[arg].map_or(0, |slice| slice.buffer.0 as usize);
            match call.op.name {
                "add" => held[at(2)] = held[at(0)].iter().zip(&held[at(1)]).map(|(x, y)| mix(&[*x, *y])).collect(),
                _ => held[at(2)][call.args[2].map_or(0, |slice| slice.at as usize)] = mix(&held[at(0)]),
            }
        }
        held
    }

    proptest! {
        #[test]
        fn what_meets_stays_in_order(calls in prop::collection::vec([0..8u32, 0..8u32, 0..8u32], 0..40)) {
            let (mut plan, mut variants) = plan(&calls);
            let before = steps(&plan, &variants);
            let groups = joined(&plan, &before, grouped(&plan, &variants, &before));
            let time = |step: &Step| {
                let is = |other: &Step| other.call == step.call && other.launch.entry == step.launch.entry;
                let place = |group: &Group| group.steps.iter().position(is).map(|at| if group.rows { at } else { 0 });
                groups.iter().enumerate().find_map(|(nth, group)| Some((nth, place(group)?))).expect("in a group")
            };
            for (at, (step, touched)) in before.iter().enumerate() {
                for (later, others) in &before[at + 1..] {
                    if step.call == later.call || touched.meets(others) {
                        prop_assert!(time(step) < time(later));
                    }
                }
            }
            prop_assert_eq!(groups.iter().map(|group| group.steps.len()).sum::<usize>(), before.len());
            let expected = outcome(&plan);
            let Order { used, .. } = order(&mut plan, &mut variants);
            prop_assert!(used.is_sorted_by_key(|(first, _)| *first));
            prop_assert_eq!(outcome(&plan), expected);
        }
    }

    #[test]
    fn sums_of_many_tensors_are_two_launches_and_those_behind_a_sum_wait() {
        let (mut plan, mut variants) = plan(&[[0, 0, 7], [1, 1, 7], [2, 3, 4], [4, 4, 7]]);
        let entries = |group: &Group| (group.steps[0].launch.entry, group.steps.len());
        let found: Vec<_> = order(&mut plan, &mut variants).groups.iter().map(entries).collect();
        assert_eq!(found, [("add_plain", 1), ("sumsq_blocks", 3), ("sumsq_combine", 3)]);
    }

    /// Each sum is of the one before and of what nothing in between writes, but for the last, which reads both of those.
    #[test]
    fn what_follows_on_rows_is_joined_unless_it_reads_others_that_were_just_written() {
        let (mut plan, mut variants) = plan(&[[0, 1, 2], [2, 1, 3], [3, 0, 4], [4, 3, 5]]);
        let found: Vec<_> =
            order(&mut plan, &mut variants).groups.iter().map(|group| (group.steps.len(), group.rows)).collect();
        assert_eq!(found, [(3, true), (1, false)]);
    }
}
