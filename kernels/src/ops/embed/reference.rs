//! f64 references.

use crate::reference::Reference;

/// True where the bit is set or no bits are given.
fn bit(bits: &[u32], at: usize) -> bool {
    bits.get(at).is_none_or(|b| *b == 1)
}

pub(super) fn embed(r: &mut Reference) {
    let (v, c) = (r.dims.size('v'), r.dims.size('c'));
    let (ids, w, mask) = (r.u(0), r.f(1), r.u(2));
    let entry = |id: usize, j: usize| {
        let at = id.min(v - 1) * c + j;
        if bit(&mask, at) { w[at] } else { 0.0 }
    };
    let y = ids.iter().flat_map(|id| (0..c).map(move |j| (*id as usize, j)));
    let y = y.map(|(id, j)| if v == 0 { 0.0 } else { entry(id, j) }).collect();
    r.put_f(3, y);
}

pub(super) fn embed_dw(r: &mut Reference) {
    let (v, c) = (r.dims.size('v'), r.dims.size('c'));
    let (dy, ids, w, mask, score, candidates) = (r.f(0), r.u(1), r.f(2), r.u(3), r.f(4), r.u(5));
    let mut g = vec![0.0; v * c];
    for (row, id) in ids.iter().enumerate().filter(|_| v > 0) {
        for j in 0..c {
            g[(*id as usize).min(v - 1) * c + j] += dy[row * c + j];
        }
    }
    let sign = |s: f64| if s > 0.0 { 1.0 } else { -1.0 };
    let ds = |at: usize| match !w.is_empty() && !score.is_empty() && bit(&candidates, at) && score[at] != 0.0 {
        true => g[at] * w[at] * sign(score[at]),
        false => 0.0,
    };
    let ds = (0..v * c).map(ds).collect();
    let dw = (0..v * c).map(|at| if bit(&mask, at) { g[at] } else { 0.0 }).collect();
    r.put_f(6, dw);
    r.put_f(7, ds);
}
