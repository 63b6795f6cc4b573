//! The CPU: a plan's buffers in three arenas, and its calls one after another.

mod split;

use crate::arena::ALIGN;
use crate::device::Cpu;
use crate::error::Result;
use crate::layout::{Layout, Place, Space, View, Work, addressable, lay_out, view};
use crate::plan::{Plan, RecordedCall};
use kernels::contract::Stage;
use kernels::{Access, Call, Variant};
use split::{Arenas, Memory, Room, split};

/// One arena, however large: nothing has to be cut.
const CHUNK: usize = usize::MAX / ALIGN * ALIGN;

/// A plan on the CPU.
pub(crate) struct Bound {
    cpu: Cpu,
    calls: Vec<BoundCall>,
    places: Vec<Place>,
    arenas: Arenas,
    workers: Memory,
}

struct BoundCall {
    variant: &'static Variant,
    views: Vec<Option<View>>,
    /// The shared workspace and what the variant prepares.
    rooms: [Room; 2],
    /// Workspace of all workers, in f32 elements.
    worker: usize,
    /// The variant has to prepare again before it runs.
    stale: bool,
}

impl BoundCall {
    /// What was prepared is in nobody else's way, so that it outlives a run.
    fn keeps(&self) -> bool {
        self.rooms[1].space == Space::Prepared
    }
}

impl Bound {
    /// # Errors
    /// [`Error::Memory`].
    pub(crate) fn new(plan: &Plan, cpu: Cpu) -> Result<Bound> {
        let variants: Vec<_> = plan.calls.iter().map(|c| c.op.best_for(cpu.isa, plan.first_dtype(c))).collect();
        let scratches: Vec<_> = plan.calls.iter().zip(&variants).map(|(c, v)| (v.scratch)(&c.dims)).collect();
        let mut rooms = Vec::new();
        let mut prepared_bytes = 0usize;
        for (call, (variant, scratch)) in variants.iter().zip(&scratches).enumerate() {
            let shared = Room { space: Space::Step, at: 0, bytes: scratch.shared.saturating_mul(4) };
            let bytes = variant.prepared_len(&plan.calls[call].dims).saturating_mul(4);
            let space = if sources_are_written(plan, call, variant) { Space::Step } else { Space::Prepared };
            rooms.push([shared, Room { space, at: prepared_bytes, bytes }]);
            if space == Space::Prepared {
                let end = prepared_bytes.saturating_add(bytes);
                prepared_bytes = end.checked_next_multiple_of(ALIGN).unwrap_or(usize::MAX);
            }
        }
        addressable([prepared_bytes].into_iter())?;
        let in_step = |rooms: &[[Room; 2]]| -> Vec<Work> {
            let all = rooms.iter().flatten().enumerate().filter(|(_, room)| room.space == Space::Step);
            all.map(|(nth, room)| Work::of(nth / 2, room.bytes)).collect()
        };
        let Layout { places, works, state_bytes, step_bytes } = lay_out(plan, &in_step(&rooms), CHUNK)?;
        let step_rooms = rooms.iter_mut().flatten().filter(|room| room.space == Space::Step);
        step_rooms.zip(works).for_each(|(room, at)| room.at = at);
        let calls: Vec<BoundCall> = (0..plan.calls.len())
            .map(|call| BoundCall {
                variant: variants[call],
                views: plan.calls[call].args.iter().map(|s| s.map(|s| view(plan, &places, &s))).collect(),
                rooms: rooms[call],
                worker: scratches[call].of_workers(cpu.pool.workers()),
                stale: true,
            })
            .collect();
        let most = calls.iter().map(|c| c.worker).max().unwrap_or(0);
        let workers = Memory::zeroed(most.saturating_mul(4))?;
        let arenas = Arenas {
            state: Memory::zeroed(state_bytes)?,
            step: Memory::zeroed(step_bytes)?,
            prepared: Memory::zeroed(prepared_bytes)?,
        };
        Ok(Bound { cpu, calls, places, arenas, workers })
    }

    pub(crate) fn run_call(&mut self, plan: &Plan, call: usize) {
        let bound = &mut self.calls[call];
        let BoundCall { variant, views, rooms, worker, .. } = &*bound;
        let recorded = &plan.calls[call];
        let mut stage = |stage: Stage| {
            let (args, [shared, prepared]) = split(recorded.op, views, *rooms, &mut self.arenas);
            let workers = &mut bytemuck::cast_slice_mut(self.workers.bytes_mut())[..*worker];
            let (dims, pool, crossover) = (&recorded.dims, &*self.cpu.pool, &*self.cpu.crossover);
            stage.run(&mut Call { dims, pool, crossover, shared, prepared, workers, args });
        };
        if let Some(first) = variant.first_stage().filter(|_| bound.stale) {
            stage(first);
        }
        stage(variant.stage());
        bound.stale = !bound.keeps();
    }

    /// What was prepared from a buffer that the host writes is out of date; these are its bytes.
    pub(crate) fn bytes_mut(&mut self, plan: &Plan, buffer: usize) -> &mut [u8] {
        for (bound, recorded) in self.calls.iter_mut().zip(&plan.calls) {
            bound.stale |= sources(recorded, bound.variant).any(|b| b == buffer);
        }
        let Place { space, at } = self.places[buffer];
        &mut self.arenas.of_mut(space).bytes_mut()[at..at + plan.buffers[buffer].bytes()]
    }

    /// Bytes of a buffer.
    pub(crate) fn bytes(&self, plan: &Plan, buffer: usize) -> &[u8] {
        let Place { space, at } = self.places[buffer];
        &self.arenas.of(space).bytes()[at..at + plan.buffers[buffer].bytes()]
    }

    /// An argument as it is placed, and its bytes from the first to the last element.
    pub(crate) fn argument(&self, call: usize, arg: usize) -> Option<(View, &[u8])> {
        let view = self.calls[call].views[arg]?;
        Some((view, &self.arenas.of(view.space).bytes()[view.at..view.end()]))
    }

    /// The variant that runs a call.
    pub(crate) fn variant(&self, call: usize) -> &'static Variant {
        self.calls[call].variant
    }

    /// Bytes of the arenas: states, step, prepared.
    pub(crate) fn arena_bytes(&self) -> [usize; 3] {
        [Space::State, Space::Step, Space::Prepared].map(|space| self.arenas.of(space).bytes().len())
    }
}

/// Buffers that a variant prepares something from.
fn sources<'a>(call: &'a RecordedCall, variant: &'static Variant) -> impl Iterator<Item = usize> + use<'a> {
    let from = variant.prepares_from();
    from.iter().filter_map(|at| call.args[*at]).map(|slice| slice.buffer.0 as usize)
}

fn sources_are_written(plan: &Plan, call: usize, variant: &'static Variant) -> bool {
    sources(&plan.calls[call], variant).any(|source| {
        plan.calls.iter().any(|c| {
            let outputs = c.args.iter().zip(c.op.args).filter(|(_, arg)| arg.access != Access::Read);
            outputs.filter_map(|(slice, _)| *slice).any(|slice| slice.buffer.0 as usize == source)
        })
    })
}
