//! f64 reference.

use super::sizes;
use crate::reference::Reference;

pub(super) fn attend(r: &mut Reference) {
    let (heads, t, d) = sizes(&r.dims);
    let (q, kv, valid, c) = (r.f(0), r.f(1), r.u(2), heads * d);
    let mut y = vec![0.0; q.len()];
    for (b, head) in (0..r.dims.size('b')).flat_map(|b| (0..heads).map(move |head| (b, head))) {
        let own = b * c + head * d;
        let key = |p: usize, i: usize| kv[(b * t + p) * 2 * c + head * d + i];
        let value = |p: usize, i: usize| kv[(b * t + p) * 2 * c + c + head * d + i];
        let visible: Vec<usize> = (0..t).filter(|p| valid[b * t + p] != 0).collect();
        let dot = |p: &usize| (0..d).map(|i| q[own + i] * key(*p, i)).sum::<f64>() / (d as f64).sqrt();
        let logits: Vec<f64> = visible.iter().map(dot).collect();
        let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logits.iter().map(|logit| (logit - top).exp()).sum();
        for (p, logit) in visible.iter().zip(&logits) {
            for i in 0..d {
                y[own + i] += (logit - top).exp() / sum * value(*p, i);
            }
        }
    }
    r.put_f(3, y);
}
