//! Every variant against f64, over shapes that break index arithmetic.

use super::{CONV, CONV_DW, CONV_DX};
use crate::bits::BitMask;
use crate::contract::{Access, Contract, DType, MAX_ARGS, Mismatch};
use crate::operand::{Call, Mat, MatMut, Operand};
use crate::par::Pool;
use crate::philox::{Rng, Stream};
use crate::trial::{Array, Trial};
use proptest::prelude::*;

/// One layer: images, outputs, the six scalars, element type and optional arguments.
#[derive(Clone, Copy, Debug)]
struct Case {
    n: usize,
    o: usize,
    scalars: [u32; 6],
    bytes: bool,
    /// Share of set bits; `None` leaves the mask out.
    mask: Option<f64>,
    /// Bias of `conv`; score and `ds` of `conv_dw`.
    extra: bool,
    /// Mask of the bias; candidates.
    extra_mask: bool,
    seed: u64,
}

impl Case {
    fn dense(n: usize, o: usize, scalars: [u32; 6]) -> Case {
        Case { n, o, scalars, bytes: false, mask: None, extra: false, extra_mask: false, seed: 1 }
    }

    fn masked(self) -> Case {
        Case { mask: Some(0.4), extra: true, extra_mask: true, ..self }
    }

    fn bytes(self) -> Case {
        Case { bytes: true, ..self }
    }

    /// Elements of an image, of a weight row, of an output row.
    fn sizes(&self) -> (usize, usize, usize) {
        let [c, h, w, kh, kw, s] = self.scalars.map(|v| v as usize);
        (c * h * w, c * kh * kw, self.o * ((h - kh) / s + 1) * ((w - kw) / s + 1))
    }

    /// The three calls. NaN lies behind cleared bits of every masked operand.
    fn trials(&self) -> [Trial; 3] {
        let (a, j, e) = self.sizes();
        let (n, o) = (self.n, self.o);
        let mut rng = Rng::new(self.seed, Stream::Data, [0, 0]);
        let mut floats =
            |rows: usize, cols: usize| Array::F32(rows, cols, (0..rows * cols).map(|_| rng.normal() as f32).collect());
        let mut bits = Rng::new(self.seed, Stream::Scores, [0, 0]);
        let mut mask = |rows: usize, cols: usize, share: f64| {
            let flags: Vec<bool> = (0..rows * cols).map(|_| bits.unit() < share).collect();
            BitMask::from_flags(rows as u32, cols as u32, flags)
        };
        let mut bytes = Rng::new(self.seed, Stream::Batch, [0, 0]);
        let x = match self.bytes {
            true => Array::U8(n, a, (0..n * a).map(|_| bytes.u32() as u8).collect()),
            false => floats(n, a),
        };
        let (w, bias, dy, mut score) = (floats(o, j), floats(1, o), floats(n, e), floats(o, j));
        if let Array::F32(_, _, score) = &mut score {
            score.iter_mut().step_by(7).for_each(|s| *s = 0.0);
        }
        let kept = self.mask.map(|share| mask(o, j, share));
        let (bias_mask, candidates) = (mask(1, o, 0.5), mask(o, j, 0.6));
        let extra = |keep: bool, array: Array| if keep { array } else { Array::Absent };
        let bits = |mask: &Option<BitMask>| mask.clone().map_or(Array::Absent, Array::Bits);
        let hidden = kept.as_ref().map_or(w.clone(), |kept| poisoned(w.clone(), kept));
        // ds reads w at every candidate, so there NaN lies outside the candidates only.
        let (score, candidates_arg, w_dw) = match self.extra_mask {
            true => (poisoned(score, &candidates), Array::Bits(candidates.clone()), poisoned(w, &candidates)),
            false => (score, Array::Absent, w),
        };
        let bias = if self.extra_mask { poisoned(bias, &bias_mask) } else { bias };
        let bias_mask = extra(self.extra_mask, Array::Bits(bias_mask));
        let out = |rows, cols| Array::output(DType::F32, rows, cols);
        let new = |op, args| Trial::new(op, args, &self.scalars).expect("the sizes fit");
        [
            new(&CONV, vec![x.clone(), hidden.clone(), bits(&kept), extra(self.extra, bias), bias_mask, out(n, e)]),
            new(&CONV_DX, vec![dy.clone(), hidden, bits(&kept), out(n, a)]),
            new(
                &CONV_DW,
                vec![
                    dy,
                    x,
                    w_dw,
                    bits(&kept),
                    extra(self.extra, score),
                    candidates_arg,
                    out(o, j),
                    extra(self.extra, out(o, j)),
                ],
            ),
        ]
    }

    fn verify(&self) -> Result<(), String> {
        self.trials().iter().try_for_each(|t| t.verify().map_err(|e| format!("{self:?}: {e}")))
    }
}

/// NaN wherever the bit is clear.
fn poisoned(array: Array, mask: &BitMask) -> Array {
    match array {
        Array::F32(r, c, v) => {
            Array::F32(r, c, v.iter().zip(mask.flags()).map(|(v, keep)| if keep { *v } else { f32::NAN }).collect())
        }
        other => other,
    }
}

#[test]
fn shapes_match_the_reference() {
    let cases = [
        // The three layers of the image encoder, scaled down in n only.
        Case::dense(2, 32, [4, 84, 84, 8, 8, 4]).bytes(),
        Case::dense(2, 64, [32, 20, 20, 4, 4, 2]),
        Case::dense(3, 64, [64, 9, 9, 3, 3, 1]),
        // One element of everything.
        Case::dense(1, 1, [1, 1, 1, 1, 1, 1]),
        // One output position; kernel as large as the image.
        Case::dense(17, 5, [3, 4, 7, 4, 7, 3]),
        // Stride over the kernel, rows and columns left over.
        Case::dense(3, 7, [2, 11, 13, 2, 3, 5]),
        // Odd channels, oblong images and kernels.
        Case::dense(3, 33, [5, 9, 14, 3, 2, 1]),
        Case::dense(1, 17, [3, 13, 6, 5, 1, 2]),
        // One wide, one high; more than one panel of outputs and of channels.
        Case::dense(2, 130, [1, 1, 40, 1, 9, 1]),
        Case::dense(2, 3, [70, 12, 1, 4, 1, 3]),
        Case::dense(1, 100, [67, 5, 5, 3, 3, 1]),
        // More images than blocks of partial sums, and a last block that is short.
        Case::dense(35, 9, [2, 6, 5, 3, 3, 1]),
        // Long sums: 200 images of 90 positions.
        Case::dense(200, 3, [1, 12, 11, 3, 3, 1]),
    ];
    for case in cases {
        for case in [case, case.masked(), case.bytes(), case.masked().bytes()] {
            case.verify().unwrap();
        }
    }
}

#[test]
fn no_images_give_empty_outputs_and_zero_gradients() {
    let case = Case::dense(0, 6, [3, 8, 8, 3, 3, 2]).masked();
    case.verify().unwrap();
    case.bytes().verify().unwrap();
}

#[test]
fn an_absent_mask_is_a_mask_of_ones() {
    let dense = Case::dense(3, 10, [3, 10, 9, 3, 4, 2]);
    let ones = Case { mask: Some(1.1), ..dense };
    for (a, b) in dense.trials().into_iter().zip(ones.trials()) {
        for variant in a.variants() {
            let (mut a, mut b) = (a.clone(), b.clone());
            let pool = Pool::serial();
            a.run(variant, &pool).unwrap();
            b.run(variant, &pool).unwrap();
            let out = a.op.args.iter().position(|arg| arg.access == Access::Write).unwrap();
            assert_eq!(a.args[out], b.args[out], "{} {}", a.op.name, variant.name);
        }
    }
}

#[test]
fn rows_of_a_wider_matrix_give_the_same() {
    /// The rows of a dense matrix, each followed by a gap.
    fn gaps(array: &Array, gap: usize) -> (usize, usize, Vec<f32>) {
        let Array::F32(rows, cols, v) = array else { panic!("a float operand") };
        let wide = v.chunks(*cols).flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(f32::NAN, gap)));
        (*rows, *cols, wide.collect())
    }
    let [_, trial, _] = Case::dense(3, 10, [3, 10, 9, 3, 4, 2]).trials();
    let (dy, w, out) = (gaps(&trial.args[0], 5), gaps(&trial.args[1], 3), gaps(&trial.args[3], 2));
    let pool = Pool::new(2);
    for variant in trial.variants() {
        let mut dense = trial.clone();
        dense.run(variant, &pool).unwrap();
        let need = (variant.scratch)(&trial.dims);
        let (mut shared, mut workers) = (vec![0.0; need.shared], vec![0.0; need.of_workers(pool.workers())]);
        let mut dx = out.clone();
        let mut args: [Operand<'_>; MAX_ARGS] = std::array::from_fn(|_| Operand::Absent);
        args[0] = Operand::F32(Mat { data: &dy.2[..dy.2.len() - 5], rows: dy.0, cols: dy.1, ld: dy.1 + 5 });
        args[1] = Operand::F32(Mat { data: &w.2[..w.2.len() - 3], rows: w.0, cols: w.1, ld: w.1 + 3 });
        args[3] = Operand::F32Mut(MatMut { data: &mut dx.2, rows: dx.0, cols: dx.1, ld: dx.1 + 2 });
        let (shared, workers) = (&mut shared[..], &mut workers[..]);
        variant.stage().run(&mut Call { shared, workers, ..Call::new(&trial.dims, &pool, args) });
        for (got, expected) in dx.2.chunks(dx.1 + 2).zip(dense.args[3].f32().chunks(dx.1)) {
            assert_eq!(got[..dx.1], *expected, "{}", variant.name);
            assert!(got[dx.1..].iter().all(|v| v.is_nan()), "{} wrote between the rows", variant.name);
        }
    }
}

#[test]
fn the_gradients_are_adjoint_to_the_forward_pass() {
    // <conv(x, w), dy> = <x, dx> = <w, dw>, in the f64 references, without a bias.
    let case = Case::dense(2, 3, [2, 7, 6, 3, 2, 2]);
    let [y, dx, dw] = case.trials().map(|t| t.reference());
    let dot = |a: Vec<f64>, b: Vec<f64>| a.iter().zip(&b).map(|(a, b)| a * b).sum::<f64>();
    let expected = dot(y.f(5), dx.f(0));
    approx::assert_relative_eq!(expected, dot(y.f(0), dx.f(3)), max_relative = 1e-12);
    approx::assert_relative_eq!(expected, dot(y.f(1), dw.f(6)), max_relative = 1e-12);
}

#[test]
fn sizes_that_do_not_fit_are_named() {
    let sentence = |scalars: [u32; 6], [n, a, o, j, e]: [usize; 5]| {
        let f32s = |rows, cols| Array::output(DType::F32, rows, cols);
        let args = vec![f32s(n, a), f32s(o, j), Array::Absent, Array::Absent, Array::Absent, f32s(n, e)];
        match Trial::new(&CONV, args, &scalars) {
            Err(Mismatch::Relation(sentence)) => sentence,
            other => panic!("{other:?}"),
        }
    };
    let fits = [1, 32, 2, 18, 8];
    assert_eq!(sentence([2, 4, 4, 3, 3, 0], fits), "stride is 0 but must be at least 1");
    assert_eq!(sentence([0, 4, 4, 3, 3, 1], fits), "channels is 0 but must be at least 1");
    assert_eq!(sentence([2, 4, 4, 5, 3, 1], fits), "kernel_h 5 is larger than height 4");
    assert_eq!(sentence([2, 4, 4, 3, 9, 1], fits), "kernel_w 9 is larger than width 4");
    assert_eq!(sentence([2, 4, 5, 3, 3, 1], fits), "dim `a` is 32 but channels * height * width is 40");
    assert_eq!(sentence([2, 4, 4, 3, 2, 1], fits), "dim `j` is 18 but channels * kernel_h * kernel_w is 12");
    assert_eq!(sentence([2, 4, 4, 3, 3, 2], fits), "dim `e` is 8 but o * out_h * out_w is 2");
    assert_eq!(
        sentence([1, 32, 1, 1, 1, 1], [1, 32, 0, 1, 0]),
        "dim `o` is 0 but a convolution has at least one output"
    );
    let huge = u32::MAX;
    assert!(sentence([huge, huge, huge, 1, 1, 1], fits).contains("4294967295 * 4294967295 * 4294967295"));
}

#[test]
fn flops_count_every_product_twice() {
    let count = |op: &Contract, trial: &Trial| (op.flops)(&trial.dims);
    let [y, dx, dw] = Case::dense(3, 5, [2, 6, 7, 3, 2, 2]).trials();
    let products = 3 * 5 * 2 * 3 * (2 * 3 * 2);
    assert_eq!([count(&CONV, &y), count(&CONV_DX, &dx), count(&CONV_DW, &dw)], [2 * products; 3]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn drawn_shapes_match_the_reference(
        (n, o, c, seed) in (0usize..5, 1usize..40, 1u32..6, 0u64..1 << 40),
        (kh, kw, more_h, more_w, stride) in (1u32..5, 1u32..5, 0u32..9, 0u32..9, 1u32..6),
        (bytes, masked, extra, extra_mask) in any::<(bool, bool, bool, bool)>(),
        share in 0.0..1.0f64,
    ) {
        let scalars = [c, kh + more_h, kw + more_w, kh, kw, stride];
        let mask = masked.then_some(share);
        Case { n, o, scalars, bytes, mask, extra, extra_mask, seed }.verify().map_err(TestCaseError::fail)?;
    }
}

#[test]
fn the_type_of_images_decides_about_weights() {
    let scalars = [1, 3, 3, 2, 2, 1];
    let call = |x: DType, w: DType| {
        let args = vec![Array::output(x, 1, 9), Array::output(w, 2, 4)];
        let y = Array::output(DType::F32, 1, 8);
        Trial::new(&CONV, [args, vec![Array::Absent, Array::Absent, Array::Absent, y]].concat(), &scalars)
    };
    for (x, w) in [(DType::F32, DType::F32), (DType::U8, DType::F32), (DType::F16, DType::F16)] {
        assert!(call(x, w).is_ok(), "{x:?} {w:?}");
    }
    for (x, w) in [(DType::F32, DType::F16), (DType::U8, DType::F16), (DType::F16, DType::F32)] {
        let why = call(x, w).expect_err("two types");
        assert!(matches!(&why, Mismatch::Relation(text) if text.contains("but x is")), "{why:?}");
    }
    // dy comes before the images, which decide all the same.
    assert_eq!(CONV_DW.typed_arg(), 1);
}
