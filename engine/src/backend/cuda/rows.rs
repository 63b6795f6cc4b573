//! Which launches of a plan are done to rows that another launch holds.
//!
//! Most of what stands between two products of a model is done row by row: dropout, a residual, a norm, their gradients. Such a
//! launch becomes a stage of the one whose rows it takes: a product that computes whole rows, or what was the first of several
//! such launches. All that they write is written as by launches of their own, to the bit.

use super::order::{Group, Range, Step, Touched};
use crate::plan::{Plan, Slice};
use kernels::contract::cuda::rows::{WIDTH, stage_number};

/// Joins a launch to the last one that it has to wait for, where it is a stage and takes the rows that this one leaves. Nothing
/// in between needs either, so it may run earlier. `groups` are places in `steps`, in the order in which they run.
pub(super) fn joined(plan: &Plan, steps: &[(Step, Touched)], groups: Vec<Vec<usize>>) -> Vec<Group> {
    let mut out: Vec<(Vec<usize>, bool)> = Vec::new();
    for group in groups {
        let awaited = match group[..] {
            [one] => out
                .iter_mut()
                .rfind(|(earlier, _)| earlier.iter().any(|at| steps[*at].1.meets(&steps[one].1)))
                .filter(|(earlier, rows)| (*rows || earlier.len() == 1) && takes(plan, steps, earlier, one)),
            _ => None,
        };
        match awaited {
            Some((earlier, rows)) => {
                earlier.extend(group);
                *rows = true;
            }
            None => out.push((group, false)),
        }
    }
    let group =
        |(group, rows): (Vec<usize>, bool)| Group { steps: group.iter().map(|at| steps[*at].0).collect(), rows };
    out.into_iter().map(group).collect()
}

/// Whether a launch can be the next stage: it takes the rows that the last of `earlier` leaves, and touches nothing else that
/// those write.
fn takes(plan: &Plan, steps: &[(Step, Touched)], earlier: &[usize], one: usize) -> bool {
    let (step, touched) = &steps[one];
    let last = earlier.last().map(|at| &steps[*at].0);
    let left = last.and_then(|last| {
        let to = last.launch.head.map(|head| head.to).or(last.launch.stage.map(|stage| stage.to))?;
        slice(plan, last, to)
    });
    let from = step.launch.stage.and_then(|stage| stage.from);
    let taken = from.and_then(|from| slice(plan, step, from));
    let (Some((_, left)), Some((from, taken))) = (left, taken) else { return false };
    // An op of somebody else's is no stage of these kernels.
    let known = |at: &usize| {
        let step = &steps[*at].0;
        step.launch.head.is_some() || stage_number(plan.calls[step.call].op).is_some()
    };
    let any = |a: &[Range], b: &[Range]| a.iter().any(|a| b.iter().any(|b| a.meets(b)));
    let others: Vec<Range> = touched.read.iter().filter(|range| range.arg != from).copied().collect();
    let apart = |at: &usize| {
        let Touched { read, written } = &steps[*at].1;
        !any(&others, written) && !any(&touched.written, read) && !any(&touched.written, written)
    };
    left == taken && taken.cols <= WIDTH && earlier.iter().all(apart) && earlier.iter().chain([&one]).all(known)
}

/// An argument of a name: which, and what it is in the call of a launch.
fn slice(plan: &Plan, step: &Step, name: &str) -> Option<(usize, Slice)> {
    let call = &plan.calls[step.call];
    let nth = call.op.args.iter().position(|arg| arg.name == name)?;
    call.args[nth].map(|slice| (nth, slice))
}
