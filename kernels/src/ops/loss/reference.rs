//! f64 references.

use super::cpu::EXCLUDED;
use crate::reference::Reference;

/// Log-softmax over allowed actions, `None` elsewhere.
fn log_softmax(row: &[f64], allowed: &[u32]) -> Vec<Option<f64>> {
    let open = |j: usize| allowed.get(j).is_none_or(|b| *b == 1);
    let max = (0..row.len()).filter(|j| open(*j)).map(|j| row[j]).fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = (0..row.len()).filter(|j| open(*j)).map(|j| (row[j] - max).exp()).sum();
    (0..row.len()).map(|j| open(j).then(|| row[j] - max - sum.ln())).collect()
}

/// Log-softmax rows and, for counted rows, the target.
fn rows(r: &Reference) -> Vec<(Vec<Option<f64>>, Option<usize>)> {
    let (rows, a) = (r.dims.size('r'), r.dims.size('a'));
    let (logits, target, allowed) = (r.f(0), r.u(1), r.u(2));
    let row = |i: usize| {
        let logprob = log_softmax(&logits[i * a..(i + 1) * a], &allowed);
        let target = target[i] as usize;
        let counted = logprob.get(target).is_some_and(|p| p.is_some());
        (logprob, counted.then_some(target))
    };
    (0..rows).map(row).collect()
}

pub(super) fn cross_entropy(r: &mut Reference) {
    let rows = rows(r);
    let losses: Vec<f64> = rows.iter().filter_map(|(logprob, target)| logprob[(*target)?].map(|p| -p)).collect();
    r.put_f(3, vec![losses.iter().sum::<f64>() / losses.len().max(1) as f64]);
    let logprob = rows.iter().flat_map(|(logprob, _)| logprob.iter().map(|p| p.unwrap_or(f64::from(EXCLUDED))));
    r.put_f(4, logprob.collect());
}

pub(super) fn cross_entropy_dx(r: &mut Reference) {
    let rows = rows(r);
    let count = rows.iter().filter(|(_, target)| target.is_some()).count() as f64;
    let dloss = r.f(3)[0];
    let row = |(logprob, target): &(Vec<Option<f64>>, Option<usize>)| -> Vec<f64> {
        let entry = |j: usize| match (target, logprob[j]) {
            (Some(target), Some(p)) => dloss * (p.exp() - f64::from(u8::from(j == *target))) / count,
            _ => 0.0,
        };
        (0..logprob.len()).map(entry).collect()
    };
    let dlogits = rows.iter().flat_map(row).collect();
    r.put_f(4, dlogits);
}

/// Weights of the dimensions, and `sum active * max(1, valid rows)`.
fn weights(r: &Reference) -> (Vec<f64>, f64) {
    let active = if r.has(3) { r.f(3) } else { vec![1.0; r.dims.size('a')] };
    let sum: f64 = active.iter().sum();
    let valid = r.u(2).iter().filter(|v| **v != 0).count();
    let per_row = if sum == 0.0 { 1.0 } else { sum };
    (active, per_row * valid.max(1) as f64)
}

/// `(index, weight, pred - target)` of every entry that counts.
fn errors(r: &Reference) -> Vec<(usize, f64, f64)> {
    let (pred, target, valid, (active, _)) = (r.f(0), r.f(1), r.u(2), weights(r));
    let a = active.len();
    let counts = |at: &usize| valid[at / a] != 0 && active[at % a] != 0.0;
    (0..pred.len()).filter(counts).map(|at| (at, active[at % a], pred[at] - target[at])).collect()
}

pub(super) fn masked_mse(r: &mut Reference) {
    let sum: f64 = errors(r).iter().map(|(_, weight, error)| weight * error * error).sum();
    let scale = weights(r).1;
    r.put_f(4, vec![sum / scale]);
}

pub(super) fn masked_mse_dx(r: &mut Reference) {
    let (dloss, scale) = (r.f(4)[0], weights(r).1);
    let mut dpred = vec![0.0; r.f(0).len()];
    for (at, weight, error) in errors(r) {
        dpred[at] = dloss * 2.0 * weight * error / scale;
    }
    r.put_f(5, dpred);
}
