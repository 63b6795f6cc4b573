//! f64 references.

use super::{Shape, draw};
use crate::reference::Reference;

/// Calls `f(row of the query, head, factors)` with, for each earlier or equal token of the sequence, the logit (`None`
/// if it is hidden) and the dropout factor (0 or 1 / (1 - drop)).
fn each_query(r: &Reference, mut f: impl FnMut(usize, usize, &[(Option<f64>, f64)])) {
    let (shape, qkv, valid, rng) = (Shape::new(&r.dims), r.f(0), r.u(1), r.u(2));
    let draw = draw((!rng.is_empty()).then_some(&rng[..]), &r.dims);
    let (t, width) = (shape.t, 3 * shape.heads * shape.d);
    for row in 0..r.dims.size('r') {
        let (sequence, q) = (row / t, row % t);
        for head in 0..shape.heads {
            let keys = (0..=q).map(|p| {
                let at = sequence * t + p;
                let (query, key) = (shape.columns(0, head), shape.columns(1, head));
                let dot: f64 = query.zip(key).map(|(i, j)| qkv[row * width + i] * qkv[at * width + j]).sum();
                let element = shape.element(sequence, head, q) + p as u64;
                let factor = draw.map_or(1.0, |d| if d.keeps(element) { f64::from(d.scale()) } else { 0.0 });
                ((valid[at] != 0).then(|| dot / (shape.d as f64).sqrt()), factor)
            });
            f(row, head, &keys.collect::<Vec<_>>());
        }
    }
}

pub(super) fn attention(r: &mut Reference) {
    let (shape, qkv) = (Shape::new(&r.dims), r.f(0));
    let (t, width) = (shape.t, shape.heads * shape.d);
    let mut y = vec![0.0; r.dims.size('r') * width];
    let mut stats = vec![0.0; r.dims.size('r') * shape.heads];
    each_query(r, |row, head, keys| {
        let visible = || keys.iter().enumerate().filter_map(|(p, (logit, factor))| Some((p, (*logit)?, *factor)));
        if visible().next().is_none() {
            return;
        }
        let top = visible().fold(f64::NEG_INFINITY, |m, (_, logit, _)| m.max(logit));
        let sum: f64 = visible().map(|(_, logit, _)| (logit - top).exp()).sum();
        stats[row * shape.heads + head] = top + sum.ln();
        for (p, logit, factor) in visible() {
            let probability = (logit - top).exp() / sum * factor;
            for (i, v) in shape.columns(0, head).zip(shape.columns(2, head)) {
                y[row * width + i] += probability * qkv[(row / t * t + p) * 3 * width + v];
            }
        }
    });
    r.put_f(3, y);
    r.put_f(4, stats);
}

pub(super) fn attention_dx(r: &mut Reference) {
    let (shape, qkv, y, stats, dy) = (Shape::new(&r.dims), r.f(0), r.f(3), r.f(4), r.f(5));
    let (t, width) = (shape.t, shape.heads * shape.d);
    let scale = 1.0 / (shape.d as f64).sqrt();
    let mut dqkv = vec![0.0; qkv.len()];
    each_query(r, |row, head, keys| {
        let own = || shape.columns(0, head).map(|i| row * width + i);
        let dy_y: f64 = own().map(|i| dy[i] * y[i]).sum();
        for (p, (logit, factor)) in keys.iter().enumerate() {
            let Some(logit) = logit else { continue };
            let at = row / t * t + p;
            let probability = (logit - stats[row * shape.heads + head]).exp();
            let dy_v: f64 = own().zip(shape.columns(2, head)).map(|(i, v)| dy[i] * qkv[at * 3 * width + v]).sum();
            let dlogit = probability * (factor * dy_v - dy_y);
            for (i, from) in own().enumerate() {
                let [q, k, v] = [0, 1, 2].map(|part| shape.columns(part, head).start + i);
                dqkv[row * 3 * width + q] += scale * dlogit * qkv[at * 3 * width + k];
                dqkv[at * 3 * width + k] += scale * dlogit * qkv[row * 3 * width + q];
                dqkv[at * 3 * width + v] += factor * probability * dy[from];
            }
        }
    });
    r.put_f(6, dqkv);
}
