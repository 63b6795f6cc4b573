//! f64 references.

use super::ROUNDS;
use crate::reference::Reference;

pub(super) fn kmeans(r: &mut Reference) {
    let k = r.dims.size('k');
    let x = r.f(0);
    let selected: Vec<bool> = if r.has(1) { r.u(1).iter().map(|bit| *bit == 1).collect() } else { vec![true; x.len()] };
    let chosen = || x.iter().zip(&selected).filter(|(_, s)| **s).map(|(x, _)| *x);
    let mut values: Vec<f64> = chosen().filter(|x| x.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    let mut distinct = values.clone();
    distinct.dedup();
    let used = k.min(distinct.len());

    let mut center = match (values.is_empty(), r.has(2)) {
        (true, _) => vec![0.0; k],
        (_, true) => lloyd(&values, r.f(2)),
        (_, false) => optimum(&values, used),
    };
    // A centre is what can be stored.
    center.iter_mut().for_each(|c| *c = f64::from(*c as f32));
    while center.len() < k {
        center.push(center[used - 1]);
    }
    let code: Vec<u32> =
        x.iter().zip(&selected).map(|(x, s)| if *s && x.is_finite() { nearest(&center, *x) } else { 0 }).collect();
    let lone = |(x, code): (&f64, &u32)| if x.is_finite() { (x - center[*code as usize]).powi(2) } else { f64::NAN };
    let inertia = x.iter().zip(&code).zip(&selected).filter(|(_, s)| **s).map(|(pair, _)| lone(pair)).sum();
    r.put_f(3, center);
    r.put_u(4, code);
    r.put_f(5, vec![inertia]);
    r.put_u(6, vec![used as u32]);
}

fn nearest(center: &[f64], x: f64) -> u32 {
    let mut best = 0;
    for j in 0..center.len() {
        if (x - center[j]).abs() < (x - center[best]).abs() {
            best = j;
        }
    }
    best as u32
}

/// Centres of the cheapest cut of sorted values into `k` runs; the leftmost cuts on ties.
fn optimum(values: &[f64], k: usize) -> Vec<f64> {
    let n = values.len();
    let shift = values[n / 2];
    let mut sums = vec![(0.0, 0.0)];
    for v in values {
        let (s, q) = sums[sums.len() - 1];
        sums.push((s + (v - shift), q + (v - shift).powi(2)));
    }
    let cost = |a: usize, b: usize| {
        let (s, q) = (sums[b].0 - sums[a].0, sums[b].1 - sums[a].1);
        if values[a] == values[b - 1] { 0.0 } else { (q - s * s / (b - a) as f64).max(0.0) }
    };
    // best[j][i]: the first i values in j + 1 runs, and where the last run starts.
    let mut best = vec![vec![(f64::INFINITY, 0); n + 1]; k];
    (1..=n).for_each(|i| best[0][i] = (cost(0, i), 0));
    for j in 1..k {
        for i in j + 1..=n {
            for cut in j..i {
                let total = best[j - 1][cut].0 + cost(cut, i);
                if total < best[j][i].0 {
                    best[j][i] = (total, cut);
                }
            }
        }
    }
    let (mut end, mut center) = (n, vec![0.0; k]);
    for j in (0..k).rev() {
        let start = best[j][end].1;
        center[j] = values[start..end].iter().sum::<f64>() / (end - start) as f64;
        end = start;
    }
    center
}

/// Rounds of "nearest centre, then mean" until nothing changes.
fn lloyd(values: &[f64], init: Vec<f64>) -> Vec<f64> {
    let mut center: Vec<f64> = init.iter().map(|c| if c.is_finite() { *c } else { 0.0 }).collect();
    center.sort_by(f64::total_cmp);
    for _ in 0..ROUNDS {
        let mut sums = vec![(0.0, 0.0); center.len()];
        for v in values {
            let sum = &mut sums[nearest(&center, *v) as usize];
            *sum = (sum.0 + v, sum.1 + 1.0);
        }
        let mut moved: Vec<f64> =
            sums.iter().zip(&center).map(|((sum, count), c)| if *count > 0.0 { sum / count } else { *c }).collect();
        moved.sort_by(f64::total_cmp);
        if moved == center {
            break;
        }
        center = moved;
    }
    center
}
