use super::*;
use crate::bits::BitMask;
use crate::contract::DType::F32 as Float;
use crate::philox::{Rng, Stream};
use crate::trial::{Array, Trial};

const SIZES: [(usize, usize, usize); 9] = [
    (0, 2, 4),
    (5, 1, 1),
    (5, 0, 3),
    (7, 2, 31),
    (33, 18, 32),
    (65, 18, 33),
    (64, 1031, 5),
    (300, 2500, 128),
    (9, 3, 0),
];

fn bits(rng: &mut Rng, rows: usize, cols: usize) -> BitMask {
    BitMask::from_flags(rows as u32, cols as u32, (0..rows * cols).map(|_| rng.below(2) == 0).collect::<Vec<_>>())
}

fn normals(rng: &mut Rng, rows: usize, cols: usize) -> Vec<f32> {
    (0..rows * cols).map(|_| rng.normal() as f32).collect()
}

/// NaN where the bit is clear.
fn poison(mut values: Vec<f32>, open: &BitMask) -> Vec<f32> {
    values.iter_mut().zip(open.flags()).filter(|(_, open)| !open).for_each(|(v, _)| *v = f32::NAN);
    values
}

#[test]
fn gather_at_awkward_sizes_with_nan_behind_cleared_bits() {
    let mut rng = Rng::new(1, Stream::Init, [0, 0]);
    for (r, v, c) in SIZES {
        // Ids past the table read its last row.
        let ids = Array::U32(1, r, (0..r).map(|_| rng.below(v as u64 + 2) as u32).collect());
        let (w, mask) = (normals(&mut rng, v, c), bits(&mut rng, v, c));
        let masked = vec![
            ids.clone(),
            Array::F32(v, c, poison(w.clone(), &mask)),
            Array::Bits(mask),
            Array::output(Float, r, c),
        ];
        Trial::new(&EMBED, masked, &[]).unwrap().verify().unwrap();
        let dense = vec![ids, Array::F32(v, c, w), Array::Absent, Array::output(Float, r, c)];
        Trial::new(&EMBED, dense, &[]).unwrap().verify().unwrap();
    }
}

#[test]
fn scatter_at_awkward_sizes_with_nan_outside_the_candidates() {
    let mut rng = Rng::new(2, Stream::Init, [0, 0]);
    for (r, v, c) in SIZES {
        let dy = Array::F32(r, c, normals(&mut rng, r, c));
        let ids = Array::U32(1, r, (0..r).map(|_| rng.below(v as u64 + 2) as u32).collect());
        let out = Array::output(Float, v, c);
        let dense = [vec![dy.clone(), ids.clone()], vec![Array::Absent; 4], vec![out.clone(), Array::Absent]].concat();
        Trial::new(&EMBED_DW, dense, &[]).unwrap().verify().unwrap();
        let (mask, open) = (bits(&mut rng, v, c), bits(&mut rng, v, c));
        let w = poison(normals(&mut rng, v, c), &open);
        let mut score = poison(normals(&mut rng, v, c), &open);
        score.iter_mut().step_by(7).for_each(|s| *s = 0.0);
        let (w, score) = (Array::F32(v, c, w), Array::F32(v, c, score));
        let args = vec![dy, ids, w, Array::Bits(mask), score, Array::Bits(open), out.clone(), out];
        Trial::new(&EMBED_DW, args, &[]).unwrap().verify().unwrap();
    }
}

#[test]
fn without_scores_the_score_gradient_is_zero() {
    let out = Array::output(Float, 2, 2);
    let args = vec![Array::F32(1, 2, vec![1.0, 2.0]), Array::U32(1, 1, vec![1])];
    let mut t = Trial::new(&EMBED_DW, [args, vec![Array::Absent; 4], vec![out.clone(), out]].concat(), &[]).unwrap();
    t.verify().unwrap();
    t.run(&EMBED_DW.cpu[0], &crate::Pool::serial()).unwrap();
    assert_eq!(t.args[6].f32(), [0.0, 0.0, 1.0, 2.0]);
    assert_eq!(t.args[7].f32(), [0.0; 4]);
}
