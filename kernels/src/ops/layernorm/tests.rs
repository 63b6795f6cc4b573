use super::*;
use crate::philox::{Rng, Stream};
use crate::reference::{Reference, Value};
use crate::trial::{Array, Trial};

const SIZES: [(usize, usize); 14] = [
    (0, 8),
    (1, 1),
    (2, 2),
    (3, 15),
    (5, 16),
    (4, 17),
    (63, 31),
    (64, 32),
    (65, 33),
    (130, 63),
    (31, 64),
    (7, 65),
    (60, 128),
    (2, 1000),
];

fn floats(rows: usize, cols: usize, place: u32) -> Array {
    let mut rng = Rng::new(1, Stream::Data, [place, 0]);
    Array::F32(rows, cols, (0..rows * cols).map(|_| rng.normal() as f32).collect())
}

fn out(rows: usize, cols: usize) -> Array {
    Array::output(DType::F32, rows, cols)
}

fn stats(r: usize) -> Array {
    let Array::F32(_, _, mut v) = floats(r, 2, 9) else { unreachable!("floats makes F32") };
    v.iter_mut().skip(1).step_by(2).for_each(|rstd| *rstd = rstd.abs() + 0.1);
    Array::F32(r, 2, v)
}

#[test]
fn variants_meet_the_reference() {
    for (r, c) in SIZES {
        for b in [Array::Absent, floats(1, c, 3)] {
            let args = vec![floats(r, c, 1), floats(1, c, 2), b, out(r, c), out(r, 2)];
            Trial::new(&LAYERNORM, args, &[1e-5f32.to_bits()]).unwrap().verify().unwrap();
        }
        for add in [Array::Absent, floats(r, c, 5)] {
            for (dw, db) in [(false, false), (true, false), (true, true), (false, true)] {
                let wanted = |wanted: bool| if wanted { out(1, c) } else { Array::Absent };
                let args = vec![floats(r, c, 4), floats(r, c, 1), floats(1, c, 2), stats(r), add.clone(), out(r, c)];
                let args = [args, vec![wanted(dw), wanted(db)]].concat();
                Trial::new(&LAYERNORM_DX, args, &[]).unwrap().verify().unwrap();
            }
        }
    }
}

#[test]
fn a_large_mean_does_not_cancel() {
    let Array::F32(r, c, mut x) = floats(40, 128, 1) else { unreachable!("floats makes F32") };
    x.iter_mut().for_each(|x| *x += 1000.0);
    let args = vec![Array::F32(r, c, x), floats(1, c, 2), Array::Absent, out(r, c), out(r, 2)];
    let trial = Trial::new(&LAYERNORM, args, &[1e-5f32.to_bits()]).unwrap();
    let expected = trial.reference().f(3);
    for variant in LAYERNORM.variants(Isa::detect(), DType::F32) {
        let mut got = trial.clone();
        got.run(variant, &crate::par::Pool::serial()).unwrap();
        let error = got.args[3].f32().iter().zip(&expected).map(|(g, e)| (f64::from(*g) - e).abs()).fold(0.0, f64::max);
        // The mean itself is rounded to 6e-5 here; the variance must not lose more.
        assert!(error < 1e-3, "{}: {error}", variant.name);
    }
}

/// A reference call on given values.
fn call(op: &'static Contract, args: Vec<Value>, r: usize, c: usize, scalars: &[u32]) -> Reference {
    let shape = |a: &Contract, at: usize| {
        let dims = a.args[at].dims;
        let size = |l: &char| match l {
            'r' => r as u32,
            'c' => c as u32,
            _ => 2,
        };
        let cols = size(&dims[dims.len() - 1]);
        ArgShape { dtype: DType::F32, rows: if dims.len() == 2 { size(&dims[0]) } else { 1 }, cols }
    };
    let shapes: Vec<_> = (0..args.len()).map(|at| (args[at] != Value::Absent).then(|| shape(op, at))).collect();
    let dims = op.unify(&shapes, scalars).unwrap();
    let mut call = Reference { dims, dtypes: vec![DType::F32; args.len()], args };
    (op.reference)(&mut call);
    call
}

#[test]
fn gradients_are_those_of_the_reference() {
    let (r, c, eps) = (3, 7, 1e-5f32.to_bits());
    let values = |rows, place| {
        let Value::F(v) = floats(rows, c, place).value() else { unreachable!("floats makes F32") };
        v
    };
    let (x, w, b, dy) = (values(r, 1), values(1, 2), values(1, 3), values(r, 4));
    let forward = |x: &[f64], w: &[f64], b: &[f64]| {
        let inputs = [x, w, b].map(|v| Value::F(v.to_vec()));
        let outputs = [Value::F(vec![]), Value::F(vec![])];
        call(&LAYERNORM, inputs.into_iter().chain(outputs).collect(), r, c, &[eps])
    };
    let loss = |x: &[f64], w: &[f64], b: &[f64]| forward(x, w, b).f(3).iter().zip(&dy).map(|(y, d)| y * d).sum::<f64>();
    let slope = |at: usize, which: usize| {
        let shifted = |h: f64| {
            let mut all = [x.clone(), w.clone(), b.clone()];
            all[which][at] += h;
            loss(&all[0], &all[1], &all[2])
        };
        (shifted(1e-5) - shifted(-1e-5)) / 2e-5
    };
    let f = |v: &[f64]| Value::F(v.to_vec());
    let stats = forward(&x, &w, &b).f(4);
    let args = vec![f(&dy), f(&x), f(&w), f(&stats), Value::Absent, f(&[]), f(&[]), f(&[])];
    let back = call(&LAYERNORM_DX, args, r, c, &[]);
    for (which, got) in [back.f(5), back.f(6), back.f(7)].iter().enumerate() {
        let scale = got.iter().fold(0.0f64, |m, g| m.max(g.abs()));
        for (at, g) in got.iter().enumerate() {
            let expected = slope(at, which);
            assert!((g - expected).abs() < 1e-6 * scale, "input {which} at {at}: {g}, differences say {expected}");
        }
    }
}

#[test]
fn eps_is_checked() {
    for eps in [-1.0, f32::NAN, f32::INFINITY] {
        let args = vec![floats(1, 4, 1), floats(1, 4, 2), Array::Absent, out(1, 4), out(1, 2)];
        assert!(Trial::new(&LAYERNORM, args, &[eps.to_bits()]).is_err());
    }
}
