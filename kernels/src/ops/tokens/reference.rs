//! f64 references.

use crate::reference::Reference;

pub(super) fn interleave(r: &mut Reference) {
    let (rows, c) = (r.dims.size('r'), r.dims.size('c'));
    let x = [0, 1, 2].map(|at| r.f(at));
    let time = if r.has(3) { r.f(3) } else { vec![0.0; rows * c] };
    let mut y = Vec::new();
    for i in 0..rows {
        for x in &x {
            y.extend((i * c..(i + 1) * c).map(|at| x[at] + time[at]));
        }
    }
    r.put_f(4, y);
}

pub(super) fn interleave_dx(r: &mut Reference) {
    let (rows, c) = (r.dims.size('r'), r.dims.size('c'));
    let dy = r.f(0);
    let part = |j: usize| (0..rows * c).map(|at| dy[(3 * (at / c) + j) * c + at % c]).collect::<Vec<f64>>();
    let dx = [part(0), part(1), part(2)];
    let time = (0..rows * c).map(|at| dx[0][at] + dx[1][at] + dx[2][at]).collect();
    for (j, dx) in dx.into_iter().enumerate() {
        r.put_f(1 + j, dx);
    }
    r.put_f(4, time);
}

pub(super) fn select(r: &mut Reference) {
    let (rows, c) = (r.dims.size('r'), r.dims.size('c'));
    let (stride, offset) = (r.dims.scalar(0) as usize, r.dims.scalar(1) as usize);
    let x = r.f(0);
    r.put_f(1, (0..rows).flat_map(|i| x[(i * stride + offset) * c..][..c].to_vec()).collect());
}

pub(super) fn select_dx(r: &mut Reference) {
    let (rows, c) = (r.dims.size('r'), r.dims.size('c'));
    let (stride, offset) = (r.dims.scalar(0) as usize, r.dims.scalar(1) as usize);
    let (dy, mut dx) = (r.f(0), vec![0.0; r.dims.size('q') * c]);
    for i in 0..rows {
        dx[(i * stride + offset) * c..][..c].copy_from_slice(&dy[i * c..][..c]);
    }
    r.put_f(1, dx);
}

pub(super) fn slide(r: &mut Reference) {
    let (b, c) = (r.dims.scalar(0) as usize, r.dims.size('c'));
    let (new, rows) = (r.dims.size('r') / b, r.dims.size('q') / b);
    let (x, window) = (r.f(0), r.f(1));
    let group =
        |b: usize| [&window[(b * rows + new) * c..(b + 1) * rows * c], &x[b * new * c..(b + 1) * new * c]].concat();
    r.put_f(1, (0..b).flat_map(group).collect());
}
