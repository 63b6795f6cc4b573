//! What is recorded, in which order, and what errors say. Values are checked in the package of cross-crate tests.

use crate::{AdamW, ConvShape, Mask, Param, ParamId, Select, Tape, Tensor, Trainable, adamw_step};
use engine::{DType, Error, Result};

fn dense(tape: &mut Tape, name: &str, rows: u32, cols: u32) -> ParamId {
    tape.param(Param::new(name, rows, cols, Mask::Dense, Trainable::All))
}

fn with_mask(tape: &mut Tape, name: &str, rows: u32, cols: u32, mask: Mask) -> ParamId {
    tape.param(Param::new(name, rows, cols, mask, Trainable::All))
}

/// Squared distance of `y` to a target.
fn loss(tape: &mut Tape, y: Tensor) -> Result<Tensor> {
    let [rows, cols] = tape.shape(y);
    let target = tape.input("target", DType::F32, rows, cols);
    let valid = tape.input("valid", DType::U8, 1, rows);
    tape.masked_mse(y, target, valid, None)
}

fn ops(tape: Tape) -> Result<Vec<&'static str>> {
    Ok(tape.finish()?.ops().collect())
}

fn states(tape: Tape) -> Result<Vec<String>> {
    Ok(tape.finish()?.states().map(|(name, ..)| name.to_owned()).collect())
}

/// The text of an error without the place of recording, after checking that place.
fn text(error: &Error, line: u32) -> String {
    let all = error.to_string();
    let place = format!(" (recorded at {}:{line})", file!());
    all.strip_suffix(&place).unwrap_or_else(|| panic!("{all:?} does not end in {place:?}")).to_owned()
}

const LEARNED: Mask = Mask::Learned(Select::Any);

#[test]
fn linear_picks_its_contract_from_the_masks() -> Result<()> {
    let cases = [
        (Mask::Dense, None, "gemm"),
        (Mask::Dense, Some(Mask::Dense), "gemm"),
        (Mask::Dense, Some(Mask::Fixed), "conv"),
        (Mask::Fixed, None, "masked_gemm"),
        (Mask::Fixed, Some(Mask::Dense), "masked_gemm"),
        (LEARNED, Some(LEARNED), "masked_gemm"),
    ];
    for (mask, bias_mask, op) in cases {
        let mut tape = Tape::new();
        let w = with_mask(&mut tape, "w", 2, 3, mask);
        let bias = bias_mask.map(|mask| with_mask(&mut tape, "bias", 1, 2, mask));
        tape.form_masks()?;
        let x = tape.input("x", DType::F32, 5, 3);
        let y = tape.linear(x, w, bias)?;
        assert_eq!(tape.shape(y), [5, 2]);
        assert_eq!(ops(tape)?.last(), Some(&op), "{mask:?} {bias_mask:?}");
    }
    Ok(())
}

#[test]
fn calls_come_in_reverse_order_and_the_residual_rides_with_the_norm() -> Result<()> {
    let mut tape = Tape::new();
    let (embed, up, norm) = (
        dense(&mut tape, "embed", 4, 3),
        with_mask(&mut tape, "up", 4, 4, Mask::Fixed),
        dense(&mut tape, "norm", 1, 4),
    );
    let x = tape.input("x", DType::F32, 5, 3);
    let x = tape.linear(x, embed, None)?;
    let h = tape.layernorm(x, norm, None, 1e-5)?;
    let h = tape.linear(h, up, None)?;
    let h = tape.gelu(h)?;
    let y = tape.dropout_add(h, x, 0.1)?;
    let loss = loss(&mut tape, y)?;
    tape.backward(loss)?;
    let forward = ["gemm", "layernorm", "masked_gemm", "gelu", "dropout", "masked_mse"];
    // No `add`: layernorm_dx takes the residual's gradient. No product for the gradient of the input x.
    let backward = ["fill", "masked_mse_dx", "dropout_dx", "gelu_dx", "masked_gemm_dw", "masked_gemm_dx"];
    let rest = ["layernorm_dx", "gemm_dw"];
    assert_eq!(ops(tape)?, [&forward[..], &backward, &rest].concat());
    Ok(())
}

#[test]
fn a_feed_forward_holds_its_gelu_inside_the_products() -> Result<()> {
    let record = |trainable: Trainable| {
        let mut tape = Tape::new();
        let up = tape.param(Param::new("up", 4, 3, Mask::Fixed, trainable));
        let down = tape.param(Param::new("down", 3, 4, Mask::Dense, trainable));
        let x = tape.input("x", DType::F32, 5, 3);
        let y = tape.feed_forward(x, up, down)?;
        if trainable == Trainable::All {
            let loss = loss(&mut tape, y)?;
            tape.backward(loss)?;
        }
        ops(tape)
    };
    let forward = ["masked_gemm", "gemm", "masked_mse", "fill", "masked_mse_dx"];
    let backward = ["gemm_dw", "gemm_dx", "masked_gemm_dw"];
    assert_eq!(record(Trainable::All)?, [&forward[..], &backward].concat());
    // Nothing learns: a slope would be written for nobody.
    assert_eq!(record(Trainable::Frozen)?, ["masked_gemm", "gelu", "gemm"]);
    Ok(())
}

#[test]
fn a_tensor_used_twice_sums_its_gradients() -> Result<()> {
    let mut tape = Tape::new();
    let w = dense(&mut tape, "w", 3, 3);
    let x = tape.watched("x", 5, 3);
    let once = tape.linear(x, w, None)?;
    let twice = tape.linear(once, w, None)?;
    let loss = loss(&mut tape, twice)?;
    tape.backward(loss)?;
    assert_eq!(tape.grad_of(x).map(|g| tape.shape(g)), Some([5, 3]));
    assert_eq!(tape.grad(w).map(|g| tape.shape(g)), Some([3, 3]));
    let ops = ops(tape)?;
    assert_eq!(ops[5..], ["gemm_dw", "gemm_dx", "gemm_dw", "add", "gemm_dx"]);
    Ok(())
}

#[test]
fn what_needs_no_gradient_gets_none() -> Result<()> {
    let shape = ConvShape { channels: 1, height: 4, width: 4, kernel_h: 2, kernel_w: 2, stride: 2 };
    let mut tape = Tape::new();
    let frames = tape.input("frames", DType::U8, 3, 16);
    let kernel = with_mask(&mut tape, "kernel", 2, 4, Mask::Fixed);
    let frozen = tape.param(Param::new("frozen", 2, 8, LEARNED, Trainable::Frozen));
    let unused = dense(&mut tape, "unused", 2, 2);
    tape.form_masks()?;
    let h = tape.conv(frames, kernel, None, shape)?;
    assert_eq!(tape.shape(h), [3, 8]);
    let y = tape.linear(h, frozen, None)?;
    let loss = loss(&mut tape, y)?;
    tape.backward(loss)?;
    assert!(tape.grad(kernel).is_some() && tape.score_grad(kernel).is_none());
    for p in [frozen, unused] {
        assert_eq!((tape.grad(p), tape.score_grad(p)), (None, None));
    }
    assert_eq!(tape.grad_of(frames), None);
    tape.adamw(&AdamW::default())?;
    let plan = tape.finish()?;
    let ops: Vec<_> = plan.ops().collect();
    assert_eq!(ops[5..], ["masked_mse_dx", "masked_gemm_dx", "conv_dw", "sumsq", "clip", "adamw"]);
    let moments = plan.states().map(|s| s.0).filter(|name| name.ends_with(".m") || name.ends_with(".v"));
    assert_eq!(moments.collect::<Vec<_>>(), ["kernel.m", "kernel.v"]);
    Ok(())
}

#[test]
fn masks_are_formed_once_for_what_is_declared() -> Result<()> {
    for (select, calls, buffers) in [
        (Select::Any, 1, vec!["w", "w.k", "w.mask", "w.score"]),
        (Select::Free, 1, vec!["w", "w.free", "w.k", "w.mask", "w.score"]),
        (Select::Split, 2, vec!["w", "w.free", "w.k", "w.k_occupied", "w.mask", "w.occupied", "w.score"]),
    ] {
        let mut tape = Tape::new();
        with_mask(&mut tape, "w", 2, 40, Mask::Learned(select));
        tape.form_masks()?;
        tape.form_masks()?;
        let plan = tape.finish()?;
        assert_eq!(plan.ops().collect::<Vec<_>>(), vec!["topk"; calls], "{select:?}");
        assert_eq!(plan.states().map(|s| s.0).collect::<Vec<_>>(), buffers);
    }
    let mut tape = Tape::new();
    tape.param(Param::new("w", 2, 3, Mask::Fixed, Trainable::Free));
    tape.form_masks()?;
    assert_eq!(states(tape)?, ["w", "w.free", "w.mask"]);
    Ok(())
}

#[test]
fn a_learned_mask_is_formed_before_its_use() {
    let mut tape = Tape::new();
    tape.form_masks().expect("there is nothing to form");
    let w = with_mask(&mut tape, "w", 2, 3, LEARNED);
    let x = tape.input("x", DType::F32, 5, 3);
    let (result, line) = (tape.linear(x, w, None), line!());
    let error = result.expect_err("the mask is not formed");
    assert_eq!(text(&error, line), "gemm: reads \"w.mask\" before any call wrote it");
}

#[test]
fn shape_errors_name_the_letter_both_arguments_and_the_line() {
    let mut tape = Tape::new();
    let w = dense(&mut tape, "h.0.mlp.fc", 2, 3);
    let x = tape.input("x", DType::F32, 5, 4);
    let (result, line) = (tape.linear(x, w, None), line!());
    let error = result.expect_err("4 columns meet 3");
    assert_eq!(text(&error, line), "gemm: dim `i` is 4 in x \"x\" but 3 in w \"h.0.mlp.fc\"");
    let other = tape.input("other", DType::F32, 5, 3);
    let (result, line) = (tape.add(x, other), line!());
    let error = result.expect_err("4 columns meet 3");
    assert_eq!(text(&error, line), "add: dim `c` is 4 in a \"x\" but 3 in b \"other\"");
    let ids = tape.input("ids", DType::U8, 1, 4);
    let (result, line) = (tape.embed(ids, w), line!());
    let error = result.expect_err("ids are bytes");
    assert_eq!(text(&error, line), "embed: ids \"ids\" is U8, expected one of [U32]");
}

#[test]
fn gradient_calls_carry_the_line_of_their_forward_call() -> Result<()> {
    let mut tape = Tape::new();
    let w = dense(&mut tape, "w", 2, 3);
    let x = tape.watched("x", 5, 3);
    let (y, linear) = (tape.linear(x, w, None)?, line!());
    let (y, gelu) = (tape.gelu(y)?, line!());
    let loss = loss(&mut tape, y)?;
    tape.backward(loss)?;
    let plan = format!("{:?}", tape.finish()?);
    let calls_at = |line: u32| plan.matches(&format!("tests.rs\", line: {line},")).count();
    assert_eq!((calls_at(linear), calls_at(gelu)), (3, 2), "{plan}");
    Ok(())
}

#[test]
fn backward_says_what_is_wrong_with_a_loss() -> Result<()> {
    let mut tape = Tape::new();
    let x = tape.watched("x", 5, 3);
    let (result, line) = (tape.backward(x), line!());
    let error = result.expect_err("15 numbers");
    assert_eq!(text(&error, line), "backward: loss \"x\" is 5 x 3, expected 1 x 1");
    let fixed = tape.input("fixed", DType::F32, 1, 1);
    let (result, line) = (tape.backward(fixed), line!());
    let error = result.expect_err("nothing leads to it");
    assert_eq!(text(&error, line), "backward: no trainable parameter and no watched input leads to loss \"fixed\"");
    let loss = loss(&mut tape, x)?;
    tape.backward(loss)?;
    let (result, line) = (tape.backward(loss), line!());
    let error = result.expect_err("twice");
    assert_eq!(text(&error, line), "backward: is already recorded; add the losses and call it once");
    Ok(())
}

#[test]
fn one_update_per_weight_and_score_after_one_common_norm() -> Result<()> {
    for max_norm in [None, Some(0.25)] {
        let mut tape = Tape::new();
        let w = tape.param(Param::new("w", 2, 3, Mask::Learned(Select::Free), Trainable::Free));
        let bias = dense(&mut tape, "bias", 1, 2);
        tape.form_masks()?;
        let x = tape.input("x", DType::F32, 5, 3);
        let y = tape.linear(x, w, Some(bias))?;
        let loss = loss(&mut tape, y)?;
        let (result, line) = (tape.adamw(&AdamW::default()), line!());
        let error = result.expect_err("no gradient yet");
        assert_eq!(text(&error, line), "adamw: no parameter has a gradient; call backward first");
        tape.backward(loss)?;
        tape.adamw(&AdamW { max_norm, ..AdamW::default() })?;
        let plan = tape.finish()?;
        let ops: Vec<_> = plan.ops().collect();
        assert_eq!(ops[ops.len() - 7..], ["sumsq", "sumsq", "sumsq", "clip", "adamw", "adamw", "adamw"]);
        let moments = plan.states().map(|s| s.0).filter(|name| name.ends_with(".m") || name.ends_with(".v"));
        let expected = ["bias.m", "bias.v", "w.m", "w.score.m", "w.score.v", "w.v"];
        assert_eq!(moments.collect::<Vec<_>>(), expected);
    }
    Ok(())
}

#[test]
fn step_corrections_are_computed_in_f64() {
    assert_eq!(adamw_step(3e-4, 0.9, 0.999, 1), [3e-4, 1.0 - 0.9, 1.0 - 0.999, 0.0]);
    let [_, c1, c2, _] = adamw_step(3e-4, 0.9, 0.999, 1_000_000);
    assert_eq!((c1, c2), (1.0, 1.0));
}

#[test]
fn outputs_of_shared_storage_are_copies() -> Result<()> {
    let mut tape = Tape::new();
    let (a, b) = (tape.watched("a", 2, 6), tape.watched("b", 2, 6));
    let y = tape.add(a, b)?;
    let flat = tape.reshape(y, 3, 4)?;
    tape.output(flat, "flat");
    let loss = loss(&mut tape, y)?;
    tape.backward(loss)?;
    // Both gradients are that of y; the second name gets a copy, as does one of an input.
    for (t, name) in [(a, "da"), (b, "db")] {
        let grad = tape.grad_of(t).expect("watched inputs have gradients");
        tape.output(grad, name);
    }
    tape.output(a, "seen");
    let ops = ops(tape)?;
    assert_eq!(ops[3..], ["masked_mse_dx", "select", "select"]);
    Ok(())
}

#[test]
fn an_output_that_cannot_be_copied_is_an_error_of_finish() {
    let mut tape = Tape::new();
    let bytes = tape.input("bytes", DType::U8, 2, 6);
    tape.output(bytes, "seen");
    let line = line!() - 1;
    let error = tape.finish().expect_err("bytes cannot be copied");
    assert_eq!(text(&error, line), "select: x \"bytes\" is U8, expected one of [F32]");
}

#[test]
fn reshape_keeps_the_number_of_elements() {
    let mut tape = Tape::new();
    let x = tape.input("x", DType::F32, 2, 6);
    assert_eq!(tape.reshape(x, 3, 4).map(|y| tape.shape(y)), Ok([3, 4]));
    let (result, line) = (tape.reshape(x, 3, 5), line!());
    let error = result.expect_err("15 elements");
    assert_eq!(text(&error, line), "reshape: \"x\" is 2 x 6, which is not 3 x 5");
    let bits = tape.input("bits", DType::Bits, 2, 6);
    let (result, line) = (tape.reshape(bits, 1, 12), line!());
    let error = result.expect_err("words would be cut");
    assert_eq!(text(&error, line), "reshape: rows of bits in \"bits\" start on whole words and cannot be cut");
}

#[test]
fn dropout_of_zero_records_nothing_and_the_range_is_checked() -> Result<()> {
    let mut tape = Tape::new();
    let x = tape.watched("x", 2, 6);
    assert_eq!(tape.dropout(x, 0.0)?, x);
    for drop in [-0.1, 1.0, f32::NAN] {
        let (result, line) = (tape.dropout(x, drop), line!());
        let error = result.expect_err("outside 0..1");
        assert_eq!(text(&error, line), format!("dropout: drop {drop} is outside 0..1"));
    }
    let y = tape.dropout_add(x, x, 0.0)?;
    let y = tape.dropout(y, 0.5)?;
    tape.dropout(y, 0.5)?;
    // One random state serves all: a second would be a duplicate.
    assert_eq!(ops(tape)?, ["add", "dropout", "dropout"]);
    Ok(())
}

#[test]
fn a_layer_norm_takes_dense_parameters() {
    let mut tape = Tape::new();
    let x = tape.watched("x", 2, 6);
    let w = with_mask(&mut tape, "norm", 1, 6, Mask::Fixed);
    let (result, line) = (tape.layernorm(x, w, None, 1e-5), line!());
    let error = result.expect_err("it has a mask");
    assert_eq!(text(&error, line), "layernorm: \"norm\" has a mask; its parameters must be dense");
}

#[test]
fn a_convolution_without_output_is_an_error() {
    let shape = ConvShape { channels: 4, height: 84, width: 84, kernel_h: 8, kernel_w: 8, stride: 4 };
    assert_eq!(shape.out_shape(), [20, 20]);
    for bad in [ConvShape { kernel_h: 85, ..shape }, ConvShape { stride: 0, ..shape }] {
        let mut tape = Tape::new();
        let x = tape.input("x", DType::U8, 2, 4 * 84 * 84);
        let w = dense(&mut tape, "w", 32, 4 * 8 * 8);
        assert!(bad.out_shape().contains(&0));
        let (result, line) = (tape.conv(x, w, None, bad), line!());
        let error = text(&result.expect_err("no output"), line);
        assert!(error.starts_with("conv: ") && error.contains("\"w\" gives no output"), "{error}");
    }
}

#[test]
fn user_contracts_are_recorded_on_temporaries() -> Result<()> {
    let mut tape = Tape::new();
    let x = tape.watched("x", 2, 6);
    let y = tape.temp(DType::F32, 2, 6);
    tape.call(&engine::kernels::ops::pointwise::GELU, &[Some(x), Some(y)], &[])?;
    let loss = loss(&mut tape, y)?;
    assert!(tape.backward(loss).is_err(), "a custom call passes no gradient");
    let unwritten = tape.temp(DType::F32, 2, 6);
    let (result, line) = (tape.gelu(unwritten), line!());
    let error = result.expect_err("nothing wrote it");
    assert_eq!(text(&error, line), "gelu: reads \"temp\" before any call wrote it");
    Ok(())
}

#[test]
fn a_decision_reads_part_of_a_weight_and_takes_no_gradient() -> Result<()> {
    for (mask, op) in [(Mask::Dense, "gemm"), (Mask::Fixed, "masked_gemm")] {
        let mut tape = Tape::new();
        let w = tape.param(Param::new("w", 6, 2, mask, Trainable::Frozen));
        let x = tape.input("x", DType::F32, 3, 2);
        let valid = tape.input("valid", DType::U8, 3, 5);
        let q = tape.linear_part(x, w, 0..2)?;
        let kv = tape.linear_part(x, w, 2..6)?;
        assert_eq!([tape.shape(q), tape.shape(kv)], [[3, 2], [3, 4]]);
        let window = tape.slide("window", kv, 3, 5)?;
        let y = tape.attend(q, window, valid, 2)?;
        assert_eq!([tape.shape(window), tape.shape(y)], [[15, 4], [3, 2]]);
        let line = line!() + 1;
        let outside = tape.linear_part(x, w, 3..7).unwrap_err();
        assert_eq!(text(&outside, line), "gemm: outputs 3..7 are outside 0..6");
        let trained = with_mask(&mut tape, "trained", 6, 2, mask);
        assert!(tape.linear_part(x, trained, 0..2).is_err());
        let hidden = tape.linear(x, trained, None)?;
        assert!(tape.slide("other", hidden, 1, 3).is_err() && tape.attend(q, hidden, valid, 2).is_err());
        assert_eq!(ops(tape)?, [op, op, "slide", "attend", op]);
    }
    Ok(())
}
