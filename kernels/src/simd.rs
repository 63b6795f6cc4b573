//! Instruction sets, found once and passed on as a value.

#[cfg(target_arch = "x86_64")]
mod amx;

/// Instruction sets the kernels are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Plain Rust.
    Scalar,
    /// x86-64 with AVX2, FMA, F16C, BMI1, BMI2 and POPCNT.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ and VL, and everything of [`Isa::Avx2`].
    Avx512,
    /// x86-64 with everything of [`Isa::Avx512`] and its products of bf16 pairs.
    Avx512Bf16,
    /// x86-64 with everything of [`Isa::Avx512Bf16`] and products of bf16 tiles (AMX), granted by the system.
    Amx,
    /// aarch64 (NEON is part of it).
    Neon,
}

impl Isa {
    /// All of them, those of one architecture ascending.
    pub const ALL: [Isa; 6] = [Isa::Scalar, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16, Isa::Amx, Isa::Neon];

    /// The best instruction set of this CPU.
    ///
    /// Where the CPU has matrix tiles this asks Linux for them, which cannot be taken back: from then on the system refuses
    /// signal stacks too small to save them, in every thread.
    pub fn detect() -> Isa {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c")
                && is_x86_feature_detected!("bmi1")
                && is_x86_feature_detected!("bmi2")
                && is_x86_feature_detected!("popcnt");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            match (avx2, avx512, is_x86_feature_detected!("avx512bf16")) {
                (true, true, true) if amx::available() => Isa::Amx,
                (true, true, true) => Isa::Avx512Bf16,
                (true, true, false) => Isa::Avx512,
                (true, false, _) => Isa::Avx2,
                _ => Isa::Scalar,
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            Isa::Neon
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        {
            Isa::Scalar
        }
    }

    /// True if code that needs `needs` runs on a CPU of this set.
    pub fn has(self, needs: Isa) -> bool {
        match needs {
            Isa::Scalar => true,
            Isa::Neon => self == Isa::Neon,
            _ => self != Isa::Neon && needs <= self,
        }
    }

    /// Name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Avx512Bf16 => "avx512_bf16",
            Isa::Amx => "amx",
            Isa::Neon => "neon",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_those_below_it() {
        let x86 = [Isa::Scalar, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16, Isa::Amx];
        for (at, own) in x86.iter().enumerate() {
            for (below, needs) in x86.iter().enumerate() {
                assert_eq!(own.has(*needs), below <= at, "{} on {}", needs.name(), own.name());
            }
            assert_eq!((own.has(Isa::Neon), Isa::Neon.has(*own)), (false, *own == Isa::Scalar));
        }
        assert!(Isa::detect().has(Isa::Scalar));
    }
}
