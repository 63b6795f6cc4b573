use super::{COSINE, COSINE_TOPK};
use crate::contract::{Contract, DType};
use crate::par::Pool;
use crate::philox::{Rng, Stream};
use crate::simd::Isa;
use crate::trial::{Array, Trial};
use proptest::prelude::*;

/// Rows around a shared direction, so that some cosines are large.
fn rows(rng: &mut Rng, n: usize, d: usize) -> Vec<f32> {
    (0..n * d).map(|at| (rng.normal() + 0.5 * ((at % d) as f64).cos()) as f32).collect()
}

fn trial(op: &'static Contract, q: Vec<f32>, p: Vec<f32>, [n, m, d, k]: [usize; 4]) -> Trial {
    let mut args = vec![Array::F32(n, d, q), Array::F32(m, d, p)];
    if op.name == "cosine" {
        args.push(Array::output(DType::F32, n, m));
    } else {
        args.push(Array::output(DType::F32, n, k));
        args.push(Array::output(DType::U32, n, k));
    }
    Trial::new(op, args, &[]).expect("sizes fit")
}

fn random(op: &'static Contract, sizes: [usize; 4], seed: u64) -> Trial {
    let [n, m, d, _] = sizes;
    let mut rng = Rng::new(seed, Stream::Data, [0, 0]);
    let q = rows(&mut rng, n, d);
    let p = rows(&mut rng, m, d);
    trial(op, q, p, sizes)
}

/// The output of the variant an engine would pick.
fn best(mut t: Trial) -> Vec<Array> {
    t.run(t.op.best(Isa::detect()), &Pool::serial()).expect("stays inside its outputs");
    t.args
}

#[test]
fn awkward_sizes() {
    let sizes = [
        [0, 5, 7, 2],
        [0, 0, 4, 0],
        [1, 1, 1, 1],
        [1, 1, 128, 1],
        [2, 3, 31, 3],
        [3, 12, 65, 12],
        [7, 13, 33, 2],
        [8, 13, 33, 2],
        [16, 11, 64, 5],
        [17, 24, 16, 24],
        [31, 25, 2, 1],
        [33, 7, 128, 7],
        [64, 37, 79, 10],
        [65, 100, 32, 10],
        [131, 29, 15, 4],
        [300, 90, 130, 7],
        [8, 1009, 3, 8],
        [1, 700, 144, 5],
        [6, 3, 5003, 2],
    ];
    for size in sizes {
        random(&COSINE, size, 3).verify().unwrap();
        random(&COSINE_TOPK, size, 3).verify().unwrap();
    }
    // Parts of the bank, whose lists are merged.
    for size in [[1, 4099, 32, 10], [20, 4100, 65, 3]] {
        random(&COSINE_TOPK, size, 3).verify().unwrap();
    }
    // Vectors without elements have length 0.
    random(&COSINE, [5, 4, 0, 0], 1).verify().unwrap();
    random(&COSINE_TOPK, [5, 4, 0, 2], 1).verify().unwrap();
}

#[test]
fn zero_vectors_give_zero() {
    for n in [2, 20] {
        let mut t = random(&COSINE, [n, 9, 40, 0], 8);
        if let (Array::F32(_, _, q), [_, Array::F32(_, _, p), ..]) = (&mut t.args[0].clone(), &mut t.args[..]) {
            q[40..80].fill(0.0);
            p[..40].fill(0.0);
            t.args[0] = Array::F32(n, 40, q.clone());
        }
        t.verify().unwrap();
        let y = best(t)[2].f32().to_vec();
        assert!(y[9..18].iter().all(|v| *v == 0.0), "query 1 is zero");
        assert!(y.iter().step_by(9).all(|v| *v == 0.0), "row 0 of the bank is zero");
    }
}

#[test]
fn ties_go_to_the_lower_index_and_nan_ranks_last() {
    for n in [1, 5, 70, 300] {
        let (m, d, k) = (50, 24, 30);
        let mut rng = Rng::new(4, Stream::Data, [n as u32, 0]);
        let q = rows(&mut rng, n, d);
        let mut p = rows(&mut rng, m, d);
        for j in (0..m).rev() {
            // Every row three times, each time twice as long: lengths cancel exactly.
            let scale = [1.0, 2.0, 4.0][j % 3];
            for at in 0..d {
                p[j * d + at] = p[j / 3 * 3 * d + at] * scale;
            }
        }
        trial(&COSINE_TOPK, q.clone(), p.clone(), [n, m, d, k]).verify().unwrap();
        for row in p.chunks_mut(d).step_by(7) {
            row[d / 2] = f32::NAN;
        }
        trial(&COSINE_TOPK, q.clone(), p.clone(), [n, m, d, m]).verify().unwrap();
        trial(&COSINE, q, p, [n, m, d, 0]).verify().unwrap();
    }
}

/// Lengths 1 and 2 and cosines in quarters: all variants are exact, and most scores tie, also between parts of a bank.
#[test]
fn ties_across_parts_go_to_the_lower_index() {
    for (n, m, k) in [(1, 4097, 40), (3, 9000, 2049), (9, 4100, 1), (40, 9000, 70), (70, 4500, 20), (260, 4100, 3)] {
        let mut rng = Rng::new(6, Stream::Data, [n as u32, m as u32]);
        let mut vectors = |count: usize| -> Vec<f32> {
            let mut vector = |_| {
                let signs = [0; 4].map(|_| [1.0, -1.0][rng.below(2) as usize]);
                let only = rng.below(4) as usize;
                let dense = rng.below(20) == 0;
                std::array::from_fn::<f32, 4, _>(|at| if dense || at == only { signs[at] } else { 0.0 })
            };
            (0..count).flat_map(&mut vector).collect()
        };
        let (q, p) = (vectors(n), vectors(m));
        trial(&COSINE_TOPK, q, p, [n, m, 4, k]).verify().unwrap();
    }
}

#[test]
fn k_is_checked() {
    let shape = |rows, cols, dtype| Array::output(dtype, rows, cols);
    let call = |n, m, k| {
        let args =
            vec![shape(n, 3, DType::F32), shape(m, 3, DType::F32), shape(n, k, DType::F32), shape(n, k, DType::U32)];
        Trial::new(&COSINE_TOPK, args, &[]).map(|_| ()).map_err(|e| format!("{e:?}"))
    };
    assert_eq!(call(2, 4, 4), Ok(()));
    assert_eq!(call(0, 0, 0), Ok(()));
    assert!(call(2, 4, 5).unwrap_err().contains("only m = 4"));
    assert!(call(2, 4, 0).unwrap_err().contains("at least one"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn laws(n in 1usize..40, m in 1usize..40, d in 1usize..140, power in -20i32..20, seed: u64) {
        let mut rng = Rng::new(seed, Stream::Data, [0, 0]);
        let (q, p) = (rows(&mut rng, n, d), rows(&mut rng, m, d));
        let y = best(trial(&COSINE, q.clone(), p.clone(), [n, m, d, 0]))[2].f32().to_vec();
        let back = best(trial(&COSINE, p.clone(), q.clone(), [m, n, d, 0]))[2].f32().to_vec();
        let scale = 1.5 * 2f32.powi(power);
        let longer: Vec<f32> = p.iter().map(|x| x * scale).collect();
        let scaled = best(trial(&COSINE, q.clone(), longer, [n, m, d, 0]))[2].f32().to_vec();
        for i in 0..n {
            for j in 0..m {
                let one = y[i * m + j];
                prop_assert!(one.abs() <= 1.0 + 1e-6);
                prop_assert!((one - back[j * n + i]).abs() <= 1e-6);
                prop_assert!((one - scaled[i * m + j]).abs() <= 1e-6);
            }
        }
        let itself = best(trial(&COSINE, q.clone(), q.clone(), [n, n, d, 0]))[2].f32().to_vec();
        prop_assert!(itself.iter().step_by(n + 1).all(|v| (v - 1.0).abs() <= 1e-6));

        // Selection is sorting the scores of the same sweep.
        let k = 1 + (seed % m as u64) as usize;
        let picked = best(trial(&COSINE_TOPK, q, p, [n, m, d, k]));
        for i in 0..n {
            let mut order: Vec<usize> = (0..m).collect();
            order.sort_by(|a, b| y[i * m + b].total_cmp(&y[i * m + a]));
            let expected: Vec<f32> = order[..k].iter().map(|j| y[i * m + j]).collect();
            prop_assert_eq!(&picked[2].f32()[i * k..(i + 1) * k], &expected[..]);
        }
    }
}
