use super::*;
use crate::bits::BitMask;
use crate::contract::DType::F32 as Float;
use crate::philox::{Rng, Stream};
use crate::reference::Value;
use crate::trial::{Array, Trial};

const SIZES: [(usize, usize); 8] = [(0, 3), (4, 0), (1, 1), (5, 2), (63, 18), (64, 31), (65, 33), (1280, 18)];

fn normals(rng: &mut Rng, rows: usize, cols: usize, scale: f64) -> Array {
    Array::F32(rows, cols, (0..rows * cols).map(|_| (rng.normal() * scale) as f32).collect())
}

/// Targets of every kind: allowed, not allowed, ignored and past the actions.
fn entropy_args(rng: &mut Rng, r: usize, a: usize, allowed: Array) -> Vec<Array> {
    let target = (0..r).map(|_| match rng.below(5) {
        0 => u32::MAX,
        1 => a as u32,
        _ => rng.below(a.max(1) as u64) as u32,
    });
    let target = Array::U32(1, r, target.collect());
    vec![normals(rng, r, a, 3.0), target, allowed]
}

fn mse_args(rng: &mut Rng, r: usize, a: usize, active: Array) -> Vec<Array> {
    let valid = Array::U8(1, r, (0..r).map(|_| rng.below(3) as u8).collect());
    vec![normals(rng, r, a, 1.0), normals(rng, r, a, 1.0), valid, active]
}

fn scalar(v: f32) -> Array {
    Array::F32(1, 1, vec![v])
}

#[test]
fn cross_entropy_at_awkward_sizes() {
    let mut rng = Rng::new(1, Stream::Init, [0, 0]);
    for (r, a) in SIZES {
        let some = BitMask::from_flags(1, a as u32, (0..a).map(|j| j % 3 != 1));
        for allowed in [Array::Absent, Array::Bits(some), Array::Bits(BitMask::zeros(1, a as u32))] {
            let args = entropy_args(&mut rng, r, a, allowed);
            for logprob in [Array::Absent, Array::output(Float, r, a)] {
                let args = [&args[..], &[Array::output(Float, 1, 1), logprob]].concat();
                Trial::new(&CROSS_ENTROPY, args, &[]).unwrap().verify().unwrap();
            }
            let args = [&args[..], &[scalar(0.7), Array::output(Float, r, a)]].concat();
            Trial::new(&CROSS_ENTROPY_DX, args, &[]).unwrap().verify().unwrap();
        }
    }
}

#[test]
fn excluded_actions_are_finite_and_do_not_count() {
    let logits = Array::F32(2, 3, vec![1.0, f32::NAN, 3.0, 0.0, f32::INFINITY, 0.0]);
    let allowed = Array::Bits(BitMask::from_flags(1, 3, [true, false, true]));
    let target = Array::U32(1, 2, vec![2, 1]);
    let out = Array::output(Float, 2, 3);
    let args = vec![logits.clone(), target.clone(), allowed.clone(), Array::output(Float, 1, 1), out.clone()];
    let mut t = Trial::new(&CROSS_ENTROPY, args, &[]).unwrap();
    t.run(&CROSS_ENTROPY.cpu[0], &crate::Pool::serial()).unwrap();
    // ln(1 + e^-2): only the first row counts, over two actions.
    approx::assert_relative_eq!(t.args[3].f32()[0], 0.126_928_01, max_relative = 1e-6);
    approx::assert_relative_eq!(t.args[4].f32()[0], -2.126_928, max_relative = 1e-6);
    approx::assert_relative_eq!(t.args[4].f32()[3], -std::f32::consts::LN_2, max_relative = 1e-6);
    assert_eq!([t.args[4].f32()[1], t.args[4].f32()[4]], [-1e30; 2]);
    let mut t = Trial::new(&CROSS_ENTROPY_DX, vec![logits, target, allowed, scalar(1.0), out], &[]).unwrap();
    t.run(&CROSS_ENTROPY_DX.cpu[0], &crate::Pool::serial()).unwrap();
    approx::assert_relative_eq!(t.args[4].f32()[0], 0.119_202_92, max_relative = 1e-6);
    assert_eq!(t.args[4].f32()[1..2], [0.0]);
    assert_eq!(t.args[4].f32()[3..], [0.0; 3]);
}

#[test]
fn masked_mse_at_awkward_sizes() {
    let mut rng = Rng::new(2, Stream::Init, [0, 0]);
    for (r, a) in SIZES {
        let some = Array::F32(1, a, (0..a).map(|j| (j % 3) as f32).collect());
        for active in [Array::Absent, some, Array::F32(1, a, vec![0.0; a])] {
            let args = mse_args(&mut rng, r, a, active);
            let loss = [&args[..], &[Array::output(Float, 1, 1)]].concat();
            Trial::new(&MASKED_MSE, loss, &[]).unwrap().verify().unwrap();
            let dx = [&args[..], &[scalar(-1.5), Array::output(Float, r, a)]].concat();
            Trial::new(&MASKED_MSE_DX, dx, &[]).unwrap().verify().unwrap();
        }
    }
}

#[test]
fn padding_of_the_squared_error_may_hold_nan() {
    let pred = Array::F32(3, 2, vec![1.0, f32::NAN, f32::NAN, f32::NAN, 3.0, f32::NAN]);
    let target = Array::F32(3, 2, vec![0.0, f32::NAN, f32::NAN, f32::NAN, 1.0, f32::NAN]);
    let valid = Array::U8(1, 3, vec![1, 0, 1]);
    let active = Array::F32(1, 2, vec![1.0, 0.0]);
    let args = vec![pred.clone(), target.clone(), valid.clone(), active.clone(), Array::output(Float, 1, 1)];
    let mut t = Trial::new(&MASKED_MSE, args, &[]).unwrap();
    t.verify().unwrap();
    t.run(&MASKED_MSE.cpu[0], &crate::Pool::serial()).unwrap();
    assert_eq!(t.args[4].f32(), [2.5]);
    let mut t =
        Trial::new(&MASKED_MSE_DX, vec![pred, target, valid, active, scalar(1.0), Array::output(Float, 3, 2)], &[])
            .unwrap();
    t.verify().unwrap();
    t.run(&MASKED_MSE_DX.cpu[0], &crate::Pool::serial()).unwrap();
    assert_eq!(t.args[5].f32(), [1.0, 0.0, 0.0, 0.0, 2.0, 0.0]);
}

/// Gradient of the loss reference by central differences against the gradient reference, both in f64.
fn differences(loss: &Trial, loss_at: usize, dx: &Trial, dx_at: usize) {
    let with = |at: usize, by: f64| {
        let mut r = loss.reference();
        let mut x = r.f(0);
        x[at] += by;
        r.args[0] = Value::F(x);
        (loss.op.reference)(&mut r);
        r.f(loss_at)[0]
    };
    let expected = dx.reference().f(dx_at);
    for (at, expected) in expected.iter().enumerate() {
        let slope = (with(at, 1e-5) - with(at, -1e-5)) / 2e-5;
        approx::assert_abs_diff_eq!(slope, expected, epsilon = 1e-8);
    }
}

#[test]
fn gradients_match_central_differences() {
    let mut rng = Rng::new(3, Stream::Init, [0, 0]);
    let allowed = Array::Bits(BitMask::from_flags(1, 5, (0..5).map(|j| j != 2)));
    let args = entropy_args(&mut rng, 9, 5, allowed);
    let loss = [&args[..], &[Array::output(Float, 1, 1), Array::Absent]].concat();
    let dx = [&args[..], &[scalar(1.0), Array::output(Float, 9, 5)]].concat();
    let (loss, dx) = (Trial::new(&CROSS_ENTROPY, loss, &[]), Trial::new(&CROSS_ENTROPY_DX, dx, &[]));
    differences(&loss.unwrap(), 3, &dx.unwrap(), 4);
    let args = mse_args(&mut rng, 9, 4, Array::F32(1, 4, vec![1.0, 1.0, 1.0, 0.0]));
    let loss = [&args[..], &[Array::output(Float, 1, 1)]].concat();
    let dx = [&args[..], &[scalar(1.0), Array::output(Float, 9, 4)]].concat();
    let (loss, dx) = (Trial::new(&MASKED_MSE, loss, &[]), Trial::new(&MASKED_MSE_DX, dx, &[]));
    differences(&loss.unwrap(), 4, &dx.unwrap(), 5);
}
