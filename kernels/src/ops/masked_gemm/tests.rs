use super::*;
use crate::Pool;
use crate::bits::BitMask;
use crate::ops::gemm::tests::{SIZES, check_apart, rounded, sloped, values};
use crate::ops::gemm::{GEMM, GEMM_DW, GEMM_DX};
use crate::philox;
use crate::trial::{Array, Trial, same_bits};
use proptest::prelude::*;

/// Bits that are set with probability `keep`.
pub(in crate::ops) fn bits(seed: u64, stream: u32, rows: usize, cols: usize, keep: f64) -> BitMask {
    let word = |n: usize| philox::philox([n as u32, stream, 1, 0], [seed as u32, (seed >> 32) as u32])[0];
    let set = |n: usize| f64::from(word(n)) < keep * 2f64.powi(32);
    BitMask::from_flags(rows as u32, cols as u32, (0..rows * cols).map(set))
}

/// The same array with NaN where bits are clear.
fn hidden(array: Array, mask: &BitMask) -> Array {
    let Array::F32(rows, cols, mut v) = array else { panic!("not f32") };
    v.iter_mut().zip(mask.flags()).filter(|(_, kept)| !kept).for_each(|(v, _)| *v = f32::NAN);
    Array::F32(rows, cols, v)
}

/// One tensor of every kind, NaN behind cleared bits.
struct Case {
    x: Array,
    dy: Array,
    w: Array,
    mask: BitMask,
    bias: Array,
    bias_mask: BitMask,
    r: usize,
    i: usize,
    o: usize,
}

fn case(seed: u64, (r, i, o): (usize, usize, usize), keep: f64) -> Case {
    let (mask, bias_mask) = (bits(seed, 0, o, i, keep), bits(seed, 1, 1, o, keep));
    Case {
        x: values(seed, 0, r, i),
        dy: values(seed, 1, r, o),
        w: hidden(values(seed, 2, o, i), &mask),
        bias: hidden(values(seed, 3, 1, o), &bias_mask),
        mask,
        bias_mask,
        r,
        i,
        o,
    }
}

fn trial(op: &'static Contract, args: Vec<Array>) -> Trial {
    Trial::new(op, args, &[]).expect("shapes agree")
}

fn out(rows: usize, cols: usize) -> Array {
    Array::output(DType::F32, rows, cols)
}

impl Case {
    fn forward(&self) -> Trial {
        let Case { x, w, mask, bias, bias_mask, .. } = self.clone_parts();
        trial(&MASKED_GEMM, vec![x, w, Array::Bits(mask), bias, Array::Bits(bias_mask), out(self.r, self.o)])
    }

    fn back(&self) -> Trial {
        let Case { dy, w, mask, .. } = self.clone_parts();
        trial(&MASKED_GEMM_DX, vec![dy, w, Array::Bits(mask), out(self.r, self.i)])
    }

    /// `candidates` must be the entries whose weight is finite.
    fn outer(&self, seed: u64, score: bool, candidates: Option<BitMask>, ds: bool) -> Trial {
        let Case { x, dy, mask, .. } = self.clone_parts();
        let (o, i) = (self.o, self.i);
        let w = match &candidates {
            Some(finite) => hidden(values(seed, 2, o, i), finite),
            None => values(seed, 2, o, i),
        };
        let w = if ds { w } else { self.w.clone() };
        let Array::F32(_, _, mut s) = values(seed, 4, o, i) else { unreachable!("values are f32") };
        s.iter_mut().step_by(5).for_each(|s| *s = 0.0);
        let score = if score { Array::F32(o, i, s) } else { Array::Absent };
        let candidates = candidates.map_or(Array::Absent, Array::Bits);
        let ds = if ds { out(o, i) } else { Array::Absent };
        trial(&MASKED_GEMM_DW, vec![dy, x, w, Array::Bits(mask), score, candidates, out(o, i), ds])
    }

    fn clone_parts(&self) -> Case {
        let Case { x, dy, w, mask, bias, bias_mask, r, i, o } = self;
        let (r, i, o) = (*r, *i, *o);
        let (mask, bias_mask) = (mask.clone(), bias_mask.clone());
        Case { x: x.clone(), dy: dy.clone(), w: w.clone(), bias: bias.clone(), mask, bias_mask, r, i, o }
    }
}

fn check(seed: u64, sizes: (usize, usize, usize), keep: f64) {
    let c = case(seed, sizes, keep);
    c.forward().verify().expect("masked_gemm");
    rounded(c.forward()).verify().expect("masked_gemm of bf16");
    c.back().verify().expect("masked_gemm_dx");
    rounded(c.back()).verify().expect("masked_gemm_dx of bf16");
    for trial in [c.forward(), c.back()].map(sloped) {
        trial.verify().expect("product with slope");
        rounded(trial).verify().expect("product of bf16 with slope");
    }
    let candidates = bits(seed, 2, c.o, c.i, 0.6);
    c.outer(seed, true, Some(candidates.clone()), true).verify().expect("masked_gemm_dw");
    rounded(c.outer(seed, true, Some(candidates.clone()), true)).verify().expect("masked_gemm_dw of bf16");
    c.outer(seed, false, Some(candidates), true).verify().expect("masked_gemm_dw without score");
    c.outer(seed, true, None, true).verify().expect("masked_gemm_dw with all candidates");
    c.outer(seed, true, None, false).verify().expect("masked_gemm_dw without ds");
    rounded(c.outer(seed, true, None, false)).verify().expect("masked_gemm_dw of bf16 without ds");
}

#[test]
fn products_agree_with_f64() {
    for (seed, &sizes) in SIZES.iter().enumerate() {
        check(seed as u64, sizes, [0.5, 0.02, 0.0, 1.0][seed % 4]);
    }
}

/// Fewer strips than workers and enough weights: outputs are cut instead of rows, some of them alone in the last tile.
#[test]
fn few_rows_are_shared_without_changing_bits() {
    for (seed, sizes) in [(60, 200, 257), (5, 700, 420), (70, 130, 385)].into_iter().enumerate() {
        let c = case(seed as u64, sizes, 0.1);
        for trial in [c.forward(), c.back(), sloped(c.forward()), sloped(c.back())] {
            for variant in trial.variants().filter(|v| v.name.starts_with("lists")) {
                let run = |workers| {
                    let mut trial = trial.clone();
                    trial.run(variant, &Pool::new(workers)).expect("stays inside its outputs");
                    trial
                };
                let one = run(1);
                for workers in [2, 3, 8] {
                    assert!(same_bits(&one.args, &run(workers).args), "{} {sizes:?} {workers}", variant.name);
                }
            }
            trial.verify().expect("agrees with f64");
        }
    }
}

/// Sizes around the strips, pieces and parts of the sampled gradient.
#[test]
fn sampled_gradients_agree_with_f64() {
    let sizes = [(0, 3, 3), (127, 64, 32), (128, 65, 33), (129, 63, 31), (513, 130, 70), (1100, 20, 5), (700, 1, 1)];
    for (seed, sizes) in sizes.into_iter().enumerate() {
        for keep in [0.0, 0.03, 0.3, 1.0] {
            case(seed as u64, sizes, keep).outer(seed as u64, false, None, false).verify().expect("sampled");
        }
    }
}

#[test]
fn rows_may_be_apart() {
    for (seed, sizes) in [(37, 45, 35), (150, 135, 40), (9, 3, 70)].into_iter().enumerate() {
        let c = case(seed as u64, sizes, 0.3);
        let [forward, back] = [c.forward(), c.back()];
        let [with_gelu, with_slope] = [&forward, &back].map(|trial| sloped(trial.clone()));
        let trials = [forward, back, with_gelu, with_slope, c.outer(seed as u64, false, None, false)];
        trials.iter().for_each(check_apart);
        trials.map(rounded).iter().for_each(check_apart);
    }
}

#[test]
fn bias_may_lack_a_mask() {
    let c = case(3, (21, 40, 37), 0.3);
    let bias = values(3, 3, 1, 37);
    let args = vec![c.x, c.w, Array::Bits(c.mask), bias, Array::Absent, out(21, 37)];
    trial(&MASKED_GEMM, args).verify().expect("masked_gemm");
}

#[test]
fn bias_gradients_agree_with_f64() {
    for (seed, (r, o, inner)) in [(0, 3, 1), (1, 1, 1), (67, 33, 1), (129, 128, 1), (65, 5, 17)].into_iter().enumerate()
    {
        let seed = seed as u64;
        let candidates = bits(seed, 2, 1, o, 0.6);
        let bias = hidden(values(seed, 2, 1, o), &candidates);
        for ds in [true, false] {
            let args = vec![
                values(seed, 0, r, o * inner),
                bias.clone(),
                Array::Bits(bits(seed, 1, 1, o, 0.5)),
                if seed == 2 { Array::Absent } else { values(seed, 3, 1, o) },
                Array::Bits(candidates.clone()),
                out(1, o),
                if ds { out(1, o) } else { Array::Absent },
            ];
            let trial = Trial::new(&MASKED_BIAS_DW, args, &[inner as u32]).expect("shapes agree");
            trial.verify().expect("masked_bias_dw");
        }
    }
}

/// Outputs of a variant of an op, concatenated.
fn run(mut trial: Trial, variant: &Variant) -> Vec<u32> {
    trial.run(variant, &Pool::serial()).expect("stays inside");
    let written = trial.op.args.iter().zip(&trial.args).filter(|(a, _)| a.access == Access::Write);
    written.filter(|(_, v)| **v != Array::Absent).flat_map(|(_, v)| v.f32().iter().map(|v| v.to_bits())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_size_and_density(seed: u64, r in 0usize..70, i in 0usize..280, o in 0usize..280, keep in 0.0..1.0f64) {
        let c = case(seed, (r, i, o), keep);
        prop_assert_eq!(c.forward().verify(), Ok(()));
        prop_assert_eq!(rounded(c.forward()).verify(), Ok(()));
        prop_assert_eq!(c.back().verify(), Ok(()));
        prop_assert_eq!(rounded(c.back()).verify(), Ok(()));
        prop_assert_eq!(c.outer(seed, true, Some(bits(seed, 2, o, i, 0.7)), true).verify(), Ok(()));
        prop_assert_eq!(c.outer(seed, false, None, false).verify(), Ok(()));
        prop_assert_eq!(rounded(c.outer(seed, false, None, true)).verify(), Ok(()));
    }

    /// With all bits set a variant gives the bits of the dense op's variant of the same name.
    #[test]
    fn all_ones_is_dense(seed: u64, r in 0usize..70, i in 0usize..100, o in 0usize..100) {
        let c = case(seed, (r, i, o), 1.0);
        let (x, dy, w, bias) = (c.x.clone(), c.dy.clone(), c.w.clone(), c.bias.clone());
        let forward = trial(&GEMM, vec![x.clone(), w.clone(), bias, out(r, o)]);
        let dense = [
            forward,
            trial(&GEMM_DX, vec![dy.clone(), w, out(r, i)]),
            trial(&GEMM_DW, vec![dy, x, out(o, i)]),
        ];
        let masked = [c.forward(), c.back(), c.outer(seed, true, None, false)];
        let halves = dense.clone().map(rounded).into_iter().zip(masked.clone().map(rounded));
        for (dense, masked) in dense.into_iter().zip(masked).chain(halves) {
            for variant in dense.variants() {
                let same = masked.op.cpu.iter().find(|v| v.name == variant.name).expect("both ops have tiles");
                let both = [run(masked.clone(), same), run(dense.clone(), variant)];
                prop_assert_eq!(&both[0], &both[1], "{} {}", dense.op.name, variant.name);
            }
        }
    }
}
