//! The launches of a plan: each call's own, and those of a whole run, where several calls may be one.

use super::bound::{BoundCall, Memory};
use super::launcher::{CudaLaunch, CudaMatrix, Launcher};
use super::order::{Group, Step};
use crate::arena::ALIGN;
use crate::error::{Error, Result};
use crate::plan::{Plan, RecordedCall};
use kernels::contract::cuda::rows::{ROWS, ROWS_MODULE, THREADS, stage_number, stages_bytes};
use kernels::contract::cuda::{MAP_BYTES, MAX_BLOCKS_YZ, Part, batch_bytes, line};
use std::sync::Arc;

/// Most blocks in the first dimension of a grid.
const MAX_BLOCKS_X: u32 = i32::MAX as u32;

/// Most bytes of a call in a table, beside its struct.
const ENTRY: usize = 16;

/// A launch of one call.
pub(super) fn launch(launcher: &dyn Launcher, plan: &Plan, calls: &[BoundCall], step: &Step) -> Result<CudaLaunch> {
    let Step { call, launch, grid } = *step;
    let (op, dims, bound) = (plan.calls[call].op, &plan.calls[call].dims, &calls[call]);
    for (found, limit) in grid.into_iter().zip([MAX_BLOCKS_X, MAX_BLOCKS_YZ, MAX_BLOCKS_YZ]) {
        if found > limit {
            let what = format!("blocks of {} {}", op.name, launch.entry);
            return Err(Error::Limit { what, found: found.into(), limit: limit.into() });
        }
    }
    let shared = launch.shared.map_or(0, |bytes| bytes(dims));
    let shared_bytes = u32::try_from(shared).map_err(|_| {
        let what = format!("bytes of shared memory of {} {}", op.name, launch.entry);
        Error::Limit { what, found: shared as u64, limit: u32::MAX.into() }
    })?;
    let function = launcher.function(&bound.variant.module, launch.entry, shared_bytes)?;
    let mut maps = Vec::new();
    for name in launch.maps {
        maps.extend(tensor_map(launcher, &plan.calls[call], bound, name)?);
    }
    Ok(CudaLaunch { function, grid, threads: launch.threads, shared_bytes, argument: bound.argument.clone(), maps })
}

/// The tensor map of an argument; zero if its kernel has to read it otherwise.
fn tensor_map(launcher: &dyn Launcher, call: &RecordedCall, bound: &BoundCall, name: &str) -> Result<[u8; MAP_BYTES]> {
    let arg = call.op.args.iter().position(|arg| arg.name == name);
    let Some((view, place)) = arg.and_then(|arg| bound.views[arg].as_ref().zip(bound.arguments[arg])) else {
        return Ok([0; MAP_BYTES]);
    };
    let pitch_bytes = u64::from(place.ld) * view.dtype.unit_bytes() as u64;
    let matrix = CudaMatrix { address: place.address, rows: view.rows as u32, cols: view.cols as u32, pitch_bytes };
    match matrix.rows > 0 && matrix.cols > 0 && (place.address | pitch_bytes).is_multiple_of(16) {
        true => launcher.tensor_map(&matrix),
        false => Ok([0; MAP_BYTES]),
    }
}

/// The launches of all calls, a group as one, and the memory of the tables that those of several calls read.
pub(super) fn whole_run(
    launcher: &Arc<dyn Launcher>,
    plan: &Plan,
    calls: &[BoundCall],
    groups: &[Group],
) -> Result<(Vec<CudaLaunch>, Memory)> {
    let most = |step: &Step| calls[step.call].argument.len() + ENTRY;
    let size = |group: &Group| match &group.steps[..] {
        [_] => 0,
        steps => steps.iter().map(most).sum::<usize>().next_multiple_of(ALIGN),
    };
    let memory = Memory::zeroed(launcher, groups.iter().map(size).sum())?;
    let mut at = 0;
    let mut whole = Vec::new();
    for group in groups {
        let address = memory.address + at as u64;
        let (table, launch) = match &group.steps[..] {
            [one] => (Vec::new(), launch(&**launcher, plan, calls, one)?),
            steps if group.rows => rows(&**launcher, plan, calls, steps, address)?,
            steps => batch(&**launcher, plan, calls, steps, address)?,
        };
        memory.write(at, &table)?;
        at += size(group);
        whole.push(launch);
    }
    Ok((whole, memory))
}

fn structs(calls: &[BoundCall], steps: &[Step]) -> Vec<u8> {
    steps.iter().flat_map(|step| &calls[step.call].argument).copied().collect()
}

/// Calls of one kernel, and their table, which will lie at `address`: structs, then where the blocks of each begin.
fn batch(
    launcher: &dyn Launcher,
    plan: &Plan,
    calls: &[BoundCall],
    steps: &[Step],
    address: u64,
) -> Result<(Vec<u8>, CudaLaunch)> {
    let one = launch(launcher, plan, calls, &steps[0])?;
    let entry = steps[0].launch.batch_entry();
    let mut first = 0;
    let mut part = |step: &Step| {
        let part: Part = [first, step.grid[0], step.grid[1]];
        // A group has at most a full one's blocks and those of one more launch.
        first = first.saturating_add(u32::try_from(step.blocks()).unwrap_or(u32::MAX));
        part
    };
    let parts: Vec<u8> = steps.iter().flat_map(&mut part).flat_map(u32::to_ne_bytes).collect();
    if first > MAX_BLOCKS_X {
        return Err(Error::Limit {
            what: format!("blocks of {entry}"),
            found: first.into(),
            limit: MAX_BLOCKS_X.into(),
        });
    }
    let structs = structs(calls, steps);
    let launch = CudaLaunch {
        function: launcher.function(&calls[steps[0].call].variant.module, &entry, one.shared_bytes)?,
        grid: [first, 1, 1],
        argument: batch_bytes(address, address + structs.len() as u64, steps.len() as u32),
        ..one
    };
    Ok(([structs, parts].concat(), launch))
}

/// A head and stages on its rows, and their table, which will lie at `address`: structs of the stages, then the list of those.
fn rows(
    launcher: &dyn Launcher,
    plan: &Plan,
    calls: &[BoundCall],
    steps: &[Step],
    address: u64,
) -> Result<(Vec<u8>, CudaLaunch)> {
    let first = &steps[0];
    let head = first.launch.head.unwrap_or(ROWS);
    let to = first.launch.stage.map_or(head.to, |stage| stage.to);
    let RecordedCall { op, args, .. } = &plan.calls[first.call];
    let rows =
        op.args.iter().zip(args).find(|(arg, _)| arg.name == to).and_then(|(_, slice)| *slice).map_or(0, |s| s.rows);
    let (module, call, stages) = match first.launch.head {
        Some(_) => (calls[first.call].variant.module, calls[first.call].argument.clone(), &steps[1..]),
        None => (ROWS_MODULE, u64::from(rows).to_ne_bytes().to_vec(), steps),
    };
    let mut at = address;
    let mut entry = |step: &Step| {
        let entry = [stage_number(plan.calls[step.call].op).unwrap_or_default(), at];
        at += calls[step.call].argument.len() as u64;
        entry
    };
    let list: Vec<u8> = stages.iter().flat_map(&mut entry).flat_map(u64::to_ne_bytes).collect();
    let launch = CudaLaunch {
        function: launcher.function(&module, head.entry, head.shared_bytes)?,
        grid: line(rows as usize, head.rows),
        threads: THREADS,
        shared_bytes: head.shared_bytes,
        argument: stages_bytes(&call, at, stages.len() as u64),
        maps: Vec::new(),
    };
    Ok(([structs(calls, stages), list].concat(), launch))
}
