//! A plan on a device.

use crate::arena::{ALIGN, Span, place};
use crate::backend::cpu::{Arenas, Memory, Space, View, Work, split};
use crate::device::{Cpu, Device};
use crate::error::{Error, Result};
use crate::plan::{Buffer, BufferInfo, Life, Plan, RecordedCall, span};
use kernels::contract::Stage;
use kernels::{Access, Call, DType, Variant};

/// A host element type and the buffers it may fill.
pub trait Element: bytemuck::Pod {
    /// True if a buffer of this type is made of these elements (bits are moved as `u32` words).
    fn fits(dtype: DType) -> bool;
}

macro_rules! elements {
    ($($T:ty: $($D:ident)|*;)*) => {$(
        impl Element for $T {
            fn fits(dtype: DType) -> bool {
                matches!(dtype, $(DType::$D)|*)
            }
        }
    )*};
}

elements! {
    f32: F32;
    u32: U32 | Bits;
    u16: U16 | F16 | Bf16;
    u8: U8;
}

/// A plan bound to a device: all memory is allocated, every kernel chosen.
pub struct Program {
    pub(crate) plan: Plan,
    pub(crate) cpu: Cpu,
    pub(crate) calls: Vec<BoundCall>,
    places: Vec<Place>,
    pub(crate) arenas: Arenas,
    pub(crate) workers: Vec<f32>,
}

pub(crate) struct BoundCall {
    pub(crate) variant: &'static Variant,
    pub(crate) views: Vec<Option<View>>,
    /// The shared workspace and what the variant prepares.
    works: [Work; 2],
    /// Workspace of all workers, in f32 elements.
    worker: usize,
    /// The variant has to prepare again before it runs.
    stale: bool,
}

impl BoundCall {
    /// What was prepared is in nobody else's way, so that it outlives a run.
    fn keeps(&self) -> bool {
        self.works[1].space == Space::Prepared
    }
}

#[derive(Clone, Copy)]
struct Place {
    space: Space,
    at: usize,
}

impl Program {
    pub(crate) fn new(plan: Plan, device: Device) -> Result<Program> {
        let Device::Cpu(cpu) = device;
        let placed = |b: &&BufferInfo| b.life != Life::Temp || b.used.is_some();
        addressable(plan.buffers.iter().filter(placed).map(BufferInfo::bytes))?;
        let variants: Vec<_> = plan.calls.iter().map(|c| c.op.best_for(cpu.isa, plan.first_dtype(c))).collect();
        let scratches: Vec<_> = plan.calls.iter().zip(&variants).map(|(c, v)| (v.scratch)(&c.dims)).collect();

        let mut places = vec![Place { space: Space::Step, at: 0 }; plan.buffers.len()];
        let mut state_bytes = 0usize;
        let mut spans = Vec::new();
        let mut owners = Vec::new();
        let end = plan.calls.len();
        for (at, info) in plan.buffers.iter().enumerate() {
            let (first, last) = match (info.life, info.used) {
                (Life::State, _) => {
                    places[at] = Place { space: Space::State, at: state_bytes };
                    state_bytes += info.bytes().next_multiple_of(ALIGN);
                    continue;
                }
                (Life::Input, _) => (0, end),
                (Life::Output, used) => (used.map_or(0, |u| u.0), end),
                (Life::Temp, Some(used)) => used,
                (Life::Temp, None) => continue,
            };
            spans.push(Span { first, last, bytes: info.bytes() });
            owners.push(at);
        }
        let mut works = Vec::new();
        let mut prepared_bytes = 0usize;
        for (call, (variant, scratch)) in variants.iter().zip(&scratches).enumerate() {
            let shared = Work { space: Space::Step, at: 0, bytes: scratch.shared.saturating_mul(4) };
            let bytes = variant.prepared_len(&plan.calls[call].dims).saturating_mul(4);
            let space = if sources_are_written(&plan, call, variant) { Space::Step } else { Space::Prepared };
            works.push([shared, Work { space, at: prepared_bytes, bytes }]);
            if space == Space::Prepared {
                let end = prepared_bytes.saturating_add(bytes);
                prepared_bytes = end.checked_next_multiple_of(ALIGN).unwrap_or(usize::MAX);
            }
        }
        for (call, work) in works.iter().flatten().enumerate().filter(|(_, work)| work.space == Space::Step) {
            spans.push(Span { first: call / 2, last: call / 2, bytes: work.bytes });
        }
        addressable([prepared_bytes].into_iter())?;
        addressable(spans.iter().map(|s| s.bytes))?;
        let (offsets, step_bytes) = place(&spans);
        for (owner, offset) in owners.iter().zip(&offsets) {
            places[*owner].at = *offset;
        }
        let in_step = works.iter_mut().flatten().filter(|work| work.space == Space::Step);
        in_step.zip(&offsets[owners.len()..]).for_each(|(work, offset)| work.at = *offset);
        let calls: Vec<BoundCall> = (0..end)
            .map(|call| BoundCall {
                variant: variants[call],
                views: plan.calls[call].args.iter().map(|s| s.map(|s| view(&plan, &places, &s))).collect(),
                works: works[call],
                worker: scratches[call].worker.saturating_mul(cpu.pool.workers()),
                stale: true,
            })
            .collect();
        let most = calls.iter().map(|c| c.worker).max().unwrap_or(0);
        let mut workers = Vec::new();
        workers.try_reserve_exact(most).map_err(|_| Error::Memory { bytes: most.saturating_mul(4) })?;
        kernels::pages::ask_for_large(workers.spare_capacity_mut());
        workers.resize(most, 0.0);
        Ok(Program {
            arenas: Arenas {
                state: Memory::zeroed(state_bytes)?,
                step: Memory::zeroed(step_bytes)?,
                prepared: Memory::zeroed(prepared_bytes)?,
            },
            plan,
            cpu,
            calls,
            places,
            workers,
        })
    }

    /// Runs every call once, in order.
    ///
    /// # Errors
    /// None on the CPU; lost devices and rejected launches elsewhere.
    ///
    /// Determinism: the same bits for the same buffers, for any number of workers.
    pub fn run(&mut self) -> Result<()> {
        (0..self.calls.len()).for_each(|call| self.run_call(call));
        Ok(())
    }

    pub(crate) fn run_call(&mut self, call: usize) {
        let bound = &mut self.calls[call];
        let BoundCall { variant, views, works, worker, .. } = &*bound;
        let recorded = &self.plan.calls[call];
        let mut stage = |stage: Stage| {
            let (args, [shared, prepared]) = split(recorded.op, views, *works, &mut self.arenas);
            let workers = &mut self.workers[..*worker];
            let (dims, pool, crossover) = (&recorded.dims, &*self.cpu.pool, &*self.cpu.crossover);
            stage.run(&mut Call { dims, pool, crossover, shared, prepared, workers, args });
        };
        if let Some(first) = variant.first_stage().filter(|_| bound.stale) {
            stage(first);
        }
        stage(variant.stage());
        bound.stale = !bound.keeps();
    }

    /// What was prepared from a buffer that the host wrote is out of date.
    fn touched(&mut self, buffer: usize) {
        for (bound, recorded) in self.calls.iter_mut().zip(&self.plan.calls) {
            bound.stale |= sources(recorded, bound.variant).any(|b| b == buffer);
        }
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Bytes of state buffers, of everything a step needs, and of what kernels keep of weights that no call writes.
    pub fn arena_bytes(&self) -> [usize; 3] {
        [Space::State, Space::Step, Space::Prepared].map(|space| self.arenas.of(space).bytes().len())
    }

    /// True if the plan has an input, state or output of this name.
    pub fn has(&self, name: &str) -> bool {
        self.plan.names.contains_key(name)
    }

    /// Fills an input or state. Rows have no gaps; bits are given as words.
    ///
    /// # Errors
    /// [`Error::NoBuffer`] or [`Error::Data`].
    pub fn write<T: Element>(&mut self, name: &str, data: &[T]) -> Result<()> {
        let (at, place) = self.find::<T>(name, data.len())?;
        let bytes = self.plan.buffers[at].bytes();
        let arena = self.arenas.of_mut(place.space);
        arena.bytes_mut()[place.at..place.at + bytes].copy_from_slice(bytemuck::cast_slice(data));
        self.touched(at);
        Ok(())
    }

    /// Reads an input, state or output.
    ///
    /// # Errors
    /// [`Error::NoBuffer`] or [`Error::Data`].
    pub fn read<T: Element>(&self, name: &str, data: &mut [T]) -> Result<()> {
        let (at, place) = self.find::<T>(name, data.len())?;
        bytemuck::cast_slice_mut(data).copy_from_slice(self.raw(place, self.plan.buffers[at].bytes()));
        Ok(())
    }

    /// Reads an input, state or output into a new vector.
    ///
    /// # Errors
    /// [`Error::NoBuffer`] or [`Error::Data`].
    pub fn read_vec<T: Element>(&self, name: &str) -> Result<Vec<T>> {
        let units = self.info(name)?.1;
        let mut data = vec![T::zeroed(); units];
        self.read(name, &mut data)?;
        Ok(data)
    }

    /// Storage units of a buffer: words for bits, elements otherwise.
    ///
    /// # Errors
    /// [`Error::NoBuffer`].
    pub fn units(&self, name: &str) -> Result<usize> {
        Ok(self.info(name)?.1)
    }

    /// Copies every state buffer that both programs have under one name and size; returns how many.
    pub fn adopt_state(&mut self, from: &Program) -> usize {
        let mut copied = Vec::new();
        for (name, own) in &self.plan.names {
            let Some(other) = from.plan.names.get(name) else { continue };
            let (info, theirs) = (&self.plan.buffers[own.0 as usize], &from.plan.buffers[other.0 as usize]);
            let same = (info.dtype, info.rows, info.cols) == (theirs.dtype, theirs.rows, theirs.cols);
            if info.life == Life::State && theirs.life == Life::State && same {
                let source = from.raw(from.places[other.0 as usize], theirs.bytes());
                let at = self.places[own.0 as usize].at;
                self.arenas.state.bytes_mut()[at..at + info.bytes()].copy_from_slice(source);
                copied.push(own.0 as usize);
            }
        }
        copied.iter().for_each(|buffer| self.touched(*buffer));
        copied.len()
    }

    /// Every state buffer as raw bytes, in name order: what a checkpoint holds.
    pub fn states(&self) -> impl Iterator<Item = (&str, DType, &[u8])> {
        self.plan.names.values().filter(|b| self.plan.buffers[b.0 as usize].life == Life::State).map(|b| {
            let info = &self.plan.buffers[b.0 as usize];
            (info.name.as_str(), info.dtype, self.raw(self.places[b.0 as usize], info.bytes()))
        })
    }

    /// Restores a state buffer from the bytes of [`Program::states`].
    ///
    /// # Errors
    /// [`Error::NoBuffer`] or [`Error::Data`].
    pub fn write_state_bytes(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let (at, units) = self.info(name)?;
        let info = &self.plan.buffers[at];
        if info.life != Life::State || info.bytes() != bytes.len() {
            return Err(Error::Data { name: name.to_owned(), expected: (info.dtype, units), found: (1, bytes.len()) });
        }
        let place = self.places[at];
        self.arenas.state.bytes_mut()[place.at..place.at + bytes.len()].copy_from_slice(bytes);
        self.touched(at);
        Ok(())
    }

    fn info(&self, name: &str) -> Result<(usize, usize)> {
        let Buffer(at) = self.plan.names.get(name).ok_or_else(|| Error::NoBuffer { name: name.to_owned() })?;
        Ok((*at as usize, self.plan.buffers[*at as usize].units()))
    }

    fn find<T: Element>(&self, name: &str, count: usize) -> Result<(usize, Place)> {
        let (at, units) = self.info(name)?;
        let dtype = self.plan.buffers[at].dtype;
        if !T::fits(dtype) || units != count {
            let found = (size_of::<T>(), count);
            return Err(Error::Data { name: name.to_owned(), expected: (dtype, units), found });
        }
        Ok((at, self.places[at]))
    }

    fn raw(&self, place: Place, bytes: usize) -> &[u8] {
        &self.arenas.of(place.space).bytes()[place.at..place.at + bytes]
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

/// Sizes whose sum, with gaps for alignment, is an offset: nothing computed from them overflows.
fn addressable(mut sizes: impl Iterator<Item = usize>) -> Result<()> {
    let sum = sizes.try_fold(0usize, |sum, size| sum.checked_add(size.checked_next_multiple_of(ALIGN)?));
    match sum.is_some_and(|sum| sum <= isize::MAX as usize) {
        true => Ok(()),
        false => Err(Error::Memory { bytes: sum.unwrap_or(usize::MAX) }),
    }
}

fn view(plan: &Plan, places: &[Place], slice: &crate::plan::Slice) -> View {
    let info = &plan.buffers[slice.buffer.0 as usize];
    let Place { space, at } = places[slice.buffer.0 as usize];
    let (begin, end) = span(slice, info.dtype).unwrap_or((0, 0));
    View {
        space,
        at: at + begin * info.dtype.unit_bytes(),
        units: end - begin,
        rows: slice.rows as usize,
        cols: slice.cols as usize,
        // Rows of no columns lie nowhere, so that no kernel looks for the second one behind the end.
        ld: if begin == end { 0 } else { slice.ld as usize },
        dtype: info.dtype,
    }
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Program({} calls)", self.calls.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Builder, Slice};
    use kernels::ops;

    fn add(plan: &mut Builder, rows: u32, cols: u32, life: Life) -> [Slice; 2] {
        let [x, y] = [("x", Life::Input), ("y", life)].map(|(n, life)| plan.buffer(n, DType::F32, rows, cols, life));
        [plan.whole(x), plan.whole(y)]
    }

    #[test]
    fn bf16_calls_run_variants_of_their_own() {
        let mut plan = Builder::new();
        let x = plan.buffer("x", DType::Bf16, 9, 7, Life::Input);
        let w = plan.buffer("w", DType::Bf16, 5, 7, Life::State);
        let y = plan.buffer("y", DType::F32, 9, 5, Life::Output);
        let [x, w, y] = [x, w, y].map(|b| plan.whole(b));
        plan.call(&ops::gemm::GEMM, &[Some(x), Some(w), None, Some(y)], &[]).expect("shapes agree");
        let mixed = plan.buffer("mixed", DType::F32, 5, 7, Life::State);
        let mixed = plan.whole(mixed);
        assert!(plan.call(&ops::gemm::GEMM, &[Some(x), Some(mixed), None, Some(y)], &[]).is_err());
        let mut program = plan.finish().expect("names differ").bind(&Device::cpu(1)).expect("fits");
        let halves = |n: u16| (0..n).map(|i| kernels::bf16::from_f32(f32::from(i) / 4.0).to_bits()).collect::<Vec<_>>();
        program.write("x", &halves(63)).expect("63 halves");
        program.write("w", &halves(35)).expect("35 halves");
        program.check().expect("agrees with f64");
        let product: f32 = (0..7u16).map(|j| f32::from((56 + j) * (28 + j)) / 16.0).sum();
        assert_eq!(program.read_vec::<f32>("y").expect("an output")[44], product);
        assert_eq!(program.calls[0].variant.only, Some(DType::Bf16));
    }

    #[test]
    fn sizes_no_address_space_holds_are_errors() {
        for (rows, cols) in [(u32::MAX, u32::MAX), (1 << 31, 1 << 31), (u32::MAX, 1 << 28)] {
            for life in [Life::Output, Life::State] {
                let mut plan = Builder::new();
                let [x, y] = add(&mut plan, rows, cols, life);
                let weight = plan.buffer("w", DType::F32, cols, cols, Life::State);
                let weight = plan.whole(weight);
                plan.call(&ops::pointwise::ADD, &[Some(x), Some(x), Some(y)], &[]).expect("shapes agree");
                plan.call(&ops::gemm::GEMM, &[Some(x), Some(weight), None, Some(y)], &[]).expect("shapes agree");
                let plan = plan.finish().expect("names differ");
                assert!(matches!(plan.bind(&Device::cpu(1)), Err(Error::Memory { .. })));
            }
        }
    }

    #[test]
    fn hostile_slices_are_errors() {
        let mut plan = Builder::new();
        let [x, y] = add(&mut plan, 4, 5, Life::Output);
        let mut refused = |bad: Slice| {
            let call = plan.call(&ops::pointwise::ADD, &[Some(bad), Some(x), Some(y)], &[]);
            assert!(matches!(call, Err(Error::Call { .. })), "{bad:?}");
        };
        for bad in [
            Slice { at: 1, ..x },
            Slice { at: u32::MAX, ..x },
            Slice { ld: u32::MAX, ..x },
            Slice { ld: 6, ..x },
            Slice { ld: 4, ..x },
            Slice { ld: 0, ..x },
            Slice { rows: u32::MAX, ld: u32::MAX, at: u32::MAX, ..x },
            Slice { buffer: Buffer(2), ..x },
            Slice { buffer: Buffer(u32::MAX), ..x },
        ] {
            refused(bad);
        }
        assert!(matches!(plan.call(&ops::pointwise::ADD, &[Some(x); 9], &[0; 40]), Err(Error::Call { .. })));
        assert!(matches!(
            plan.call(&ops::pointwise::ADD, &[Some(x), Some(x), Some(y)], &[0; 40]),
            Err(Error::Call { .. })
        ));
    }

    #[test]
    fn rows_without_columns_run() {
        let mut plan = Builder::new();
        let [x, y] = add(&mut plan, 4, 5, Life::Output);
        let [x, y] = [x, y].map(|s| Slice { cols: 0, at: 20, ld: 7, ..s });
        plan.call(&ops::pointwise::ADD, &[Some(x), Some(x), Some(y)], &[]).expect("an empty slice at the end");
        for workers in [1, 2] {
            let mut program = plan_of(&plan).bind(&Device::cpu(workers)).expect("memory");
            program.run().expect("a cpu runs");
            program.check().expect("nothing to compare");
        }
    }

    /// `y = x wᵀ` with a weight of which some panels may have been packed for an earlier run.
    #[test]
    fn what_is_prepared_follows_its_sources() {
        let (r, i, o) = (20, 4, 8);
        for written_by_a_call in [false, true] {
            let mut plan = Builder::new();
            let [x, w] = [("x", r), ("w", o)].map(|(n, rows)| {
                let buffer = plan.buffer(n, DType::F32, rows, i, if rows == r { Life::Input } else { Life::State });
                plan.whole(buffer)
            });
            let y = plan.buffer("y", DType::F32, r, o, Life::Output);
            let y = plan.whole(y);
            plan.call(&ops::gemm::GEMM, &[Some(x), Some(w), None, Some(y)], &[]).expect("shapes agree");
            if written_by_a_call {
                plan.call(&ops::pointwise::FILL, &[Some(w)], &[7.0f32.to_bits()]).expect("shapes agree");
            }
            let mut program = plan_of(&plan).bind(&Device::cpu(1)).expect("memory");
            assert_eq!(program.arena_bytes()[2] > 0, !written_by_a_call);
            program.write("x", &vec![1.0f32; (r * i) as usize]).expect("x");
            let first = |program: &mut Program| {
                program.run().expect("a cpu runs");
                program.read_vec::<f32>("y").expect("y")[0]
            };
            program.write("w", &vec![1.0f32; (o * i) as usize]).expect("w");
            assert_eq!(first(&mut program), 4.0);
            assert_eq!(first(&mut program), if written_by_a_call { 28.0 } else { 4.0 });
            program.write("w", &vec![2.0f32; (o * i) as usize]).expect("w");
            assert_eq!(first(&mut program), 8.0);
            let threes = vec![3.0f32; (o * i) as usize];
            program.write_state_bytes("w", bytemuck::cast_slice(&threes)).expect("w");
            assert_eq!(first(&mut program), 12.0);
            let mut other = plan_of(&plan).bind(&Device::cpu(1)).expect("memory");
            other.write("w", &vec![5.0f32; (o * i) as usize]).expect("w");
            program.adopt_state(&other);
            assert_eq!(first(&mut program), 20.0);
        }
    }

    /// A slice may be narrower than its words, and the host writes words: bits behind the last column mean nothing.
    #[test]
    fn bits_behind_the_last_column_are_ignored() {
        let (r, i, o) = (300, 40, 3);
        let mut plan = Builder::new();
        let whole = |plan: &mut Builder, name, dtype, rows, cols, life| {
            let buffer = plan.buffer(name, dtype, rows, cols, life);
            Some(plan.whole(buffer))
        };
        let dy = whole(&mut plan, "dy", DType::F32, r, o, Life::Input);
        let x = whole(&mut plan, "x", DType::F32, r, i, Life::Input);
        let w = whole(&mut plan, "w", DType::F32, o, i, Life::State);
        let mask = whole(&mut plan, "mask", DType::Bits, o, i, Life::State);
        let dw = whole(&mut plan, "dw", DType::F32, o, i, Life::Output);
        let args = [dy, x, w, mask, None, None, dw, None];
        plan.call(&ops::masked_gemm::MASKED_GEMM_DW, &args, &[]).expect("shapes agree");
        let mut program = plan_of(&plan).bind(&Device::cpu(2)).expect("memory");
        program.write("dy", &vec![1.0f32; (r * o) as usize]).expect("dy");
        program.write("x", &vec![2.0f32; (r * i) as usize]).expect("x");
        program.write("mask", &[1u32, 1 << 20, 0, 1 << 8, 0, 0]).expect("mask");
        program.check().expect("one entry is kept");
        let dw = program.read_vec::<f32>("dw").expect("dw");
        assert_eq!((dw[0], dw.iter().sum::<f32>()), (600.0, 600.0));
    }

    fn plan_of(builder: &Builder) -> Plan {
        builder.clone().finish().expect("names differ")
    }
}
