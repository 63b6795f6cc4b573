use super::*;
use crate::bits::BitMask;
use crate::contract::DType;
use crate::operand::{BitMatMut, Call, Mat, Operand};
use crate::par::Pool;
use crate::philox::{Rng, Stream};
use crate::trial::{Array, Trial};
use proptest::prelude::*;

const SIZES: [(usize, usize); 14] = [
    (0, 5),
    (3, 0),
    (1, 1),
    (1, 2),
    (128, 1),
    (2, 31),
    (3, 32),
    (5, 33),
    (1, 127),
    (18, 128),
    (64, 65),
    (71, 73),
    (1, 40_009),
    (130, 521),
];

fn bits(rng: &mut Rng, rows: usize, cols: usize) -> BitMask {
    let flags: Vec<bool> = (0..rows * cols).map(|_| rng.below(2) == 0).collect();
    BitMask::from_flags(rows as u32, cols as u32, flags)
}

fn verify(score: Array, candidates: Array, base: Array, k: u32, ties: u32) -> Result<(), String> {
    let shape = score.shape().unwrap();
    let mask = Array::output(DType::Bits, shape.rows as usize, shape.cols as usize);
    let k = Array::U32(1, 1, vec![k]);
    Trial::new(&TOPK, vec![score, candidates, base, k, mask], &[ties]).unwrap().verify()
}

/// Values of one kind of trouble each.
fn scores(rng: &mut Rng, n: usize, kind: u32) -> Vec<f32> {
    let tiny = f32::from_bits(1);
    let values = [0.0, -0.0, tiny, -tiny, 1.0, -1.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX];
    (0..n)
        .map(|at| match kind {
            0 => rng.normal() as f32,
            1 => rng.below(7) as f32 - 3.0,
            2 => -0.25,
            3 => values[rng.below(values.len() as u64) as usize],
            // Mostly denormal, so the upper digits say nothing.
            4 => f32::from_bits(rng.below(1 << 20) as u32),
            // Sorted: no sample by rows or blocks is representative.
            5 => at as f32,
            // A warm start: a few entries share one magnitude, the others are smaller.
            _ if rng.below(12) == 0 => [0.1, -0.1][rng.below(2) as usize],
            _ => rng.uniform(-0.09, 0.09) as f32,
        })
        .collect()
}

#[test]
fn equals_sorting_at_awkward_sizes() {
    let mut rng = Rng::new(1, Stream::Scores, [0, 0]);
    for (o, i) in SIZES {
        let n = (o * i) as u32;
        for kind in 0..7 {
            let score = Array::F32(o, i, scores(&mut rng, o * i, kind));
            for k in [0, 1, 2, n / 12, n / 2, n.saturating_sub(1), n, n + 1, u32::MAX] {
                let ties = rng.below(2) as u32;
                let [candidates, base] = [(); 2].map(|_| match rng.below(3) {
                    0 => Array::Absent,
                    _ => Array::Bits(bits(&mut rng, o, i)),
                });
                let made = verify(score.clone(), candidates, base, k, ties);
                assert_eq!(made, Ok(()), "{o} x {i}, kind {kind}, k {k}, ties {ties}");
            }
        }
    }
}

/// The bracket misses (every sampled entry is large, few others are) or its keys do not fit: the histograms decide.
#[test]
fn a_misleading_sample_changes_nothing() {
    let n = 20_000;
    let stride = n / 1024;
    let mut missed: Vec<f32> = (0..n).map(|at| at as f32 * 1e-6).collect();
    for at in 0..1024 {
        let offset = (at as u32).wrapping_mul(0x9E37_79B9);
        missed[at * stride + ((u64::from(offset) * stride as u64) >> 32) as usize] = 5.0 + at as f32;
    }
    let crowded = (0..n).map(|at| 1.0 + (at % 3) as f32 * f32::EPSILON).collect();
    for score in [missed, crowded] {
        for k in [1, 10, 1000, 6666, 6667, 7000, 19_999] {
            for ties in [0, 1] {
                let score = Array::F32(1, n, score.clone());
                assert_eq!(verify(score, Array::Absent, Array::Absent, k, ties), Ok(()), "k {k}, ties {ties}");
            }
        }
    }
}

#[test]
fn nan_outside_the_candidates_is_not_chosen() {
    let score = Array::F32(1, 4, vec![f32::NAN, 1.0, -2.0, f32::NAN]);
    let open = BitMask::from_flags(1, 4, [false, true, true, false]);
    let k = Array::U32(1, 1, vec![1]);
    let args = vec![score, Array::Bits(open), Array::Absent, k, Array::output(DType::Bits, 1, 4)];
    let mut t = Trial::new(&TOPK, args, &[0]).unwrap();
    t.run(TOPK.best(crate::simd::Isa::detect()), &Pool::serial()).unwrap();
    assert_eq!(t.args[4], Array::Bits(BitMask::from_flags(1, 4, [false, false, true, false])));
}

#[test]
fn rows_may_lie_apart() {
    let (rows, cols, ld) = (9, 70, 83);
    let mut rng = Rng::new(4, Stream::Scores, [0, 0]);
    let score = scores(&mut rng, rows * ld, 0);
    let dense: Vec<f32> = (0..rows * cols).map(|at| score[at / cols * ld + at % cols]).collect();
    let isa = crate::simd::Isa::detect();
    for variant in TOPK.cpu.iter().filter(|v| isa.has(v.needs)) {
        let k = Array::U32(1, 1, vec![200]);
        let dense = Array::F32(rows, cols, dense.clone());
        let args = vec![dense, Array::Absent, Array::Absent, k, Array::output(DType::Bits, rows, cols)];
        let mut t = Trial::new(&TOPK, args, &[0]).unwrap();
        t.run(variant, &Pool::serial()).unwrap();
        let Array::Bits(expected) = &t.args[4] else { unreachable!("the output is bits") };
        let mut words = vec![0xA5A5_A5A5; rows * 5];
        let mut shared = vec![f32::NAN; (variant.scratch)(&t.dims).shared];
        let mut args = [const { Operand::Absent }; 8];
        args[0] = Operand::F32(Mat { data: &score, rows, cols, ld });
        args[3] = Operand::U32(Mat::dense(&[200], 1, 1));
        args[4] = Operand::BitsMut(BitMatMut { words: &mut words, rows, cols, ld: 5 });
        let (dims, pool) = (&t.dims, &Pool::serial());
        variant.stage().run(&mut Call { shared: &mut shared, ..Call::new(dims, pool, args) });
        for (row, expected) in words.chunks(5).zip(expected.words().chunks(3)) {
            assert_eq!(row, [expected, &[0xA5A5_A5A5; 2]].concat(), "{}", variant.name);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn exactly_k_candidates_and_none_below_one_left_out(o in 1usize..40, i in 1usize..300, kind in 0u32..7, share in 0.0..1.0f64, seed: u64) {
        let mut rng = Rng::new(seed, Stream::Scores, [0, 0]);
        let values = scores(&mut rng, o * i, kind);
        let open = bits(&mut rng, o, i);
        let k = (share * open.count() as f64) as usize;
        let args = vec![
            Array::F32(o, i, values.clone()),
            Array::Bits(open.clone()),
            Array::Absent,
            Array::U32(1, 1, vec![k as u32]),
            Array::output(DType::Bits, o, i),
        ];
        let mut t = Trial::new(&TOPK, args, &[0]).unwrap();
        t.run(TOPK.best(crate::simd::Isa::detect()), &Pool::serial()).unwrap();
        let Array::Bits(mask) = &t.args[4] else { unreachable!("the output is bits") };
        prop_assert_eq!(mask.count(), k);
        prop_assert_eq!(mask.and_not(&open).count(), 0);
        let key = |kept: bool| {
            let kept = mask.flags().zip(open.flags()).map(move |(m, open)| open && m == kept);
            values.iter().zip(kept).filter(|(_, is)| *is).map(|(v, _)| v.to_bits() & 0x7FFF_FFFF).collect::<Vec<_>>()
        };
        if let (Some(least), Some(most)) = (key(true).iter().min(), key(false).iter().max()) {
            prop_assert!(least >= most);
        }
    }
}
