//! f64 references.

use crate::ops::gemm::reference::{column_sums, outer, put_back, put_forward};
use crate::reference::Reference;

pub(super) fn masked_gemm(c: &mut Reference) {
    let (r, i, o) = sizes(c);
    let (x, w, mask) = (c.f(0), c.f(1), c.u(2));
    let (bias, bias_mask) = (c.f(3), c.u(4));
    let mut y = vec![0.0; r * o];
    for row in 0..r {
        for col in 0..o {
            let kept = (0..i).filter(|j| mask[col * i + j] == 1);
            let sum: f64 = kept.map(|j| x[row * i + j] * w[col * i + j]).sum();
            let keeps_bias = !bias.is_empty() && bias_mask.get(col) != Some(&0);
            y[row * o + col] = sum + if keeps_bias { bias[col] } else { 0.0 };
        }
    }
    put_forward(c, 5, y);
}

pub(super) fn masked_gemm_dx(c: &mut Reference) {
    let (r, i, o) = sizes(c);
    let (dy, w, mask) = (c.f(0), c.f(1), c.u(2));
    let mut dx = vec![0.0; r * i];
    for row in 0..r {
        for col in 0..i {
            let kept = (0..o).filter(|k| mask[k * i + col] == 1);
            dx[row * i + col] = kept.map(|k| dy[row * o + k] * w[k * i + col]).sum();
        }
    }
    put_back(c, 3, dx);
}

pub(super) fn masked_gemm_dw(c: &mut Reference) {
    let (r, i, o) = sizes(c);
    let g = outer(&c.f(0), &c.f(1), r, i, o);
    let ds = score_gradient(&g, &c.f(2), &c.f(4), &c.u(5));
    let dw = keep(&g, &c.u(3));
    c.put_f(6, dw);
    c.put_f(7, ds);
}

pub(super) fn masked_bias_dw(c: &mut Reference) {
    let g = column_sums(&c.f(0), c.dims.size('r'), c.dims.size('o'), c.dims.scalar(0) as usize);
    let ds = score_gradient(&g, &c.f(1), &c.f(3), &c.u(4));
    let db = keep(&g, &c.u(2));
    c.put_f(5, db);
    c.put_f(6, ds);
}

/// `g` where the mask is set, else zero.
fn keep(g: &[f64], mask: &[u32]) -> Vec<f64> {
    g.iter().zip(mask).map(|(g, bit)| if *bit == 1 { *g } else { 0.0 }).collect()
}

/// `g ⊙ w ⊙ sign(score)` on the candidates; an absent score counts as positive, absent candidates are all entries.
fn score_gradient(g: &[f64], w: &[f64], score: &[f64], candidates: &[u32]) -> Vec<f64> {
    let sign = |at: usize| match score.get(at) {
        None => 1.0,
        Some(s) if *s > 0.0 => 1.0,
        Some(s) if *s < 0.0 => -1.0,
        Some(_) => 0.0,
    };
    let one = |at: usize| if candidates.get(at) == Some(&0) { 0.0 } else { g[at] * w[at] * sign(at) };
    (0..g.len()).map(one).collect()
}

fn sizes(c: &Reference) -> (usize, usize, usize) {
    (c.dims.size('r'), c.dims.size('i'), c.dims.size('o'))
}
