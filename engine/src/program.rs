//! A plan on a device.

use crate::backend::cpu;
#[cfg(feature = "cuda")]
use crate::backend::cuda;
#[cfg(feature = "wgpu")]
use crate::backend::webgpu;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::layout::View;
use crate::plan::{Buffer, Life, Plan};
use crate::relay::Message;
use kernels::DType;
use std::borrow::Cow;

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

/// Name, type and bytes of a state buffer.
pub type StateBytes<'p> = (&'p str, DType, Cow<'p, [u8]>);

/// A plan bound to a device: all memory is allocated, every kernel chosen.
pub struct Program {
    pub(crate) plan: Plan,
    pub(crate) on: On,
    /// What it was told, if it runs elsewhere.
    pub(crate) relayed: Option<Vec<Message>>,
}

/// What a plan became on its device. Grows with backends, never with ops.
pub(crate) enum On {
    Cpu(cpu::Bound),
    #[cfg(feature = "cuda")]
    Cuda(cuda::Bound),
    #[cfg(feature = "wgpu")]
    Wgpu(webgpu::Bound),
}

impl Program {
    pub(crate) fn new(
        #[cfg_attr(not(feature = "cuda"), expect(unused_mut))] mut plan: Plan,
        device: Device,
    ) -> Result<Program> {
        let on = match device {
            Device::Cpu(cpu) => On::Cpu(cpu::Bound::new(&plan, cpu)?),
            #[cfg(feature = "cuda")]
            Device::Cuda(gpu) => On::Cuda(cuda::Bound::new(&mut plan, &gpu)?),
            #[cfg(feature = "wgpu")]
            Device::Wgpu(gpu) => On::Wgpu(webgpu::Bound::new(&plan, gpu)?),
        };
        Ok(Program { plan, on, relayed: None })
    }

    /// Runs every call once, in order.
    ///
    /// On a GPU this returns when the work is submitted; reading waits for it. After [`Program::relay`] it is a message.
    ///
    /// # Errors
    /// None on the CPU; [`Error::Lost`] and [`Error::Gpu`] elsewhere.
    ///
    /// Determinism: the same bits for the same buffers on one device, for any number of workers.
    pub fn run(&mut self) -> Result<()> {
        if let Some(messages) = &mut self.relayed {
            messages.push(Message::Run);
            return Ok(());
        }
        match &mut self.on {
            On::Cpu(bound) => (0..self.plan.calls.len()).for_each(|call| bound.run_call(&self.plan, call)),
            #[cfg(feature = "cuda")]
            On::Cuda(bound) => bound.run(0..self.plan.calls.len())?,
            #[cfg(feature = "wgpu")]
            On::Wgpu(bound) => bound.run(0..self.plan.calls.len())?,
        }
        Ok(())
    }

    /// As [`Program::run`], but on a GPU every call is a submission of its own: shows what one for all saves.
    ///
    /// # Errors
    /// Those of [`Program::run`].
    pub fn run_apart(&mut self) -> Result<()> {
        (0..self.plan.calls.len()).try_for_each(|call| self.run_call(call))
    }

    pub(crate) fn run_call(&mut self, call: usize) -> Result<()> {
        match &mut self.on {
            On::Cpu(bound) => bound.run_call(&self.plan, call),
            #[cfg(feature = "cuda")]
            On::Cuda(bound) => bound.run(call..call + 1)?,
            #[cfg(feature = "wgpu")]
            On::Wgpu(bound) => bound.run(call..call + 1)?,
        }
        Ok(())
    }

    /// Waits until everything submitted has run. [`Program::read`] does so by itself.
    ///
    /// # Errors
    /// As [`Program::run`].
    pub fn wait(&self) -> Result<()> {
        match &self.on {
            On::Cpu(_) => Ok(()),
            #[cfg(feature = "cuda")]
            On::Cuda(bound) => bound.wait(),
            #[cfg(feature = "wgpu")]
            On::Wgpu(bound) => bound.wait(),
        }
    }

    /// Name of the variant that runs a call.
    pub(crate) fn variant(&self, call: usize) -> &'static str {
        match &self.on {
            On::Cpu(bound) => bound.variant(call).name,
            #[cfg(feature = "cuda")]
            On::Cuda(bound) => bound.variant(call),
            #[cfg(feature = "wgpu")]
            On::Wgpu(bound) => bound.variant(call),
        }
    }

    /// Submissions of a run: on CUDA the launches of its graph, elsewhere its calls.
    pub fn launches(&self) -> usize {
        match &self.on {
            #[cfg(feature = "cuda")]
            On::Cuda(bound) => bound.launches(),
            _ => self.plan.calls.len(),
        }
    }

    /// The plan, its calls in the order in which they run.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Bytes of state buffers, of everything a step needs, and of what kernels keep of weights that no call writes.
    pub fn arena_bytes(&self) -> [usize; 3] {
        match &self.on {
            On::Cpu(bound) => bound.arena_bytes(),
            #[cfg(feature = "cuda")]
            On::Cuda(bound) => bound.arena_bytes(),
            #[cfg(feature = "wgpu")]
            On::Wgpu(bound) => bound.arena_bytes(),
        }
    }

    /// True if the plan has an input, state or output of this name.
    pub fn has(&self, name: &str) -> bool {
        self.plan.names.contains_key(name)
    }

    /// Fills an input or state. Rows have no gaps; bits are given as words.
    ///
    /// # Errors
    /// [`Error::NoBuffer`] or [`Error::Data`]; on a GPU as [`Program::run`].
    pub fn write<T: Element>(&mut self, name: &str, data: &[T]) -> Result<()> {
        let at = self.find::<T>(name, data.len())?;
        self.store(at, bytemuck::cast_slice(data))
    }

    /// Reads an input, state or output.
    ///
    /// # Errors
    /// [`Error::NoBuffer`] or [`Error::Data`]; on a GPU as [`Program::run`].
    pub fn read<T: Element>(&self, name: &str, data: &mut [T]) -> Result<()> {
        let at = self.find::<T>(name, data.len())?;
        bytemuck::cast_slice_mut(data).copy_from_slice(&self.raw(at)?);
        Ok(())
    }

    /// Reads an input, state or output into a new vector.
    ///
    /// # Errors
    /// As [`Program::read`].
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
    ///
    /// # Errors
    /// None on the CPU; as [`Program::run`] elsewhere.
    pub fn adopt_state(&mut self, from: &Program) -> Result<usize> {
        let mut copies = Vec::new();
        for (name, own) in &self.plan.names {
            let Some(other) = from.plan.names.get(name) else { continue };
            let (info, theirs) = (&self.plan.buffers[own.0 as usize], &from.plan.buffers[other.0 as usize]);
            let same = (info.dtype, info.rows, info.cols) == (theirs.dtype, theirs.rows, theirs.cols);
            if info.life == Life::State && theirs.life == Life::State && same {
                copies.push((own.0 as usize, other.0 as usize));
            }
        }
        for (own, other) in &copies {
            self.store(*own, &from.raw(*other)?)?;
        }
        Ok(copies.len())
    }

    /// Every state buffer as raw bytes, in name order: what a checkpoint holds.
    ///
    /// # Errors
    /// None on the CPU; as [`Program::run`] elsewhere.
    pub fn states(&self) -> Result<Vec<StateBytes<'_>>> {
        let states = self.plan.names.values().filter(|b| self.plan.buffers[b.0 as usize].life == Life::State);
        states
            .map(|b| {
                let info = &self.plan.buffers[b.0 as usize];
                Ok((info.name.as_str(), info.dtype, self.raw(b.0 as usize)?))
            })
            .collect()
    }

    /// Restores a state buffer from the bytes of [`Program::states`].
    ///
    /// # Errors
    /// [`Error::NoBuffer`] or [`Error::Data`]; on a GPU as [`Program::run`].
    pub fn write_state_bytes(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let (at, units) = self.info(name)?;
        let info = &self.plan.buffers[at];
        if info.life != Life::State || info.bytes() != bytes.len() {
            return Err(Error::Data { name: name.to_owned(), expected: (info.dtype, units), found: (1, bytes.len()) });
        }
        self.store(at, bytes)
    }

    fn info(&self, name: &str) -> Result<(usize, usize)> {
        let Buffer(at) = self.plan.names.get(name).ok_or_else(|| Error::NoBuffer { name: name.to_owned() })?;
        Ok((*at as usize, self.plan.buffers[*at as usize].units()))
    }

    pub(crate) fn find<T: Element>(&self, name: &str, count: usize) -> Result<usize> {
        let (at, units) = self.info(name)?;
        let dtype = self.plan.buffers[at].dtype;
        if !T::fits(dtype) || units != count {
            let found = (size_of::<T>(), count);
            return Err(Error::Data { name: name.to_owned(), expected: (dtype, units), found });
        }
        Ok(at)
    }

    /// Bytes of a buffer.
    fn raw(&self, buffer: usize) -> Result<Cow<'_, [u8]>> {
        match &self.on {
            On::Cpu(bound) => Ok(Cow::Borrowed(bound.bytes(&self.plan, buffer))),
            #[cfg(feature = "cuda")]
            On::Cuda(bound) => bound.read(buffer, self.plan.buffers[buffer].bytes()).map(Cow::Owned),
            #[cfg(feature = "wgpu")]
            On::Wgpu(bound) => bound.read(buffer, self.plan.buffers[buffer].bytes()).map(Cow::Owned),
        }
    }

    /// Fills a buffer as the host asked for, whose size is that of `bytes`.
    fn store(&mut self, buffer: usize, bytes: &[u8]) -> Result<()> {
        if let Some(messages) = &mut self.relayed {
            let name = self.plan.buffers[buffer].name.clone();
            messages.push(Message::Write { name, bytes: bytes.to_vec() });
        }
        self.fill(buffer, bytes)
    }

    /// Fills a buffer, whose size is that of `bytes`.
    pub(crate) fn fill(&mut self, buffer: usize, bytes: &[u8]) -> Result<()> {
        match &mut self.on {
            On::Cpu(bound) => bound.bytes_mut(&self.plan, buffer).copy_from_slice(bytes),
            #[cfg(feature = "cuda")]
            On::Cuda(bound) => bound.write(buffer, bytes)?,
            #[cfg(feature = "wgpu")]
            On::Wgpu(bound) => bound.write(buffer, bytes)?,
        }
        Ok(())
    }

    /// An argument as it is placed, and its bytes from the first to the last element.
    pub(crate) fn argument(&self, call: usize, arg: usize) -> Result<Option<(View, Cow<'_, [u8]>)>> {
        match &self.on {
            On::Cpu(bound) => Ok(bound.argument(call, arg).map(|(view, bytes)| (view, Cow::Borrowed(bytes)))),
            #[cfg(feature = "cuda")]
            On::Cuda(bound) => Ok(bound.argument(call, arg)?.map(|(view, bytes)| (view, Cow::Owned(bytes)))),
            #[cfg(feature = "wgpu")]
            On::Wgpu(bound) => Ok(bound.argument(call, arg)?.map(|(view, bytes)| (view, Cow::Owned(bytes)))),
        }
    }
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Program({} calls)", self.plan.calls.len())
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
        let ran = ops::gemm::GEMM.cpu.iter().find(|variant| variant.name == program.variant(0));
        assert_eq!(ran.expect("one of the op").only, Some(DType::Bf16));
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
            program.adopt_state(&other).expect("a cpu copies");
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
