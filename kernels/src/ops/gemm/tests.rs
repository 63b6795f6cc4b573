use super::*;
use crate::Pool;
use crate::philox;
use crate::simd::Isa;
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
        let (x, dy, w) = (values(7, 0, r, i), values(7, 1, r, o), values(7, 2, o, i));
        let dx = vec![dy.clone(), w, Array::output(DType::F32, r, i)];
        Trial::new(&GEMM_DX, dx, &[]).expect("shapes agree").verify().expect("gemm_dx");
        let dw = vec![dy, x, Array::output(DType::F32, o, i)];
        Trial::new(&GEMM_DW, dw, &[]).expect("shapes agree").verify().expect("gemm_dw");
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
        dims(&GEMM, vec![x.clone(), w.clone(), Array::Absent, out(r, o)]),
        dims(&GEMM_DX, vec![dy.clone(), w, out(r, i)]),
        dims(&GEMM_DW, vec![dy, x, out(o, i)]),
    ];
    trials.iter().for_each(check_apart);
}

/// Holds every variant on rows with gaps against the same without; the last argument that is there is the output.
pub(in crate::ops) fn check_apart(trial: &Trial) {
    let last = trial.args.iter().rposition(|a| *a != Array::Absent).expect("an output");
    for variant in trial.op.cpu.iter().filter(|v| Isa::detect().has(v.needs)) {
        let mut close = trial.clone();
        close.run(variant, &Pool::serial()).expect("stays inside");
        let far = run_apart(trial, variant, last);
        assert_eq!(close.args[last].f32(), far, "{} {}", trial.op.name, variant.name);
    }
}

/// Runs a variant with every f32 matrix spread over longer rows; returns the output without gaps.
fn run_apart(trial: &Trial, variant: &Variant, last: usize) -> Vec<f32> {
    use crate::operand::{BitMat, Call, Mat, MatMut, Operand};
    const MARK: f32 = 77.0;
    const GAP: usize = 3;
    let spread = |a: &Array| match a {
        Array::F32(_, cols, v) => v.chunks(*cols).flat_map(|row| row.iter().copied().chain([MARK; GAP])).collect(),
        _ => Vec::new(),
    };
    let mut data: Vec<Vec<f32>> = trial.args.iter().map(spread).collect();
    let scratch = (variant.scratch)(&trial.dims);
    let (mut shared, mut workers) = (vec![f32::NAN; scratch.shared], vec![f32::NAN; scratch.worker]);
    let mut prepared = vec![f32::NAN; variant.prepared_len(&trial.dims)];
    for stage in variant.prepare.iter().map(|p| p.run).chain([variant.run]) {
        let mut args = std::array::from_fn(|_| Operand::Absent);
        for (at, (array, data)) in trial.args.iter().zip(&mut data).enumerate() {
            args[at] = match array {
                Array::F32(rows, cols, _) => {
                    let (len, rows, cols, ld) = (data.len() - GAP, *rows, *cols, cols + GAP);
                    match at == last {
                        true => Operand::F32Mut(MatMut { data: &mut data[..len], rows, cols, ld }),
                        false => Operand::F32(Mat { data: &data[..len], rows, cols, ld }),
                    }
                }
                Array::Bits(mask) => {
                    let (rows, cols, ld) = (mask.rows() as usize, mask.cols() as usize, mask.words_per_row());
                    Operand::Bits(BitMat { words: mask.words(), rows, cols, ld })
                }
                _ => Operand::Absent,
            };
        }
        let (shared, workers, prepared) = (&mut shared[..], &mut workers[..], &mut prepared[..]);
        stage(&mut Call { shared, prepared, workers, ..Call::new(&trial.dims, &Pool::serial(), args) });
    }
    let cols = trial.args[last].shape().expect("an output").cols as usize;
    let rows = data[last].chunks(cols + GAP);
    rows.flat_map(|row| {
        assert!(row[cols..].iter().all(|v| *v == MARK), "a gap was written");
        row[..cols].to_vec()
    })
    .collect()
}
