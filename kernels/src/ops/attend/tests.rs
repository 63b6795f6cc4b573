use super::*;
use crate::par::Pool;
use crate::philox::{Rng, Stream};
use crate::simd::Isa;
use crate::trial::{Array, Trial};

fn floats(rows: usize, cols: usize, place: u32) -> Array {
    let mut rng = Rng::new(1, Stream::Data, [place, 0]);
    Array::F32(rows, cols, (0..rows * cols).map(|_| rng.normal() as f32).collect())
}

fn verify(b: usize, t: usize, h: usize, d: usize, valid: impl Fn(usize) -> bool) {
    let c = h * d;
    let flags = Array::U8(b, t, (0..b * t).map(|at| u8::from(valid(at % t))).collect());
    let args = vec![floats(b, c, 1), floats(b * t, 2 * c, 2), flags, Array::output(DType::F32, b, c)];
    let trial = Trial::new(&ATTEND, args, &[h as u32]).unwrap();
    trial.verify().unwrap_or_else(|e| panic!("b {b} t {t} h {h} d {d}: {e}"));
}

#[test]
fn lengths_and_paddings() {
    for t in [0, 1, 2, 15, 16, 17, 31, 59, 60, 61, 130] {
        verify(2, t, 2, 8, |_| true);
        verify(3, t, 1, 12, |p| p * 7 % 3 != 0);
        verify(2, t, 4, 32, |p| p + 5 >= t);
        verify(1, t, 2, 8, |_| false);
    }
}

#[test]
fn widths() {
    for d in [1, 4, 7, 8, 15, 16, 17, 32, 33, 63, 64, 65, 128, 130] {
        verify(2, 19, 1, d, |_| true);
        verify(1, 19, 3, d, |p| p != 18);
    }
    verify(0, 5, 2, 4, |_| true);
}

#[test]
fn hidden_tokens_are_not_read() {
    let (b, t, h, d) = (2, 19, 2, 12);
    let hidden = |at: usize| at % 3 == 1;
    let flags = Array::U8(b, t, (0..b * t).map(|at| u8::from(!hidden(at))).collect());
    let args = vec![floats(b, h * d, 1), floats(b * t, 2 * h * d, 2), flags, Array::output(DType::F32, b, h * d)];
    let trial = Trial::new(&ATTEND, args, &[h as u32]).unwrap();
    let mut changed = trial.clone();
    let Array::F32(_, _, kv) = &mut changed.args[1] else { unreachable!("made of floats") };
    kv.chunks_exact_mut(2 * h * d).enumerate().filter(|(at, _)| hidden(*at)).for_each(|(_, row)| row.fill(f32::NAN));
    for variant in ATTEND.cpu.iter().filter(|v| Isa::detect().has(v.needs)) {
        let [before, after] = [&trial, &changed].map(|trial| {
            let mut trial = trial.clone();
            trial.run(variant, &Pool::serial()).unwrap();
            trial.args[3].f32().iter().map(|x| x.to_bits()).collect::<Vec<_>>()
        });
        assert_eq!(before, after, "{}", variant.name);
    }
}

#[test]
fn it_is_the_last_row_of_attention() {
    use crate::ops::attention::ATTENTION;
    let (b, t, h, d) = (2, 9, 2, 4);
    let (c, r) = (h * d, b * t);
    let Array::F32(_, _, all) = floats(r, 3 * c, 1) else { unreachable!("made of floats") };
    let cut = |rows: Vec<usize>, from: usize, to: usize| -> Array {
        let values = rows.iter().flat_map(|r| all[r * 3 * c + from..r * 3 * c + to].to_vec()).collect();
        Array::F32(rows.len(), to - from, values)
    };
    let flags = Array::U8(b, t, (0..r).map(|at| u8::from(at % 4 != 1)).collect());
    let last: Vec<usize> = (0..b).map(|b| (b + 1) * t - 1).collect();
    let (q, kv) = (cut(last.clone(), 0, c), cut((0..r).collect(), c, 3 * c));
    let one = Trial::new(&ATTEND, vec![q, kv, flags.clone(), Array::output(DType::F32, b, c)], &[h as u32]).unwrap();
    let outs = [Array::output(DType::F32, r, c), Array::output(DType::F32, r, h)];
    let [y, stats] = outs;
    let args = vec![Array::F32(r, 3 * c, all.clone()), flags, Array::Absent, y, stats];
    let every = Trial::new(&ATTENTION, args, &[h as u32, 0, 0]).unwrap();
    let (one, every) = (one.reference().f(3), every.reference().f(3));
    let want: Vec<f64> = last.iter().flat_map(|r| every[r * c..][..c].to_vec()).collect();
    assert!(one.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-12), "{one:?} {want:?}");
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let refused = |c: usize, e: usize, r: usize, heads: u32| {
        let args = vec![floats(2, c, 1), floats(r, e, 2), Array::U8(2, 3, vec![1; 6]), Array::output(DType::F32, 2, c)];
        Trial::new(&ATTEND, args, &[heads]).is_err()
    };
    assert!(!refused(4, 8, 6, 2));
    assert!(refused(4, 8, 6, 0) && refused(4, 8, 6, 3) && refused(4, 12, 6, 2) && refused(4, 8, 7, 2));
}
