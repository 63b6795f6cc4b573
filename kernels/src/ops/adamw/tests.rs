use super::*;
use crate::bits::BitMask;
use crate::contract::DType::F32 as Float;
use crate::par::Pool;
use crate::philox::{Rng, Stream};
use crate::trial::{Array, Trial};

const SIZES: [(usize, usize); 12] =
    [(0, 5), (3, 0), (1, 1), (128, 1), (2, 15), (3, 16), (5, 31), (4, 32), (7, 33), (3, 97), (130, 257), (1, 70_001)];

fn normals(rng: &mut Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| rng.normal() as f32).collect()
}

fn bits(rng: &mut Rng, rows: usize, cols: usize, percent: u64) -> BitMask {
    let flags: Vec<bool> = (0..rows * cols).map(|_| rng.below(100) < percent).collect();
    BitMask::from_flags(rows as u32, cols as u32, flags)
}

/// NaN where the bit is clear.
fn poison(mut values: Vec<f32>, open: &BitMask) -> Vec<f32> {
    values.iter_mut().zip(open.flags()).filter(|(_, open)| !open).for_each(|(v, _)| *v = f32::NAN);
    values
}

fn scalars(lr_scale: f32, weight_decay: f32) -> [u32; 5] {
    [0.9f32, 0.999, 1e-8, weight_decay, lr_scale].map(f32::to_bits)
}

/// `(lr, c1, c2, 0)` as the host computes it.
fn step(lr: f64, t: i32) -> Array {
    Array::F32(1, 4, vec![lr as f32, (1.0 - 0.9f64.powi(t)) as f32, (1.0 - 0.999f64.powi(t)) as f32, 0.0])
}

#[test]
fn updates_at_awkward_sizes_and_densities_with_nan_in_frozen_entries() {
    let mut rng = Rng::new(1, Stream::Init, [0, 0]);
    for (o, i) in SIZES {
        for percent in [0, 8, 50, 97, 100] {
            let open = bits(&mut rng, o, i, percent);
            let [g, p, m] = [(); 3].map(|_| Array::F32(o, i, poison(normals(&mut rng, o * i), &open)));
            let v = normals(&mut rng, o * i).iter().map(|x| x * x).collect();
            let v = Array::F32(o, i, poison(v, &open));
            let clip = Array::F32(1, 1, vec![0.3]);
            let args = vec![g.clone(), Array::Bits(open), step(1e-2, 7), clip, p.clone(), m.clone(), v.clone()];
            Trial::new(&ADAMW, args, &scalars(0.5, 0.01)).unwrap().verify().unwrap();
            if percent == 100 {
                let args = vec![g, Array::Absent, step(1e-2, 7), Array::Absent, p, m, v];
                Trial::new(&ADAMW, args, &scalars(1.0, 0.01)).unwrap().verify().unwrap();
            }
        }
    }
}

#[test]
fn sums_and_clip_factors_at_awkward_sizes() {
    let mut rng = Rng::new(2, Stream::Init, [0, 0]);
    for (o, i) in SIZES {
        for percent in [0, 8, 97, 100] {
            let open = bits(&mut rng, o, i, percent);
            let g = Array::F32(o, i, poison(normals(&mut rng, o * i), &open));
            let trainable = if percent == 100 { Array::Absent } else { Array::Bits(open) };
            let args = vec![g, trainable, Array::output(Float, 1, 1)];
            Trial::new(&SUMSQ, args, &[]).unwrap().verify().unwrap();
        }
        let s = Array::F32(1, o, normals(&mut rng, o).iter().map(|x| x * x).collect());
        for max_norm in [1.0, 0.25, 1e9, 0.0, -1.0, f32::INFINITY] {
            let args = vec![s.clone(), Array::output(Float, 1, 1), Array::output(Float, 1, 1)];
            Trial::new(&CLIP, args, &[max_norm.to_bits()]).unwrap().verify().unwrap();
        }
    }
}

#[test]
fn clip_by_hand() {
    let factor = |max_norm: f32| {
        let args = vec![Array::F32(1, 2, vec![9.0, 16.0]), Array::output(Float, 1, 1), Array::output(Float, 1, 1)];
        let mut t = Trial::new(&CLIP, args, &[max_norm.to_bits()]).unwrap();
        t.run(&CLIP.cpu[0], &Pool::serial()).unwrap();
        (t.args[1].f32()[0], t.args[2].f32()[0])
    };
    assert_eq!(factor(1.0), (5.0, (1.0 / (5.0f64 + 1e-6)) as f32));
    assert_eq!(factor(0.0), (5.0, 1.0));
    assert_eq!(factor(f32::INFINITY), (5.0, 1.0));
}

#[test]
fn a_frozen_entry_is_bit_identical_after_1000_steps_with_decay_and_preloaded_moments() {
    let mut rng = Rng::new(3, Stream::Init, [0, 0]);
    let (o, i) = (3, 77);
    let isa = crate::simd::Isa::detect();
    for variant in ADAMW.cpu.iter().filter(|v| isa.has(v.needs)) {
        let open = bits(&mut rng, o, i, 60);
        // A signalling NaN and a negative zero must survive as they are.
        let mut old = [(); 3].map(|_| normals(&mut rng, o * i));
        for state in &mut old {
            for (at, _) in open.flags().enumerate().filter(|(at, open)| !open && at % 3 == 0) {
                state[at] = [f32::from_bits(0x7F80_0001), -0.0][at % 2];
            }
        }
        old[2].iter_mut().filter(|x| **x < 0.0).for_each(|x| *x = -*x);
        let state = old.clone().map(|x| Array::F32(o, i, x));
        let g = Array::F32(o, i, Vec::new());
        let [p, m, v] = state;
        let args = vec![g, Array::Bits(open.clone()), step(1e-3, 1), Array::Absent, p, m, v];
        let mut t = Trial::new(&ADAMW, args, &scalars(1.0, 0.1)).unwrap();
        for at in 1..=1000 {
            t.args[0] = Array::F32(o, i, normals(&mut rng, o * i));
            t.args[2] = step(1e-3, at);
            t.run(variant, &Pool::serial()).unwrap();
        }
        for (old, new) in old.iter().zip(&t.args[4..]) {
            for ((old, new), open) in old.iter().zip(new.f32()).zip(open.flags()) {
                assert_eq!(old.to_bits() != new.to_bits(), open, "{}: {old} became {new}", variant.name);
            }
        }
    }
}

#[test]
fn the_complement_is_the_decimal_that_was_meant() {
    for (beta, expected) in [(0.999f32, 0.001f32), (0.9, 0.1), (0.95, 0.05), (0.9999, 1e-4), (0.5, 0.5), (1.0, 0.0)] {
        assert_eq!(cpu::complement(beta), expected);
    }
    assert_eq!(cpu::complement(0.0), 1.0);
}
