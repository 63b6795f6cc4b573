//! f64 references.

use crate::reference::Reference;

pub(super) fn gemm(c: &mut Reference) {
    let (r, i, o) = sizes(c);
    let (x, w, bias) = (c.f(0), c.f(1), c.f(2));
    let mut y = vec![0.0; r * o];
    for row in 0..r {
        for col in 0..o {
            let sum: f64 = (0..i).map(|j| x[row * i + j] * w[col * i + j]).sum();
            y[row * o + col] = sum + bias.get(col).unwrap_or(&0.0);
        }
    }
    c.put_f(3, y);
}

pub(super) fn gemm_dx(c: &mut Reference) {
    let (r, i, o) = sizes(c);
    let (dy, w) = (c.f(0), c.f(1));
    let mut dx = vec![0.0; r * i];
    for row in 0..r {
        for col in 0..i {
            dx[row * i + col] = (0..o).map(|k| dy[row * o + k] * w[k * i + col]).sum();
        }
    }
    c.put_f(2, dx);
}

pub(super) fn gemm_dw(c: &mut Reference) {
    let (r, i, o) = sizes(c);
    let dw = outer(&c.f(0), &c.f(1), r, i, o);
    c.put_f(2, dw);
}

pub(super) fn bias_dw(c: &mut Reference) {
    let db = column_sums(&c.f(0), c.dims.size('r'), c.dims.size('o'), c.dims.scalar(0) as usize);
    c.put_f(1, db);
}

/// `dyᵀ x`.
pub(in crate::ops) fn outer(dy: &[f64], x: &[f64], r: usize, i: usize, o: usize) -> Vec<f64> {
    let mut g = vec![0.0; o * i];
    for row in 0..r {
        for k in 0..o {
            for j in 0..i {
                g[k * i + j] += dy[row * o + k] * x[row * i + j];
            }
        }
    }
    g
}

/// Sum of `dy[r, o * inner]` over rows and the inner index.
pub(in crate::ops) fn column_sums(dy: &[f64], r: usize, o: usize, inner: usize) -> Vec<f64> {
    let mut sums = vec![0.0; o];
    for row in 0..r {
        for (k, sum) in sums.iter_mut().enumerate() {
            *sum += dy[(row * o + k) * inner..][..inner].iter().sum::<f64>();
        }
    }
    sums
}

fn sizes(c: &Reference) -> (usize, usize, usize) {
    (c.dims.size('r'), c.dims.size('i'), c.dims.size('o'))
}
