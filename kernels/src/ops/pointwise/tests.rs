use super::reference::normal_cdf;
use super::*;
use crate::par::Pool;
use crate::philox::{Rng, Stream};
use crate::trial::{Array, Trial};

fn floats(rows: usize, cols: usize, place: u32, scale: f64) -> Array {
    let mut rng = Rng::new(1, Stream::Data, [place, 0]);
    Array::F32(rows, cols, (0..rows * cols).map(|_| (scale * rng.normal()) as f32).collect())
}

fn trial(op: &'static Contract, inputs: Vec<Array>) -> Trial {
    let shape = inputs[0].shape().unwrap();
    let out = Array::output(DType::F32, shape.rows as usize, shape.cols as usize);
    Trial::new(op, inputs.into_iter().chain([out]).collect(), &[]).unwrap()
}

#[test]
fn variants_meet_the_reference() {
    for (r, c) in [(0, 3), (3, 0), (1, 1), (1, 31), (2, 32), (3, 33), (60, 512), (20_011, 1), (5, 7)] {
        for scale in [1e-20, 1.0, 10.0] {
            let (x, dy) = (floats(r, c, 1, scale), floats(r, c, 2, 1.0));
            trial(&GELU, vec![x.clone()]).verify().unwrap();
            trial(&GELU_DX, vec![x.clone(), dy.clone()]).verify().unwrap();
            trial(&ADD, vec![x, dy]).verify().unwrap();
        }
    }
}

#[test]
fn special_values_follow_the_formula() {
    let x = vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1e38, -1e38, 1e-40, f32::MIN, 5.0, -14.0];
    let n = x.len();
    trial(&GELU, vec![Array::F32(1, n, x.clone())]).verify().unwrap();
    trial(&GELU_DX, vec![Array::F32(1, n, x), Array::F32(1, n, vec![1.0; n])]).verify().unwrap();
}

/// Errors in units of the last place over the whole range, tails included.
#[test]
fn gelu_is_within_a_few_ulp() {
    let x: Vec<f32> = (-1_300_000..=1_300_000).map(|i| i as f32 * 1e-5).chain([1e-30, -1e-30, 200.0]).collect();
    for variant in GELU.cpu.iter().filter(|v| Isa::detect().has(v.needs)) {
        let mut t = trial(&GELU, vec![Array::F32(1, x.len(), x.clone())]);
        t.run(variant, &Pool::serial()).unwrap();
        let worst = |(x, y): (&f32, &f32)| {
            let expected = f64::from(*x) * normal_cdf(f64::from(*x));
            (f64::from(*y) - expected).abs() / (expected.abs() * 1.2e-7).max(1e-37)
        };
        let error = x.iter().zip(t.args[1].f32()).map(worst).fold(0.0, f64::max);
        assert!(error < 5.0, "{}: {error}", variant.name);
    }
}

#[test]
fn the_reference_is_the_normal_distribution() {
    // Abramowitz and Stegun, tables 26.1 and 26.2.
    let table = [(0.0, 0.5), (1.0, 0.841_344_746_068_543), (2.0, 0.977_249_868_051_821), (3.0, 0.998_650_101_968_370)];
    for (x, cdf) in table {
        assert!((normal_cdf(x) - cdf).abs() < 1e-14, "{x}");
        assert!((normal_cdf(-x) - (1.0 - cdf)).abs() < 1e-14, "{x}");
    }
    assert!((normal_cdf(-5.0) / 2.866_515_718_791_939e-7 - 1.0).abs() < 1e-11);
    assert!((normal_cdf(-10.0) / 7.619_853_024_160_527e-24 - 1.0).abs() < 1e-11);
    // Series and fraction meet.
    let at = 3.0 * std::f64::consts::SQRT_2;
    assert!((normal_cdf(-at * (1.0 + 1e-15)) / normal_cdf(-at * (1.0 - 1e-15)) - 1.0).abs() < 1e-9);
}

#[test]
fn gradient_is_that_of_the_reference() {
    let x: Vec<f64> = (-60..=60).map(|i| f64::from(i) / 10.0 + 0.01).collect();
    let gelu = |x: f64| x * normal_cdf(x);
    let n = x.len();
    let x32 = Array::F32(1, n, x.iter().map(|x| *x as f32).collect());
    let t = trial(&GELU_DX, vec![x32.clone(), Array::F32(1, n, vec![1.0; n])]);
    for (x, slope) in x32.f32().iter().zip(t.reference().f(2)) {
        let x = f64::from(*x);
        let expected = (gelu(x + 1e-5) - gelu(x - 1e-5)) / 2e-5;
        assert!((slope - expected).abs() < 1e-6 * slope.abs().max(1e-3), "{x}: {slope}, differences say {expected}");
    }
}
