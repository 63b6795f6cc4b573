use super::KMEANS;
use crate::bits::BitMask;
use crate::contract::DType;
use crate::par::Pool;
use crate::philox::{Rng, Stream};
use crate::trial::{Array, Trial};
use proptest::prelude::*;

struct Output {
    center: Vec<f32>,
    code: Vec<u8>,
    inertia: f32,
    used: u32,
}

fn trial(x: &[f32], select: Option<&[bool]>, init: Option<&[f32]>, k: usize) -> Trial {
    let n = x.len();
    let bits = |flags: &[bool]| Array::Bits(BitMask::from_flags(1, n as u32, flags.iter().copied()));
    let args = vec![
        Array::F32(1, n, x.to_vec()),
        select.map_or(Array::Absent, bits),
        init.map_or(Array::Absent, |c| Array::F32(1, k, c.to_vec())),
        Array::output(DType::F32, 1, k),
        Array::output(DType::U8, 1, n),
        Array::output(DType::F32, 1, 1),
        Array::output(DType::U32, 1, 1),
    ];
    Trial::new(&KMEANS, args, &[]).expect("sizes fit")
}

fn run(t: Trial) -> Output {
    run_variant(t, 1)
}

fn run_variant(mut t: Trial, nth: usize) -> Output {
    t.run(&KMEANS.cpu[nth], &Pool::serial()).expect("stays inside its outputs");
    match &t.args[3..] {
        [Array::F32(_, _, center), Array::U8(_, _, code), Array::F32(_, _, inertia), Array::U32(_, _, used)] => {
            Output { center: center.clone(), code: code.clone(), inertia: inertia[0], used: used[0] }
        }
        other => panic!("outputs are {other:?}"),
    }
}

fn normal(n: usize, seed: u64) -> Vec<f32> {
    let mut rng = Rng::new(seed, Stream::Data, [0, 0]);
    (0..n).map(|_| rng.normal() as f32).collect()
}

/// Least inertia over all ways to put the values into k clusters, runs or not.
fn brute_force(x: &[f32], k: usize) -> f64 {
    let mut least = f64::INFINITY;
    for assignment in 0..k.pow(x.len() as u32) {
        let code = |at: usize| assignment / k.pow(at as u32) % k;
        let mut total = 0.0;
        for j in 0..k {
            let own: Vec<f64> = (0..x.len()).filter(|at| code(*at) == j).map(|at| f64::from(x[at])).collect();
            let mean = own.iter().sum::<f64>() / own.len().max(1) as f64;
            total += own.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
        }
        least = least.min(total);
    }
    least
}

#[test]
fn against_the_reference() {
    for n in [0, 1, 2, 3, 31, 32, 33, 100, 257, 600] {
        for k in [1, 2, 3, 5, 16, 33, 256] {
            let x = normal(n, 100 * n as u64 + k as u64);
            let flags: Vec<bool> = (0..n).map(|at| at % 3 != 1).collect();
            trial(&x, None, None, k).verify().unwrap();
            trial(&x, Some(&flags), None, k).verify().unwrap();
            let init = normal(k, 5);
            trial(&x, None, Some(&init), k).verify().unwrap();
            trial(&x, Some(&flags), Some(&init), k).verify().unwrap();
        }
    }
}

#[test]
fn nothing_selected() {
    let out = run(trial(&[1.0, 2.0], Some(&[false, false]), None, 3));
    assert_eq!((out.used, out.inertia, out.center, out.code), (0, 0.0, vec![0.0; 3], vec![0, 0]));
    let out = run(trial(&[], None, Some(&[4.0, 5.0]), 2));
    assert_eq!((out.used, out.center), (0, vec![0.0; 2]));
}

#[test]
fn fewer_values_than_centres() {
    let x = [3.0, -0.0, 3.0, 0.0, -7.5];
    trial(&x, None, None, 6).verify().unwrap();
    let out = run(trial(&x, None, None, 6));
    assert_eq!(out.center, [-7.5, 0.0, 3.0, 3.0, 3.0, 3.0]);
    assert_eq!((out.code, out.inertia, out.used), (vec![2, 1, 2, 1, 0], 0.0, 3));
}

#[test]
fn values_that_are_not_finite_show_in_the_inertia_only() {
    let x = [1.0, f32::NAN, 2.0, f32::INFINITY, 9.0];
    trial(&x, None, None, 2).verify().unwrap();
    let out = run(trial(&x, None, None, 2));
    assert_eq!((out.center, out.code, out.used), (vec![1.5, 9.0], vec![0, 0, 0, 0, 1], 2));
    assert!(out.inertia.is_nan());
    // Not selected, not read.
    let out = run(trial(&x, Some(&[true, false, true, false, true]), None, 2));
    assert_eq!(out.inertia, 0.5);
}

#[test]
fn lloyd_keeps_empty_clusters_and_breaks_ties_downwards() {
    // 2 is as near to 1 as to 3 and goes to 1; nothing is near 100; equal centres: the first takes all.
    let out = run(trial(&[0.0, 2.0, 4.0], None, Some(&[100.0, 3.0, 1.0]), 3));
    assert_eq!((out.center, out.code), (vec![1.0, 4.0, 100.0], vec![0, 0, 1]));
    let x = [0.0, 1.0, 10.0, 11.0];
    trial(&x, None, Some(&[f32::NAN, 0.0, 0.0]), 3).verify().unwrap();
    let out = run(trial(&x, None, Some(&[5.0, 5.0]), 2));
    assert_eq!(out.center, [0.5, 10.5]);
}

#[test]
fn a_common_offset_costs_no_digits() {
    let x: Vec<f32> = (0..500).map(|at| 4096.0 + (at % 5) as f32 + (at % 7) as f32 / 64.0).collect();
    trial(&x, None, None, 5).verify().unwrap();
    let out = run(trial(&x, None, None, 5));
    assert!(out.center.iter().enumerate().all(|(j, c)| (c - 4096.0 - j as f32 - 3.0 / 64.0).abs() < 0.002));
}

#[test]
fn k_is_checked() {
    let call = |k: usize| {
        let mut args = vec![Array::output(DType::F32, 1, 4), Array::Absent, Array::Absent];
        args.extend(
            [(DType::F32, k), (DType::U8, 4), (DType::F32, 1), (DType::U32, 1)].map(|(t, n)| Array::output(t, 1, n)),
        );
        Trial::new(&KMEANS, args, &[]).map(|_| ()).map_err(|e| format!("{e:?}"))
    };
    assert_eq!(call(256), Ok(()));
    assert!(call(257).unwrap_err().contains("at most 256"));
    assert!(call(0).unwrap_err().contains("at least one"));
}

/// Values whose best cuts are hard to tell apart, or where blocks of one size do not fit.
fn hard(kind: usize, n: usize, seed: u64) -> Vec<f32> {
    let place = |at: usize| at as f32 / n as f32;
    let shape = |(at, x): (usize, &f32)| match kind {
        0 => *x,
        // Two equal modes: an odd centre belongs to either.
        1 => x * 0.1 + [-1.0, 1.0][at % 2],
        // Every difference is the same: many optima.
        2 => at as f32,
        // Long tails, and one value far away.
        3 if at == 0 => -1e6,
        3 => x * x * x,
        // Few values, many times each.
        4 => (x * 100.0).round() / 100.0,
        // A gap in the middle, with denormals around it.
        5 => x.signum() * 1e-39 * (1.0 + place(at)),
        _ => 1000.0 + place(at) * place(at),
    };
    normal(n, seed).iter().enumerate().map(shape).collect()
}

#[test]
fn few_candidates_hold_the_optimum() {
    for kind in 0..7 {
        for (n, k) in [(600, 2), (700, 5), (3000, 7), (3001, 8), (8300, 16)] {
            let x = hard(kind, n, (kind * n) as u64);
            let [plain, narrow] = [0, 1].map(|nth| run_variant(trial(&x, None, None, k), nth));
            let what = format!("kind {kind}, n {n}, k {k}");
            assert!(narrow.inertia <= plain.inertia * 1.000_001, "{what}: {} {}", narrow.inertia, plain.inertia);
            assert!(kind == 2 || narrow.center == plain.center, "{what}: {:?} {:?}", narrow.center, plain.center);
            assert_eq!(narrow.used, plain.used);
            let codes = (0..n).all(|at| kind == 2 || narrow.code[at] == plain.code[at]);
            assert!(codes, "{what}");
        }
    }
}

/// As many values as it takes to look for 255 cuts among candidates; the clusters are far apart.
#[test]
fn every_code_is_used() {
    let (k, each) = (256, 4100);
    let x: Vec<f32> = (0..k * each).map(|at| (at / each) as f32 + (at % each) as f32 / 32768.0).collect();
    let out = run(trial(&x, None, None, k));
    assert_eq!(out.used, 256);
    assert!((0..x.len()).all(|at| usize::from(out.code[at]) == at / each));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn optimum_equals_brute_force(x in prop::collection::vec(-4i32..5, 1..7), scale in 0.1f32..3.0, k in 1usize..4) {
        let x: Vec<f32> = x.iter().map(|v| *v as f32 * scale).collect();
        let out = run(trial(&x, None, None, k));
        prop_assert!((f64::from(out.inertia) - brute_force(&x, k)).abs() <= 1e-5 * f64::from(scale * scale));
    }

    #[test]
    fn narrowing_loses_nothing(kind in 0usize..7, n in 512usize..900, k in 2usize..6, seed: u64) {
        let x = hard(kind, n, seed);
        let [plain, narrow] = [0, 1].map(|nth| run_variant(trial(&x, None, None, k), nth).inertia);
        prop_assert!(narrow <= plain * 1.000_001, "{} {}", narrow, plain);
    }

    #[test]
    fn laws(n in 1usize..400, k in 1usize..40, seed: u64) {
        let x = normal(n, seed);
        let select: Vec<bool> = normal(n, !seed).iter().map(|v| *v > -0.5).collect();
        let out = run(trial(&x, Some(&select), None, k));
        prop_assert!(out.center.is_sorted());
        prop_assert_eq!(out.used as usize, k.min(select.iter().filter(|s| **s).count()));
        // Quantised values take at most `used` values, each the nearest centre, the lower on ties.
        for at in 0..n {
            let gap = |c: &f32| (f64::from(*c) - f64::from(x[at])).abs();
            let nearest = out.center.iter().map(gap).fold(f64::INFINITY, f64::min);
            let code = out.code[at] as usize;
            match select[at] {
                true => prop_assert_eq!(out.center.iter().position(|c| gap(c) == nearest), Some(code)),
                false => prop_assert_eq!(code, 0),
            }
            prop_assert!(code < (out.used as usize).max(1));
        }
        // Lloyd cannot improve the optimum, and the optimum is never worse than Lloyd from anywhere.
        if out.used as usize == k {
            let again = run(trial(&x, Some(&select), Some(&out.center), k));
            prop_assert!((again.inertia - out.inertia).abs() <= 1e-5 * out.inertia);
        }
        let lloyd = run(trial(&x, Some(&select), Some(&normal(k, seed ^ 1)), k));
        prop_assert!(lloyd.center.is_sorted());
        prop_assert!(out.inertia <= lloyd.inertia * 1.00001);
    }
}
