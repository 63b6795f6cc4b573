use super::*;
use crate::contract::DType::F32 as Float;
use crate::philox::{Rng, Stream};
use crate::trial::{Array, Trial};

fn normals(n: usize, seed: u64) -> Vec<f32> {
    let mut rng = Rng::new(seed, Stream::Init, [0, 0]);
    (0..n).map(|_| rng.normal() as f32).collect()
}

fn row(v: &[f32]) -> Array {
    Array::F32(1, v.len(), v.to_vec())
}

#[test]
fn sums_and_moments_at_awkward_sizes() {
    for (r, c) in [(0, 3), (3, 0), (1, 1), (2, 15), (5, 16), (31, 17), (33, 32), (1031, 33), (1, 70_001), (70_001, 1)] {
        let x = Array::F32(r, c, normals(r * c, 1));
        Trial::new(&SUM, vec![x.clone(), Array::output(Float, 1, 1)], &[]).unwrap().verify().unwrap();
        let args = vec![x, Array::output(Float, 1, c), Array::output(Float, 1, c)];
        Trial::new(&MOMENTS, args, &[1e-6f32.to_bits()]).unwrap().verify().unwrap();
    }
}

#[test]
fn a_large_mean_does_not_eat_the_variance_and_no_rows_give_the_floor() {
    let x: Vec<f32> = (0..1000).map(|i| 4096.0 + (i % 2) as f32).collect();
    let moments = |rows: usize, x: Vec<f32>| {
        let args = vec![Array::F32(rows, 1, x), Array::output(Float, 1, 1), Array::output(Float, 1, 1)];
        let mut t = Trial::new(&MOMENTS, args, &[0.125f32.to_bits()]).unwrap();
        t.run(&MOMENTS.cpu[0], &crate::Pool::serial()).unwrap();
        (t.args[1].f32()[0], t.args[2].f32()[0])
    };
    assert_eq!(moments(1000, x), (4096.5, 0.25));
    assert_eq!(moments(1000, vec![7.0; 1000]), (7.0, 0.125));
    assert_eq!(moments(0, Vec::new()), (0.0, 0.125));
}

#[test]
fn symmetric_kl_by_hand_and_at_sizes() {
    let kl = |p: (&[f32], &[f32]), q: (&[f32], &[f32])| {
        let args = vec![row(p.0), row(p.1), row(q.0), row(q.1), Array::output(Float, 1, 1)];
        let mut t = Trial::new(&SYM_KL, args, &[]).unwrap();
        t.verify().unwrap();
        t.run(&SYM_KL.cpu[0], &crate::Pool::serial()).unwrap();
        t.args[4].f32()[0]
    };
    assert_eq!(kl((&[0.0], &[1.0]), (&[1.0], &[1.0])), 0.5);
    assert_eq!(kl((&[0.0], &[1.0]), (&[0.0], &[4.0])), 0.5625);
    assert_eq!(kl((&[3.0], &[2.0]), (&[3.0], &[2.0])), 0.0);
    for n in [0, 1, 31, 33, 128, 1031] {
        let (m1, m2) = (normals(n, 2), normals(n, 3));
        let [v1, v2] = [4, 5].map(|s| normals(n, s).iter().map(|v| v * v + 0.01).collect::<Vec<_>>());
        assert_eq!(kl((&m1, &v1), (&m2, &v2)), kl((&m2, &v2), (&m1, &v1)));
    }
}
