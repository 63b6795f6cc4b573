//! f64 reference.

use crate::reference::Reference;

pub(super) fn packed_gemm(c: &mut Reference) {
    let (r, i, o) = (c.dims.size('r'), c.dims.size('i'), c.dims.size('o'));
    let (x, row_start, col, value, bias) = (c.f(0), c.u(1), c.u(2), c.f(3), c.f(4));
    let mut y = vec![0.0; r * o];
    for row in 0..r {
        for k in 0..o {
            let kept = row_start[k] as usize..row_start[k + 1] as usize;
            let sum: f64 = kept.map(|at| x[row * i + col[at] as usize] * value[at]).sum();
            y[row * o + k] = sum + bias.get(k).unwrap_or(&0.0);
        }
    }
    c.put_f(5, y);
}
