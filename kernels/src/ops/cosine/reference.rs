//! f64 references.

use crate::reference::Reference;

/// All cosines, row major `[n, m]`.
fn cosines(r: &Reference) -> Vec<f64> {
    let (n, m, d) = (r.dims.size('n'), r.dims.size('m'), r.dims.size('d'));
    let (q, p) = (r.f(0), r.f(1));
    let row = |v: &[f64], at: usize| v[at * d..(at + 1) * d].to_vec();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    let mut y = Vec::with_capacity(n * m);
    for i in 0..n {
        let a = row(&q, i);
        for j in 0..m {
            let b = row(&p, j);
            y.push(dot(&a, &b) / (dot(&a, &a).sqrt().max(1e-8) * dot(&b, &b).sqrt().max(1e-8)));
        }
    }
    y
}

pub(super) fn cosine(r: &mut Reference) {
    let y = cosines(r);
    r.put_f(2, y);
}

pub(super) fn cosine_topk(r: &mut Reference) {
    let (n, m, k) = (r.dims.size('n'), r.dims.size('m'), r.dims.size('k'));
    let y = cosines(r);
    let (mut score, mut index) = (Vec::new(), Vec::new());
    for i in 0..n {
        let rank = |j: u32| if y[i * m + j as usize].is_nan() { f64::NEG_INFINITY } else { y[i * m + j as usize] };
        let mut order: Vec<u32> = (0..m as u32).collect();
        // The sort is stable, so equal scores stay in index order.
        order.sort_by(|a, b| rank(*b).total_cmp(&rank(*a)));
        score.extend(order[..k].iter().map(|j| rank(*j)));
        index.extend_from_slice(&order[..k]);
    }
    r.put_f(2, score);
    r.put_u(3, index);
}
