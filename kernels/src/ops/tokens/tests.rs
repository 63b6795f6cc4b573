use super::*;
use crate::contract::DType::F32 as Float;
use crate::trial::{Array, Trial};

fn counted(rows: usize, cols: usize, first: usize) -> Array {
    Array::F32(rows, cols, (0..rows * cols).map(|i| (first + i) as f32 * 0.37).collect())
}

#[test]
fn interleave_and_back_at_awkward_sizes() {
    for (r, c) in [(0, 4), (1, 1), (2, 31), (33, 32), (64, 33), (65, 7), (1280, 3)] {
        let x = [0, 1, 2].map(|j| counted(r, c, 100 * j));
        for time in [Array::Absent, counted(r, c, 7)] {
            let has_time = time != Array::Absent;
            let args = [&x[..], &[time, Array::output(Float, 3 * r, c)]].concat();
            Trial::new(&INTERLEAVE, args, &[]).unwrap().verify().unwrap();
            let out = Array::output(Float, r, c);
            let dtime = if has_time { out.clone() } else { Array::Absent };
            let args = vec![counted(3 * r, c, 1), out.clone(), out.clone(), out, dtime];
            Trial::new(&INTERLEAVE_DX, args, &[]).unwrap().verify().unwrap();
        }
    }
}

#[test]
fn select_and_back_at_awkward_sizes() {
    for (r, c, stride, offset) in [(0, 4, 3, 1), (1, 1, 1, 0), (5, 33, 3, 1), (65, 8, 60, 59), (1280, 2, 3, 0)] {
        let (q, scalars) = (r * stride, [stride as u32, offset]);
        let args = vec![counted(q, c, 1), Array::output(Float, r, c)];
        Trial::new(&SELECT, args, &scalars).unwrap().verify().unwrap();
        let args = vec![counted(r, c, 1), Array::output(Float, q, c)];
        Trial::new(&SELECT_DX, args, &scalars).unwrap().verify().unwrap();
    }
}

#[test]
fn windows_slide_at_awkward_sizes() {
    for (b, new, rows, c) in
        [(1, 3, 60, 128), (3, 3, 60, 33), (2, 5, 5, 4), (4, 0, 7, 2), (1, 1, 2, 1), (2, 0, 0, 3), (2, 1, 3, 0)]
    {
        let args = vec![counted(b * new, c, 9), counted(b * rows, c, 1)];
        Trial::new(&SLIDE, args, &[b as u32]).unwrap().verify().unwrap();
    }
    let args = vec![counted(2, 1, 100), counted(6, 1, 0)];
    let moved = Trial::new(&SLIDE, args, &[2]).unwrap().reference().f(1);
    let from = [1, 2, 100, 4, 5, 101].map(|i| f64::from(i as f32 * 0.37));
    assert_eq!(moved, from);
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let refused = |op, args, scalars: &[u32]| Trial::new(op, args, scalars).is_err();
    let out = |r| Array::output(Float, r, 2);
    assert!(refused(&SELECT, vec![counted(6, 2, 0), out(2)], &[0, 0]));
    assert!(refused(&SELECT, vec![counted(6, 2, 0), out(2)], &[3, 3]));
    assert!(refused(&SELECT, vec![counted(7, 2, 0), out(2)], &[3, 1]));
    assert!(refused(&SELECT_DX, vec![counted(2, 2, 0), out(5)], &[3, 1]));
    assert!(refused(&SELECT, vec![counted(6, 2, 0), out(2)], &[u32::MAX, 1]));
    for (b, r, q) in [(0, 2, 4), (2, 3, 4), (2, 2, 5), (2, 6, 4)] {
        assert!(refused(&SLIDE, vec![counted(r, 2, 0), counted(q, 2, 0)], &[b]));
    }
    assert!(refused(&INTERLEAVE_DX, vec![counted(7, 2, 0), out(2), out(2), out(2), out(2)], &[]));
}
