//! f64 references.

use crate::reference::Reference;

/// True where the bit is set or no bits are given.
fn bit(bits: &[u32], at: usize) -> bool {
    bits.get(at).is_none_or(|b| *b == 1)
}

pub(super) fn adamw(r: &mut Reference) {
    let (g, trainable, step) = (r.f(0), r.u(1), r.f(2));
    let clip = if r.has(3) { r.f(3)[0] } else { 1.0 };
    let (mut p, mut m, mut v) = (r.f(4), r.f(5), r.f(6));
    let [b1, b2, eps, weight_decay, lr_scale] = [0, 1, 2, 3, 4].map(|at| f64::from(r.dims.scalar_f32(at)));
    let complement = |beta: f64| ((1.0 - beta) * 1e7).round() / 1e7;
    let (lr, c1, c2) = (step[0] * lr_scale, step[1], step[2]);
    for at in (0..g.len()).filter(|at| bit(&trainable, *at)) {
        let g = g[at] * clip;
        m[at] = b1 * m[at] + complement(b1) * g;
        v[at] = b2 * v[at] + complement(b2) * g * g;
        p[at] = p[at] * (1.0 - lr * weight_decay) - lr * (m[at] / c1) / ((v[at] / c2).sqrt() + eps);
    }
    r.put_f(4, p);
    r.put_f(5, m);
    r.put_f(6, v);
}

pub(super) fn sumsq(r: &mut Reference) {
    let (g, trainable) = (r.f(0), r.u(1));
    let s = (0..g.len()).filter(|at| bit(&trainable, *at)).map(|at| g[at] * g[at]).sum();
    r.put_f(2, vec![s]);
}

pub(super) fn clip(r: &mut Reference) {
    let max_norm = f64::from(r.dims.scalar_f32(0));
    let norm = r.f(0).iter().sum::<f64>().sqrt();
    let off = max_norm <= 0.0 || max_norm.is_infinite();
    r.put_f(1, vec![norm]);
    r.put_f(2, vec![if off { 1.0 } else { (max_norm / (norm + 1e-6)).min(1.0) }]);
}
