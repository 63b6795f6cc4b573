//! f64 references.

use crate::reference::Reference;

pub(super) fn sum(r: &mut Reference) {
    let total = r.f(0).iter().sum();
    r.put_f(1, vec![total]);
}

pub(super) fn moments(r: &mut Reference) {
    let (rows, cols) = (r.dims.size('r'), r.dims.size('c'));
    let (x, floor) = (r.f(0), f64::from(r.dims.scalar_f32(0)));
    let column = |c: usize| (0..rows).map(|i| x[i * cols + c]).collect::<Vec<f64>>();
    let average = |v: &[f64]| if v.is_empty() { 0.0 } else { v.iter().sum::<f64>() / v.len() as f64 };
    let (mean, var) = (0..cols)
        .map(|c| {
            let x = column(c);
            let mean = average(&x);
            let squares: Vec<f64> = x.iter().map(|v| (v - mean).powi(2)).collect();
            (mean, average(&squares).max(floor))
        })
        .unzip();
    r.put_f(1, mean);
    r.put_f(2, var);
}

pub(super) fn sym_kl(r: &mut Reference) {
    let [mp, vp, mq, vq] = [0, 1, 2, 3].map(|at| r.f(at));
    let one = |m1: f64, v1: f64, m2: f64, v2: f64| 0.5 * ((v2 / v1).ln() + (v1 + (m1 - m2).powi(2)) / v2 - 1.0);
    let kl = (0..mp.len()).map(|j| 0.5 * (one(mp[j], vp[j], mq[j], vq[j]) + one(mq[j], vq[j], mp[j], vp[j]))).sum();
    r.put_f(4, vec![kl]);
}
