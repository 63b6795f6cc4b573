use super::*;
use crate::Pool;
use crate::contract::Access;
use crate::philox;
use crate::reference::Value;
use crate::trial::{Array, Trial};

/// Uniform values in -1..1.
pub(in crate::ops) fn values(seed: u64, stream: u32, rows: usize, cols: usize) -> Array {
    let word = |n: usize| philox::philox([n as u32, stream, 0, 0], [seed as u32, (seed >> 32) as u32])[0];
    Array::F32(rows, cols, (0..rows * cols).map(|n| word(n) as f32 / 2f32.powi(31) - 1.0).collect())
}

/// Rows, inputs, outputs: around tiles, panels and blocks of every instruction set.
pub(in crate::ops) const SIZES: &[(usize, usize, usize)] = &[
    (0, 5, 7),
    (5, 0, 7),
    (5, 7, 0),
    (1, 1, 1),
    (2, 3, 2),
    (1, 128, 128),
    (3, 31, 33),
    (9, 33, 31),
    (13, 32, 32),
    (12, 65, 5),
    (20, 257, 18),
    (61, 12, 64),
    (61, 13, 67),
    (67, 26, 128),
    (257, 4, 130),
    (300, 1, 40),
    (127, 300, 9),
    (2, 1031, 3),
    (389, 521, 35),
    (7, 35, 523),
    (16, 530, 1050),
    (33, 16, 523),
];

fn biased(seed: u64, r: usize, i: usize, o: usize) -> Trial {
    let args = vec![
        values(seed, 0, r, i),
        values(seed, 1, o, i),
        if seed.is_multiple_of(2) { values(seed, 2, 1, o) } else { Array::Absent },
        Array::output(DType::F32, r, o),
    ];
    Trial::new(&GEMM, args, &[]).expect("shapes agree")
}

#[test]
fn products_agree_with_f64() {
    for (seed, &(r, i, o)) in SIZES.iter().enumerate() {
        for seed in [2 * seed as u64, 2 * seed as u64 + 1] {
            biased(seed, r, i, o).verify().expect("gemm");
        }
        back(7, r, i, o).verify().expect("gemm_dx");
        outer(7, r, i, o).verify().expect("gemm_dw");
    }
}

fn back(seed: u64, r: usize, i: usize, o: usize) -> Trial {
    let args = vec![values(seed, 1, r, o), values(seed, 2, o, i), Array::output(DType::F32, r, i)];
    Trial::new(&GEMM_DX, args, &[]).expect("shapes agree")
}

fn outer(seed: u64, r: usize, i: usize, o: usize) -> Trial {
    let args = vec![values(seed, 1, r, o), values(seed, 0, r, i), Array::output(DType::F32, o, i)];
    Trial::new(&GEMM_DW, args, &[]).expect("shapes agree")
}

/// The same call with a slope as the last argument: an output forward, an input backward.
pub(in crate::ops) fn sloped(trial: Trial) -> Trial {
    let (mut args, slope) = (trial.args, trial.op.args.len() - 1);
    assert_eq!(trial.op.args[slope].name, "slope");
    let out = args[slope - 1].shape().expect("the product is an output");
    args[slope] = match trial.op.args[slope].access {
        Access::Write => Array::output(DType::F32, out.rows as usize, out.cols as usize),
        _ => values(11, 3, out.rows as usize, out.cols as usize),
    };
    Trial::new(trial.op, args, &[]).expect("shapes agree")
}

/// The same call with every argument rounded that may be bf16.
pub(in crate::ops) fn rounded(trial: Trial) -> Trial {
    let args = trial.args.into_iter().zip(trial.op.args);
    let args = args.map(|(a, arg)| if arg.dtypes.contains(&DType::Bf16) { a.rounded() } else { a }).collect();
    Trial::new(trial.op, args, &[]).expect("shapes agree")
}

/// Around blocks of pairs, groups of columns and four panels at a time.
const HALF_SIZES: &[(usize, usize, usize)] =
    &[(1, 127, 160), (2, 129, 300), (3, 7, 130), (5, 1031, 600), (38, 384, 33), (40, 385, 64), (250, 2, 31)];

#[test]
fn bf16_products_agree_with_f64() {
    for (seed, &(r, i, o)) in SIZES.iter().chain(HALF_SIZES).enumerate() {
        for seed in [2 * seed as u64, 2 * seed as u64 + 1] {
            rounded(biased(seed, r, i, o)).verify().expect("gemm of bf16");
        }
        rounded(back(seed as u64, r, i, o)).verify().expect("gemm_dx of bf16");
        // The gradient's panels and pairs run over outputs.
        rounded(back(seed as u64, r, o, i)).verify().expect("gemm_dx of bf16");
        rounded(outer(seed as u64, r, i, o)).verify().expect("gemm_dw of bf16");
    }
}

#[test]
fn slopes_follow_products_of_both_types() {
    for (seed, &(r, i, o)) in SIZES.iter().chain(HALF_SIZES).enumerate() {
        for trial in [biased(seed as u64, r, i, o), back(seed as u64, r, i, o)].map(sloped) {
            trial.verify().expect("product with slope");
            rounded(trial).verify().expect("product of bf16 with slope");
        }
    }
}

/// The largest error relative to the largest output, over sizes, seeds and variants: the tolerance is twice that.
#[test]
fn bf16_errors_are_known() {
    let mut worst = 0.0f64;
    for (r, i, o) in [(20, 16, 40), (20, 128, 40), (20, 512, 40), (20, 1024, 40), (2, 4096, 40)] {
        for seed in 0..8 {
            // Each sums over i elements.
            worst = worst.max(largest_error(&rounded(biased(seed, r, i, o))));
            worst = worst.max(largest_error(&rounded(back(seed, r, o, i))));
            worst = worst.max(largest_error(&rounded(outer(seed, i, r, o))));
        }
    }
    assert!(worst > 0.0 && worst <= f64::from(BF16.floor) / 2.0, "{worst:e}");
}

/// Of all variants, relative to the largest value of the output, which is the last argument that is there.
fn largest_error(trial: &Trial) -> f64 {
    let last = trial.args.iter().rposition(|a| *a != Array::Absent).expect("an output");
    let Value::F(exact) = trial.reference().args[last].clone() else { unreachable!("outputs are f32") };
    let scale = exact.iter().fold(0.0f64, |most, v| most.max(v.abs()));
    let of = |variant: &Variant| {
        let mut got = trial.clone();
        got.run(variant, &Pool::serial()).expect("stays inside");
        let errors = got.args[last].f32().iter().zip(&exact).map(|(y, exact)| (f64::from(*y) - exact).abs() / scale);
        errors.fold(0.0, f64::max)
    };
    trial.variants().map(of).fold(0.0, f64::max)
}

/// Denormal inputs count as zero in some variants; among others that is far below the tolerance.
#[test]
fn bf16_denormals_do_not_matter() {
    for mut trial in [biased(0, 9, 37, 35), back(0, 9, 35, 37), outer(0, 37, 9, 35)].map(rounded) {
        for arg in &mut trial.args[..2] {
            let Array::Bf16(_, _, v) = arg else { unreachable!("factors are bf16") };
            v.iter_mut().step_by(3).for_each(|v| *v = half::bf16::from_bits(v.to_bits() & 0x807F));
        }
        trial.verify().expect("products of bf16");
    }
}

#[test]
fn both_factors_have_one_type() {
    let args = |x: Array, w: Array| vec![x, w, Array::Absent, Array::output(DType::F32, 3, 2)];
    let (x, w) = (values(1, 0, 3, 4), values(1, 1, 2, 4));
    assert!(Trial::new(&GEMM, args(x.clone().rounded(), w.clone().rounded()), &[]).is_ok());
    for (x, w) in [(x.clone().rounded(), w.clone()), (x, w.rounded())] {
        let why = Trial::new(&GEMM, args(x, w), &[]).expect_err("two types");
        assert!(matches!(&why, Mismatch::Relation(text) if text.contains("but x is")), "{why:?}");
    }
}

#[test]
fn bias_sums_agree_with_f64() {
    for (r, o, inner) in
        [(0, 3, 1), (1, 1, 1), (3, 0, 1), (67, 33, 1), (129, 128, 1), (65, 5, 17), (130, 3, 49), (4, 2, 0)]
    {
        let args = vec![values(3, 0, r, o * inner), Array::output(DType::F32, 1, o)];
        Trial::new(&BIAS_DW, args, &[inner as u32]).expect("shapes agree").verify().expect("bias_dw");
    }
}

#[test]
fn inner_size_must_fit() {
    let args = vec![values(3, 0, 2, 12), Array::output(DType::F32, 1, 5)];
    assert!(Trial::new(&BIAS_DW, args, &[3]).is_err());
}

/// Runs `op` on matrices with gaps between rows; gaps keep what they hold.
#[test]
fn rows_may_be_apart() {
    let (r, i, o) = (37, 45, 35);
    let (x, w, dy) = (values(5, 0, r, i), values(5, 1, o, i), values(5, 2, r, o));
    let dims = |op: &'static Contract, args: Vec<Array>| Trial::new(op, args, &[]).expect("shapes agree");
    let out = |rows, cols| Array::output(DType::F32, rows, cols);
    let trials = [
        rounded(back(5, r, i, o)),
        rounded(outer(5, r, i, o)),
        dims(&GEMM, vec![x.clone(), w.clone(), Array::Absent, out(r, o)]),
        rounded(dims(&GEMM, vec![x.clone(), w.clone(), Array::Absent, out(r, o)])),
        dims(&GEMM_DX, vec![dy.clone(), w, out(r, i)]),
        dims(&GEMM_DW, vec![dy, x, out(o, i)]),
        sloped(biased(5, r, i, o)),
        rounded(sloped(biased(5, r, i, o))),
        sloped(back(5, r, i, o)),
        rounded(sloped(back(5, r, i, o))),
    ];
    trials.iter().for_each(check_apart);
}

/// Holds every output of every variant on rows with gaps against the same without.
pub(in crate::ops) fn check_apart(trial: &Trial) {
    for variant in trial.variants() {
        let mut close = trial.clone();
        close.run(variant, &Pool::serial()).expect("stays inside");
        for (at, far) in run_apart(trial, variant) {
            assert_eq!(close.args[at].f32(), far, "{} {} of {}", trial.op.args[at].name, variant.name, trial.op.name);
        }
    }
}

/// Runs a variant with every matrix spread over longer rows; returns the outputs without gaps.
fn run_apart(trial: &Trial, variant: &Variant) -> Vec<(usize, Vec<f32>)> {
    use crate::operand::{BitMat, Call, Mat, MatMut, Operand};
    const MARK: f32 = 77.0;
    const GAP: usize = 3;
    let spread = |a: &Array| match a {
        Array::F32(_, cols, v) => v.chunks(*cols).flat_map(|row| row.iter().copied().chain([MARK; GAP])).collect(),
        _ => Vec::new(),
    };
    let spread_halves = |a: &Array| match a {
        Array::Bf16(_, cols, v) => {
            v.chunks(*cols).flat_map(|row| row.iter().copied().chain([half::bf16::from_f32(MARK); GAP])).collect()
        }
        _ => Vec::new(),
    };
    let halves: Vec<Vec<half::bf16>> = trial.args.iter().map(spread_halves).collect();
    let mut data: Vec<Vec<f32>> = trial.args.iter().map(spread).collect();
    let scratch = (variant.scratch)(&trial.dims);
    let (mut shared, mut workers) = (vec![f32::NAN; scratch.shared], vec![f32::NAN; scratch.worker]);
    let mut prepared = vec![f32::NAN; variant.prepared_len(&trial.dims)];
    for stage in variant.stages() {
        let mut args = std::array::from_fn(|_| Operand::Absent);
        for (at, (array, data)) in trial.args.iter().zip(&mut data).enumerate() {
            args[at] = match array {
                Array::F32(rows, cols, _) => {
                    let (len, rows, cols, ld) = (data.len() - GAP, *rows, *cols, cols + GAP);
                    match trial.op.args[at].access {
                        Access::Read => Operand::F32(Mat { data: &data[..len], rows, cols, ld }),
                        _ => Operand::F32Mut(MatMut { data: &mut data[..len], rows, cols, ld }),
                    }
                }
                Array::Bf16(rows, cols, _) => {
                    let data = &halves[at][..halves[at].len() - GAP];
                    Operand::Bf16(Mat { data, rows: *rows, cols: *cols, ld: cols + GAP })
                }
                Array::Bits(mask) => {
                    let (rows, cols, ld) = (mask.rows() as usize, mask.cols() as usize, mask.words_per_row());
                    Operand::Bits(BitMat { words: mask.words(), rows, cols, ld })
                }
                _ => Operand::Absent,
            };
        }
        let (shared, workers, prepared) = (&mut shared[..], &mut workers[..], &mut prepared[..]);
        stage.run(&mut Call { shared, prepared, workers, ..Call::new(&trial.dims, &Pool::serial(), args) });
    }
    let written = |at: &usize| trial.op.args[*at].access != Access::Read && trial.args[*at] != Array::Absent;
    let outputs = (0..trial.args.len()).filter(written).map(|at| {
        let cols = trial.args[at].shape().expect("is there").cols as usize;
        let rows = data[at].chunks(cols + GAP).flat_map(|row| {
            assert!(row[cols..].iter().all(|v| *v == MARK), "a gap was written");
            row[..cols].to_vec()
        });
        (at, rows.collect())
    });
    outputs.collect()
}
