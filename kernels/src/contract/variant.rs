//! CPU variants: their code, what they need, and the only door to the code from outside.

use super::{DType, Dims};
use crate::operand::Call;
use crate::simd::Isa;

/// Workspace of a CPU variant, in f32 elements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scratch {
    /// Shared by all workers of one call.
    pub shared: usize,
    /// For each worker.
    pub worker: usize,
}

impl Scratch {
    /// For a number of workers together: each part is whole cache lines, so that all of them begin at one if the first does.
    pub fn of_workers(&self, workers: usize) -> usize {
        const LINE: usize = 64 / size_of::<f32>();
        self.worker.div_ceil(LINE).saturating_mul(LINE).saturating_mul(workers)
    }
}

/// Work that depends on some arguments alone, such as packing a weight. It fills [`Call::prepared`] before the first
/// run and again only when one of those arguments has changed.
#[derive(Clone, Copy)]
pub struct Prepare {
    /// Arguments that it reads, as indices into [`Contract::args`](super::Contract::args).
    pub from: &'static [usize],
    /// Length of [`Call::prepared`].
    pub len: fn(&Dims) -> usize,
    /// The code.
    pub run: fn(&mut Call<'_>),
}

/// The code of a variant or of its first stage, and the instruction set that it needs.
///
/// Running it is the one way to that code from outside, and it looks at the CPU first.
#[derive(Clone, Copy)]
pub struct Stage {
    needs: Isa,
    run: fn(&mut Call<'_>),
}

impl Stage {
    /// Runs the code on a call of the variant's op.
    ///
    /// # Panics
    /// If the CPU lacks the instructions, or the call's arguments are not those of the contract.
    pub fn run(self, call: &mut Call<'_>) {
        assert!(Isa::detect().has(self.needs), "this CPU has no {}", self.needs.name());
        (self.run)(call);
    }
}

/// One CPU implementation.
#[derive(Clone, Copy)]
pub struct Variant {
    /// How it works, not how good it is.
    pub name: &'static str,
    /// Instruction set it needs.
    pub needs: Isa,
    /// The one element type of [`Contract::typed_arg`](super::Contract::typed_arg) it is for; `None` for all that no variant of the op names.
    pub only: Option<DType>,
    /// Workspace for given sizes.
    pub scratch: fn(&Dims) -> Scratch,
    /// Not public, nor is the code: outside they would be called without a look at the CPU.
    prepare: Option<Prepare>,
    stage: Stage,
}

impl Variant {
    /// Runs on every CPU.
    pub const fn any(name: &'static str, run: fn(&mut Call<'_>)) -> Variant {
        Variant::needs(Isa::Scalar, name, run)
    }

    /// Runs where `needs` is available.
    pub const fn needs(needs: Isa, name: &'static str, run: fn(&mut Call<'_>)) -> Variant {
        let scratch = |_: &Dims| Scratch { shared: 0, worker: 0 };
        Variant { name, needs, only: None, scratch, prepare: None, stage: Stage { needs, run } }
    }

    /// The same variant, for calls alone whose [`Contract::typed_arg`](super::Contract::typed_arg) has this element type.
    pub const fn only(self, dtype: DType) -> Variant {
        Variant { only: Some(dtype), ..self }
    }

    /// The same variant with a workspace.
    pub const fn with_scratch(self, scratch: fn(&Dims) -> Scratch) -> Variant {
        Variant { scratch, ..self }
    }

    /// The same variant with a first stage.
    pub const fn preparing(self, prepare: Prepare) -> Variant {
        Variant { prepare: Some(prepare), ..self }
    }

    /// The code.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// The code that fills [`Call::prepared`], if it keeps anything between calls.
    pub fn first_stage(&self) -> Option<Stage> {
        self.prepare.map(|p| Stage { needs: self.stage.needs, run: p.run })
    }

    /// The first stage, if there is one, and the code.
    pub fn stages(&self) -> impl Iterator<Item = Stage> + use<> {
        self.first_stage().into_iter().chain([self.stage])
    }

    /// Arguments that the first stage reads, as indices into [`Contract::args`](super::Contract::args).
    pub fn prepares_from(&self) -> &'static [usize] {
        self.prepare.map_or(&[], |p| p.from)
    }

    /// Elements of [`Call::prepared`] for given sizes.
    pub fn prepared_len(&self, dims: &Dims) -> usize {
        self.prepare.map_or(0, |p| (p.len)(dims))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operand::Operand;
    use crate::par::Pool;

    #[test]
    #[should_panic(expected = "this CPU has no")]
    fn code_for_another_cpu_does_not_run() {
        let foreign = if cfg!(target_arch = "aarch64") { Isa::Avx2 } else { Isa::Neon };
        let mut posing = Variant::needs(foreign, "foreign", |_| ());
        posing.needs = Isa::Scalar;
        let (dims, pool) = (Dims::new(&[]), Pool::serial());
        posing.stage().run(&mut Call::new(&dims, &pool, std::array::from_fn(|_| Operand::Absent)));
    }
}
