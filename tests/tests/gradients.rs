//! Every backward rule against central differences in f64, then the same tapes on the CPU.

use autograd::engine::kernels::ops::OPS;
use autograd::engine::{DType, Device, Program, Result};
use autograd::{AdamW, ConvShape, Mask, Param, ParamId, Select, Tape, Tensor, Trainable, adamw_step};
use std::collections::{BTreeMap, BTreeSet};
use tsn_tests::gradcheck::{Draw, Probe, Record, check, ops, pack};

/// Rules and the number of cases drawn for each.
const RULES: &[(&str, Record, u32)] = &[
    ("linear", linear, 96),
    ("linear_shared", linear_shared, 24),
    ("feed_forward", feed_forward, 48),
    ("conv", conv, 96),
    ("attention", attention, 64),
    ("layernorm", layernorm, 48),
    ("gelu", gelu, 36),
    ("add", add, 36),
    ("dropout", dropout, 48),
    ("embed", embed, 60),
    ("interleave", interleave, 36),
    ("select", select, 36),
    ("reshape", reshape, 36),
    ("cross_entropy", cross_entropy, 48),
    ("masked_mse", masked_mse, 48),
    ("block", block, 16),
];

/// Ops through which no gradient passes, and why. Everything else in `OPS` must be recorded by a rule above.
const NO_GRADIENT: &[(&str, &str)] = &[
    ("packed_gemm", "inference only: packed rows hold finished weights"),
    ("slide", "decisions only: training sees whole windows"),
    ("attend", "decisions only: training attends from every token"),
    ("topk", "piecewise constant; scores learn by the straight-through gradient of the product"),
    ("adamw", "updates in place after the reverse walk"),
    ("sumsq", "reads gradients, after the reverse walk"),
    ("clip", "reads gradients, after the reverse walk"),
    ("pull", "adds to gradients, after the reverse walk"),
    ("path_integral", "reads gradients, after the reverse walk"),
    ("sum", "statistics of a run, not part of a loss"),
    ("moments", "statistics for routing"),
    ("fill", "a constant; the reverse walk starts from 1"),
    ("sym_kl", "routing compares finished statistics"),
    ("cosine", "routing compares finished latents"),
    ("cosine_topk", "routing compares finished latents"),
    ("kmeans", "quantises finished weights"),
    ("pack_bits", "flags, piecewise constant"),
    ("unpack_bits", "flags, piecewise constant"),
];

/// Sizes that break kernels: 1, primes, around words, vectors and tiles.
const SIZES: &[u32] = &[1, 2, 3, 5, 7, 8, 9, 13, 15, 16, 17, 31, 32, 33];
const MASKS: &[(Mask, bool)] = &[
    (Mask::Dense, true),
    (Mask::Fixed, true),
    (Mask::Learned(Select::Any), true),
    (Mask::Learned(Select::Free), true),
    (Mask::Learned(Select::Free), false),
    (Mask::Learned(Select::Split), true),
];

fn size(p: &mut Probe) -> u32 {
    p.draw.pick(SIZES)
}

fn shape(p: &mut Probe) -> (u32, u32) {
    (size(p), size(p))
}

/// A weight and a bias whose masks run through all pairs, no bias included, as `case` grows.
fn weight_and_bias(p: &mut Probe, case: u32, rows: u32, cols: u32) -> Result<(ParamId, Option<ParamId>)> {
    let kinds = MASKS.len() as u32;
    let (mask, restrict) = MASKS[(case % kinds) as usize];
    let w = p.param("w", rows, cols, mask, restrict);
    let bias = MASKS
        .get((case / kinds % (kinds + 1)) as usize)
        .map(|&(mask, restrict)| p.param("bias", 1, rows, mask, restrict));
    p.tape.form_masks()?;
    Ok((w, bias))
}

fn linear(p: &mut Probe, case: u32) -> Result<Tensor> {
    let (rows, inputs, outputs) = (size(p), size(p), size(p));
    let (w, bias) = weight_and_bias(p, case, outputs, inputs)?;
    let x = p.watched("x", rows, inputs);
    let y = p.tape.linear(x, w, bias)?;
    p.loss(y)
}

/// One weight and bias used twice, a gradient that is a sum: y = f(f(x)) + f(x).
fn linear_shared(p: &mut Probe, case: u32) -> Result<Tensor> {
    let (rows, width) = shape(p);
    let (w, bias) = weight_and_bias(p, case * 5, width, width)?;
    let x = p.watched("x", rows, width);
    let once = p.tape.linear(x, w, bias)?;
    let twice = p.tape.linear(once, w, bias)?;
    let y = p.tape.add(twice, once)?;
    p.loss(y)
}

/// Two weights whose masks run through all pairs as `case` grows.
fn feed_forward(p: &mut Probe, case: u32) -> Result<Tensor> {
    let (rows, inputs, (wide, outputs)) = (size(p), size(p), shape(p));
    let [up, down] = [case as usize, case as usize / MASKS.len()].map(|at| MASKS[at % MASKS.len()]);
    let up = p.param("up", wide, inputs, up.0, up.1);
    let down = p.param("down", outputs, wide, down.0, down.1);
    p.tape.form_masks()?;
    let x = p.watched("x", rows, inputs);
    let y = p.tape.feed_forward(x, up, down)?;
    p.loss(y)
}

fn conv(p: &mut Probe, case: u32) -> Result<Tensor> {
    let (kernel_h, kernel_w) = (1 + p.draw.below(4), 1 + p.draw.below(4));
    let shape = ConvShape {
        channels: 1 + p.draw.below(4),
        height: kernel_h + p.draw.below(6),
        width: kernel_w + p.draw.below(6),
        kernel_h,
        kernel_w,
        stride: 1 + p.draw.below(4),
    };
    let outputs = p.draw.pick(&[1, 2, 3, 7, 8, 9, 16, 17]);
    let (w, bias) = weight_and_bias(p, case, outputs, shape.channels * kernel_h * kernel_w)?;
    let (images, pixels) = (1 + p.draw.below(3), shape.channels * shape.height * shape.width);
    let x = match case % 5 {
        0 => p.integers("x", DType::U8, images, pixels, 256),
        _ => p.watched("x", images, pixels),
    };
    let y = p.tape.conv(x, w, bias, shape)?;
    p.loss(y)
}

fn attention(p: &mut Probe, case: u32) -> Result<Tensor> {
    let (heads, width) = (1 + p.draw.below(3), p.draw.pick(&[1, 2, 5, 8, 9]));
    let (sequences, tokens) = (1 + p.draw.below(3), p.draw.pick(&[1, 2, 3, 7, 8, 9, 15, 17]));
    let drop = [0.0, 0.3][(case % 2) as usize];
    if drop > 0.0 {
        p.seed_dropout();
    }
    let qkv = p.watched("qkv", sequences * tokens, 3 * heads * width);
    let valid = p.flags("valid", DType::U8, sequences, tokens);
    let y = p.tape.attention(qkv, valid, heads, drop)?;
    p.loss(y)
}

fn layernorm(p: &mut Probe, case: u32) -> Result<Tensor> {
    let (rows, cols) = shape(p);
    let w = p.param("w", 1, cols, Mask::Dense, true);
    let b = case.is_multiple_of(2).then(|| p.param("b", 1, cols, Mask::Dense, true));
    let x = p.watched("x", rows, cols);
    let normed = p.tape.layernorm(x, w, b, 1e-2)?;
    // With the residual, its gradient is there before that of the norm and the kernel adds it.
    let y = if case % 4 < 2 { normed } else { p.tape.add(normed, x)? };
    p.loss(y)
}

fn gelu(p: &mut Probe, _: u32) -> Result<Tensor> {
    let (rows, cols) = shape(p);
    let x = p.watched("x", rows, cols);
    let y = p.tape.gelu(x)?;
    p.loss(y)
}

fn add(p: &mut Probe, case: u32) -> Result<Tensor> {
    let (rows, cols) = shape(p);
    let a = p.watched("a", rows, cols);
    let b = p.watched("b", rows, cols);
    let y = p.tape.add(a, b)?;
    let y = if case.is_multiple_of(2) { y } else { p.tape.add(y, y)? };
    p.loss(y)
}

fn dropout(p: &mut Probe, case: u32) -> Result<Tensor> {
    let (rows, cols) = shape(p);
    let drop = [0.0, 0.1, 0.5, 0.9][(case % 4) as usize];
    if drop > 0.0 {
        p.seed_dropout();
    }
    let x = p.watched("x", rows, cols);
    let residual = p.watched("residual", rows, cols);
    let once = p.tape.dropout(x, drop)?;
    let y = p.tape.dropout_add(once, residual, drop)?;
    // A third use: each draws its own numbers, and its gradient draws them again.
    let y = p.tape.dropout_add(y, x, drop)?;
    p.loss(y)
}

fn embed(p: &mut Probe, case: u32) -> Result<Tensor> {
    let (rows, cols) = shape(p);
    let ids = size(p);
    let (mask, restrict) = MASKS[case as usize % MASKS.len()];
    let table = p.param("table", rows, cols, mask, restrict);
    p.tape.form_masks()?;
    // Some ids lie past the table and read its last row.
    let ids = p.integers("ids", DType::U32, 1, ids, rows + 2);
    let mut y = p.tape.embed(ids, table)?;
    if case.is_multiple_of(3) {
        let fixed = p.floats("fixed", rows, cols);
        let other = p.tape.embed_fixed(ids, fixed)?;
        y = p.tape.add(y, other)?;
    }
    p.loss(y)
}

fn interleave(p: &mut Probe, case: u32) -> Result<Tensor> {
    let (rows, cols) = shape(p);
    let tokens = ["x0", "x1", "x2"].map(|name| p.watched(name, rows, cols));
    let time = match case % 3 {
        0 => None,
        1 => Some(p.watched("time", rows, cols)),
        _ => Some(p.floats("time", rows, cols)),
    };
    let y = p.tape.interleave(tokens, time)?;
    p.loss(y)
}

fn select(p: &mut Probe, _: u32) -> Result<Tensor> {
    let (rows, cols) = shape(p);
    let stride = 1 + p.draw.below(4);
    let offset = p.draw.below(stride);
    let x = p.watched("x", rows * stride, cols);
    let y = p.tape.select(x, stride, offset)?;
    p.loss(y)
}

/// The same storage read twice in different shapes.
fn reshape(p: &mut Probe, _: u32) -> Result<Tensor> {
    let (rows, cols) = shape(p);
    let x = p.watched("x", rows, cols);
    let flat = p.tape.reshape(x, 1, rows * cols)?;
    let bent = p.tape.gelu(flat)?;
    let back = p.tape.reshape(bent, rows, cols)?;
    let y = p.tape.add(back, x)?;
    p.loss(y)
}

fn cross_entropy(p: &mut Probe, case: u32) -> Result<Tensor> {
    let (rows, actions) = shape(p);
    let mut allowed = vec![1; actions as usize];
    if case.is_multiple_of(2) {
        allowed.iter_mut().for_each(|bit| *bit = p.draw.below(2));
        allowed[p.draw.below(actions) as usize] = 1;
    }
    let legal: Vec<u32> = (0..actions).filter(|&a| allowed[a as usize] == 1).collect();
    // Padded steps; in some cases all are.
    let padded = p.draw.pick(&[0, 0, 30, 100]);
    let target = |draw: &mut Draw| if draw.below(100) < padded { u32::MAX } else { draw.pick(&legal) };
    let target = (0..rows).map(|_| target(&mut p.draw)).collect();
    let logits = p.watched("logits", rows, actions);
    let target = p.given("target", DType::U32, target);
    let allowed = case.is_multiple_of(2).then(|| p.given("allowed", DType::Bits, allowed));
    p.tape.cross_entropy(logits, target, allowed)
}

fn masked_mse(p: &mut Probe, case: u32) -> Result<Tensor> {
    let (rows, actions) = shape(p);
    let pred = p.watched("pred", rows, actions);
    let target = p.floats("target", rows, actions);
    let valid = p.flags("valid", DType::U8, 1, rows);
    let active = case.is_multiple_of(2).then(|| p.flags("active", DType::F32, 1, actions));
    p.tape.masked_mse(pred, target, valid, active)
}

/// A transformer block, an action head and two losses that are added.
fn block(p: &mut Probe, case: u32) -> Result<Tensor> {
    let (sequences, steps, heads) = (1 + p.draw.below(2), 1 + p.draw.below(3), 1 + case % 2);
    let (width, actions) = (heads * p.draw.pick(&[3, 4, 5]), 1 + p.draw.below(5));
    let steps_in_batch = sequences * steps;
    let drop = [0.0, 0.2][(case / 2 % 2) as usize];
    if drop > 0.0 {
        p.seed_dropout();
    }
    let mask = Mask::Learned([Select::Any, Select::Free, Select::Split][(case % 3) as usize]);
    let [qkv, proj, up, down, head] = [
        ("qkv", 3 * width, width),
        ("proj", width, width),
        ("up", 4 * width, width),
        ("down", width, 4 * width),
        ("head", actions, width),
    ]
    .map(|(name, rows, cols)| p.param(name, rows, cols, mask, true));
    let head_bias = p.param("head_bias", 1, actions, mask, true);
    let [ln_e, ln_1, ln_2, ln_f] =
        ["ln_e", "ln_1", "ln_2", "ln_f"].map(|name| p.param(name, 1, width, Mask::Dense, true));
    p.tape.form_masks()?;
    let tokens = ["rtg", "state", "action"].map(|name| p.watched(name, steps_in_batch, width));
    let valid = p.flags("valid", DType::U8, sequences, 3 * steps);
    let target = (0..steps_in_batch).map(|_| p.draw.below(actions)).collect();
    let target = p.given("target", DType::U32, target);
    let t = &mut p.tape;
    let x = t.interleave(tokens, None)?;
    let x = t.layernorm(x, ln_e, None, 1e-2)?;
    let x = t.dropout(x, drop)?;
    let a = t.layernorm(x, ln_1, None, 1e-2)?;
    let a = t.linear(a, qkv, None)?;
    let a = t.attention(a, valid, heads, drop)?;
    let a = t.linear(a, proj, None)?;
    let x = t.dropout_add(a, x, drop)?;
    let m = t.layernorm(x, ln_2, None, 1e-2)?;
    let m = t.linear(m, up, None)?;
    let m = t.gelu(m)?;
    let m = t.linear(m, down, None)?;
    let x = t.dropout_add(m, x, drop)?;
    let x = t.layernorm(x, ln_f, None, 1e-2)?;
    let x = t.select(x, 3, 1)?;
    let y = t.linear(x, head, Some(head_bias))?;
    let first = t.cross_entropy(y, target, None)?;
    let second = p.loss(y)?;
    p.tape.add(first, second)
}

fn seed(rule: usize, case: u32) -> u64 {
    rule as u64 * 1_000_003 + u64::from(case)
}

/// Checks every case of a rule; the message names the case, so it can be run alone.
fn run(name: &str) {
    let at = RULES.iter().position(|(rule, ..)| *rule == name).expect("the rule is in the list");
    let (_, record, cases) = RULES[at];
    let (mut difference, mut device) = (0.0f64, 0.0f64);
    for case in 0..cases {
        let seen = check(record, case, seed(at, case)).unwrap_or_else(|e| panic!("{name}, case {case}: {e}"));
        difference = difference.max(seen.difference);
        device = device.max(seen.device);
    }
    eprintln!("{name}: {cases} cases, differences to {difference:.1e}, cpu to {device:.1e}");
}

macro_rules! rules {
    ($($name:ident)*) => {
        $(mod $name {
            #[test]
            fn gradients_are_central_differences_and_the_cpu_agrees() {
                super::run(stringify!($name));
            }
        })*

        #[test]
        fn every_rule_has_a_test() {
            assert_eq!([$(stringify!($name)),*].as_slice(), RULES.iter().map(|r| r.0).collect::<Vec<_>>());
        }
    };
}

rules!(linear linear_shared feed_forward conv attention layernorm gelu add dropout embed interleave select reshape cross_entropy
    masked_mse block);

#[test]
fn every_op_is_checked_or_has_a_reason_not_to_be() {
    let mut recorded = BTreeSet::new();
    for (at, &(name, record, cases)) in RULES.iter().enumerate() {
        for case in 0..cases {
            recorded.extend(ops(record, case, seed(at, case)).unwrap_or_else(|e| panic!("{name}, case {case}: {e}")));
        }
    }
    let excused: BTreeMap<_, _> = NO_GRADIENT.iter().copied().collect();
    let unknown: Vec<_> = excused.keys().filter(|name| OPS.iter().all(|op| op.name != **name)).collect();
    assert!(unknown.is_empty(), "NO_GRADIENT lists {unknown:?}, which are not ops");
    let missing: Vec<_> =
        OPS.iter().map(|op| op.name).filter(|op| !excused.contains_key(op) && !recorded.contains(op)).collect();
    assert!(missing.is_empty(), "no rule in RULES records {missing:?}; add a case, or a reason to NO_GRADIENT");
}

/// The checker itself: a path that passes no gradient is missed by the tape and seen by the differences.
#[test]
fn a_missing_gradient_is_found() {
    fn half_blind(p: &mut Probe, _: u32) -> Result<Tensor> {
        let x = p.watched("x", 3, 5);
        let hidden = p.tape.temp(DType::F32, 3, 5);
        p.tape.call(&autograd::engine::kernels::ops::pointwise::GELU, &[Some(x), Some(hidden)], &[])?;
        let y = p.tape.add(x, hidden)?;
        p.loss(y)
    }
    let error = check(half_blind, 0, 1).expect_err("the gradient through the call is missing");
    assert!(error.starts_with("gradient of \"x\" entry"), "{error}");
}

/// The clip norm counts dense gradients, free entries of the others, and scores.
#[test]
fn the_clip_norm_is_that_of_all_trainable_entries() -> Result<()> {
    let (rows, cols, batch) = (3, 35, 4);
    let mut tape = Tape::new();
    let x = tape.input("x", DType::F32, batch, cols);
    let target = tape.input("target", DType::F32, batch, rows);
    let valid = tape.input("valid", DType::U8, 1, batch);
    let w = tape.param(Param::new("w", rows, cols, Mask::Learned(Select::Any), Trainable::Free));
    let bias = tape.param(Param::new("bias", 1, rows, Mask::Dense, Trainable::All));
    tape.form_masks()?;
    let y = tape.linear(x, w, Some(bias))?;
    let loss = tape.masked_mse(y, target, valid, None)?;
    tape.backward(loss)?;
    for (grad, name) in [(tape.grad(w), "dw"), (tape.score_grad(w), "ds"), (tape.grad(bias), "db")] {
        tape.output(grad.expect("all three are trained"), name);
    }
    tape.adamw(&AdamW { max_norm: None, ..AdamW::default() })?;
    let mut program = tape.finish()?.bind(&Device::open("cpu")?)?;
    let mut draw = Draw::new(5);
    for (name, n) in [("x", batch * cols), ("target", batch * rows), ("w", rows * cols), ("w.score", rows * cols)] {
        program.write(name, &(0..n).map(|_| draw.real() as f32).collect::<Vec<_>>())?;
    }
    let free: Vec<u32> = (0..rows * cols).map(|i| u32::from(i % 4 == 0)).collect();
    program.write("w.free", &pack(&free, cols))?;
    program.write("w.k", &[rows * cols / 2])?;
    program.write("valid", &vec![1u8; batch as usize])?;
    program.write("step", &adamw_step(1e-3, 0.9, 0.999, 1))?;
    program.run()?;
    let square = |name: &str, counts: &dyn Fn(usize) -> bool| -> Result<f64> {
        let g = program.read_vec::<f32>(name)?;
        Ok(g.iter().enumerate().filter(|(i, _)| counts(*i)).map(|(_, g)| f64::from(*g).powi(2)).sum())
    };
    let sum = square("dw", &|i| free[i] == 1)? + square("ds", &|_| true)? + square("db", &|_| true)?;
    let norm = f64::from(program.read_vec::<f32>("grad_norm")?[0]);
    assert!((norm - sum.sqrt()).abs() < 1e-6 * sum.sqrt(), "{norm} is not the root of {sum}");
    Ok(())
}

/// Two masked layers on fixed data: the loss falls, and what is frozen keeps its bits.
#[test]
fn a_masked_network_learns_and_never_writes_frozen_entries() -> Result<()> {
    let (rows, inputs, hidden, outputs) = (64, 9, 33, 3);
    let mut tape = Tape::new();
    let x = tape.input("x", DType::F32, rows, inputs);
    let target = tape.input("target", DType::F32, rows, outputs);
    let valid = tape.input("valid", DType::U8, 1, rows);
    let learned = Mask::Learned(Select::Split);
    let shapes = [("w1", hidden, inputs), ("b1", 1, hidden), ("w2", outputs, hidden), ("b2", 1, outputs)];
    let [w1, b1, w2, b2] = shapes.map(|(name, r, c)| tape.param(Param::new(name, r, c, learned, Trainable::Free)));
    let norm = tape.param(Param::new("norm", 1, hidden, Mask::Dense, Trainable::Frozen));
    tape.form_masks()?;
    let h = tape.linear(x, w1, Some(b1))?;
    let h = tape.gelu(h)?;
    let h = tape.layernorm(h, norm, None, 1e-5)?;
    let y = tape.linear(h, w2, Some(b2))?;
    let loss = tape.masked_mse(y, target, valid, None)?;
    tape.backward(loss)?;
    assert_eq!(tape.grad(norm), None);
    tape.adamw(&AdamW::default())?;
    tape.output(loss, "loss");
    let mut program = tape.finish()?.bind(&Device::open("cpu")?)?;

    let mut draw = Draw::new(11);
    let mut reals = |n: u32| (0..n).map(|_| draw.real() as f32).collect::<Vec<f32>>();
    let data = reals(rows * inputs);
    let wanted: Vec<f32> = data.chunks(inputs as usize).flat_map(|x| [x[0] - x[1], x[2] * 0.5, x[3] + x[4]]).collect();
    program.write("x", &data)?;
    program.write("target", &wanted)?;
    program.write("valid", &vec![1u8; rows as usize])?;
    program.write("norm", &vec![1.0f32; hidden as usize])?;
    let mut before = Vec::new();
    for (name, r, c) in shapes {
        let w = reals(r * c);
        // Every third entry belongs to an earlier task.
        let free: Vec<u32> = (0..r * c).map(|i| u32::from(i % 3 != 0)).collect();
        let occupied: Vec<u32> = free.iter().map(|bit| 1 - bit).collect();
        program.write(name, &w)?;
        program.write(&format!("{name}.score"), &reals(r * c))?;
        program.write(&format!("{name}.free"), &pack(&free, c))?;
        program.write(&format!("{name}.occupied"), &pack(&occupied, c))?;
        program.write(&format!("{name}.k"), &[(r * c).div_ceil(3)])?;
        program.write(&format!("{name}.k_occupied"), &[(r * c).div_ceil(9)])?;
        before.push((name, w, free));
    }
    let norm_before = program.read_vec::<f32>("norm")?;
    let step = |program: &mut Program, t: u64| -> Result<f32> {
        let AdamW { beta1, beta2, .. } = AdamW::default();
        program.write("step", &adamw_step(1e-2, beta1, beta2, t))?;
        program.run()?;
        Ok(program.read_vec::<f32>("loss")?[0])
    };
    let first = step(&mut program, 1)?;
    assert!(program.read_vec::<f32>("grad_norm")?[0] > 0.0);
    let mut last = first;
    for t in 2..=50 {
        last = step(&mut program, t)?;
    }
    assert!(last < 0.5 * first, "the loss went from {first} to {last}");
    assert_eq!(program.read_vec::<f32>("norm")?, norm_before);
    for (name, w, free) in before {
        let after = program.read_vec::<f32>(name)?;
        let moved = |i: usize| after[i].to_bits() != w[i].to_bits();
        assert!((0..w.len()).all(|i| free[i] == 1 || !moved(i)), "a frozen entry of {name} moved");
        assert!((0..w.len()).any(moved), "no entry of {name} moved");
    }
    Ok(())
}
