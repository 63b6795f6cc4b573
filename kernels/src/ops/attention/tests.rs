use super::*;
use crate::par::Pool;
use crate::philox::{Rng, Stream};
use crate::reference::{Reference, Value};
use crate::simd::Isa;
use crate::trial::{Array, Trial};

fn floats(rows: usize, cols: usize, place: u32) -> Array {
    let mut rng = Rng::new(1, Stream::Data, [place, 0]);
    Array::F32(rows, cols, (0..rows * cols).map(|_| rng.normal() as f32).collect())
}

/// Which tokens are valid.
#[derive(Clone, Copy, Debug)]
enum Padding {
    No,
    Left,
    Right,
    Holes,
    All,
}
use Padding::*;

fn valid(b: usize, t: usize, padding: Padding) -> Array {
    let flag = |seq: usize, p: usize| match padding {
        No => true,
        Left => p >= (seq + 1) * t / 3,
        Right => p < t - t / 3,
        Holes => !(p * 7 + seq).is_multiple_of(3),
        All => false,
    };
    Array::U8(b, t, (0..b * t).map(|i| u8::from(flag(i / t, i % t))).collect())
}

fn rng() -> Array {
    Array::U32(1, 4, vec![7, 11, 3, 0])
}

fn out(rows: usize, cols: usize) -> Array {
    Array::output(DType::F32, rows, cols)
}

/// Forward and backward trials of one case; backward gets `y` and `stats` of the reference.
fn trials(b: usize, t: usize, h: usize, d: usize, padding: Padding, drop: f32) -> [Trial; 2] {
    let (r, c) = (b * t, h * d);
    let scalars = [h as u32, drop.to_bits(), 5];
    let (qkv, valid) = (floats(r, 3 * c, 1), valid(b, t, padding));
    let args = vec![qkv.clone(), valid.clone(), rng(), out(r, c), out(r, h)];
    let forward = Trial::new(&ATTENTION, args, &scalars).unwrap();
    let single = |v: Vec<f64>, cols| Array::F32(r, cols, v.iter().map(|x| *x as f32).collect());
    let expected = forward.reference();
    let (y, stats) = (single(expected.f(3), c), single(expected.f(4), h));
    let args = vec![qkv, valid, rng(), y, stats, floats(r, c, 2), out(r, 3 * c)];
    [forward, Trial::new(&ATTENTION_DX, args, &scalars).unwrap()]
}

fn verify(b: usize, t: usize, h: usize, d: usize, padding: Padding, drop: f32) {
    for trial in trials(b, t, h, d, padding, drop) {
        trial.verify().unwrap_or_else(|e| panic!("b {b} t {t} h {h} d {d} {padding:?} drop {drop}: {e}"));
    }
}

fn variants(op: &'static Contract) -> impl Iterator<Item = &'static Variant> {
    op.variants(Isa::detect(), DType::F32)
}

#[test]
fn lengths() {
    for t in [1, 2, 3, 17, 59, 60, 61, 64, 65, 130] {
        verify(2, t, 2, 8, No, 0.0);
        verify(2, t, 2, 8, Left, 0.1);
        verify(1, t, 1, 12, Holes, 0.5);
    }
}

#[test]
fn widths() {
    for d in [1, 4, 8, 12, 16, 32, 33, 128] {
        for (h, padding) in [(1, No), (2, Left), (4, Right)] {
            verify(2, 19, h, d, padding, 0.0);
            verify(2, 19, h, d, padding, 0.1);
        }
    }
    verify(1, 60, 1, 128, Left, 0.1);
    verify(2, 60, 4, 32, Left, 0.1);
}

#[test]
fn paddings_and_rates() {
    for padding in [No, Left, Right, Holes, All] {
        for drop in [0.0, 0.1, 0.999_999] {
            verify(3, 37, 2, 16, padding, drop);
        }
    }
    verify(0, 5, 2, 4, No, 0.1);
    verify(3, 0, 2, 4, No, 0.1);
}

#[test]
fn without_random_state_nothing_is_dropped() {
    for (mut with, none) in trials(2, 20, 2, 8, Left, 0.0).into_iter().zip(trials(2, 20, 2, 8, Left, 0.9)) {
        with.args[2] = Array::Absent;
        let shapes = |t: &Trial| t.args.iter().map(Array::shape).collect::<Vec<_>>();
        with.dims = with.op.unify(&shapes(&with), &[2, 0.9f32.to_bits(), 5]).unwrap();
        with.verify().unwrap();
        let scale = |t: &Trial| t.reference().f(t.args.len() - 2).iter().map(|x| x.abs()).sum::<f64>();
        assert!(scale(&with) > 0.0 && none.op.name == with.op.name);
    }
}

#[test]
fn hidden_and_later_tokens_are_not_read() {
    let (t, h, d, cut) = (70, 2, 12, 41);
    let [forward, backward] = trials(1, t, h, d, Holes, 0.1);
    let Array::U8(_, _, flags) = &forward.args[1] else { unreachable!("valid is U8") };
    for variant in variants(&ATTENTION) {
        let mut expected = forward.clone();
        expected.run(variant, &Pool::serial()).unwrap();
        let mut changed = forward.clone();
        let Array::F32(_, _, qkv) = &mut changed.args[0] else { unreachable!("qkv is F32") };
        for (token, row) in qkv.chunks_exact_mut(3 * h * d).enumerate() {
            let from = if token >= cut {
                0
            } else if flags[token] == 0 {
                h * d
            } else {
                3 * h * d
            };
            row[from..].fill(f32::NAN);
        }
        changed.run(variant, &Pool::serial()).unwrap();
        for (at, width) in [(3, h * d), (4, h)] {
            let (a, b) = (&expected.args[at].f32()[..cut * width], &changed.args[at].f32()[..cut * width]);
            assert!(a.iter().map(|x| x.to_bits()).eq(b.iter().map(|x| x.to_bits())), "{} output {at}", variant.name);
        }
    }
    for variant in variants(&ATTENTION_DX) {
        let mut changed = backward.clone();
        let Array::F32(_, _, qkv) = &mut changed.args[0] else { unreachable!("qkv is F32") };
        for (row, flag) in qkv.chunks_exact_mut(3 * h * d).zip(flags) {
            if *flag == 0 {
                row[h * d..].fill(f32::NAN);
            }
        }
        changed.run(variant, &Pool::serial()).unwrap();
        assert!(changed.args[6].f32().iter().all(|x| x.is_finite()), "{}", variant.name);
    }
}

#[test]
fn a_query_that_is_no_number_changes_no_later_gradient() {
    let (t, h, d, bad) = (70, 2, 12, 31);
    let [_, backward] = trials(1, t, h, d, Holes, 0.1);
    for variant in variants(&ATTENTION_DX) {
        for (arg, width) in [(0, 3 * h * d), (5, h * d)] {
            let mut changed = backward.clone();
            let Array::F32(_, _, values) = &mut changed.args[arg] else { unreachable!("both are F32") };
            values[bad * width..][..h * d].fill(f32::NAN);
            changed.run(variant, &Pool::serial()).unwrap();
            let later = &changed.args[6].f32()[(bad + 1) * 3 * h * d..];
            assert!(later.iter().all(|x| x.is_finite()), "{} argument {arg}", variant.name);
        }
    }
}

#[test]
fn large_logits_do_not_overflow() {
    let [mut forward, _] = trials(1, 33, 1, 8, No, 0.0);
    let Array::F32(_, _, qkv) = &mut forward.args[0] else { unreachable!("qkv is F32") };
    // Powers of two: the logits of f32 and f64 agree far beyond the range of exp.
    qkv.iter_mut()
        .enumerate()
        .filter(|(i, _)| i % 24 < 16)
        .for_each(|(i, x)| *x = if i % 5 == 0 { 64.0 } else { -16.0 });
    forward.verify().unwrap();
}

/// A reference call on given values; empty outputs are replaced.
fn call(op: &'static Contract, like: &Trial, values: &[(usize, &[f64])]) -> Reference {
    let args =
        like.args.iter().enumerate().map(|(at, a)| {
            values.iter().find(|(i, _)| *i == at).map_or_else(|| a.value(), |(_, v)| Value::F(v.to_vec()))
        });
    let dtypes = like.args.iter().map(|a| a.shape().map_or(DType::F32, |s| s.dtype)).collect();
    let mut r = Reference { dims: like.dims, dtypes, args: args.collect() };
    (op.reference)(&mut r);
    r
}

#[test]
fn gradient_is_that_of_the_reference() {
    for (padding, drop) in [(No, 0.0), (Holes, 0.3), (Left, 0.1)] {
        let [forward, backward] = trials(2, 7, 2, 3, padding, drop);
        let (Value::F(qkv), Value::F(dy)) = (forward.args[0].value(), backward.args[5].value()) else {
            unreachable!("both are floats")
        };
        let run = |qkv: &[f64]| call(&ATTENTION, &forward, &[(0, qkv)]);
        let loss = |qkv: &[f64]| run(qkv).f(3).iter().zip(&dy).map(|(y, d)| y * d).sum::<f64>();
        let (y, stats) = (run(&qkv).f(3), run(&qkv).f(4));
        let got = call(&ATTENTION_DX, &backward, &[(0, &qkv), (3, &y), (4, &stats), (5, &dy)]).f(6);
        let scale = got.iter().fold(0.0f64, |m, g| m.max(g.abs()));
        for at in 0..qkv.len() {
            let shifted = |h: f64| {
                let mut all = qkv.clone();
                all[at] += h;
                loss(&all)
            };
            let expected = (shifted(1e-5) - shifted(-1e-5)) / 2e-5;
            assert!((got[at] - expected).abs() < 1e-6 * scale, "{at}: {}, differences say {expected}", got[at]);
        }
    }
}

#[test]
fn relations_are_checked() {
    let args = |c: usize, e: usize, h: usize| vec![floats(6, e, 1), valid(2, 3, No), rng(), out(6, c), out(6, h)];
    let refused = |args, scalars: [u32; 3]| Trial::new(&ATTENTION, args, &scalars).is_err();
    let drop = 0.1f32.to_bits();
    assert!(!refused(args(8, 24, 2), [2, drop, 0]));
    assert!(refused(args(8, 24, 2), [0, drop, 0]));
    assert!(refused(args(0, 0, 2), [2, drop, 0]));
    assert!(refused(args(8, 24, 3), [3, drop, 0]));
    assert!(refused(args(8, 24, 4), [2, drop, 0]));
    assert!(refused(args(8, 16, 2), [2, drop, 0]));
    assert!(refused(args(8, 24, 2), [2, 1.0f32.to_bits(), 0]));
    assert!(refused(vec![floats(5, 24, 1), valid(2, 3, No), rng(), out(5, 8), out(5, 2)], [2, drop, 0]));
}
