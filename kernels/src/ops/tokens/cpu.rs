//! Portable: copies, at the speed of memory.

use crate::operand::Call;

/// Rows (or groups of rows) of one task.
const BLOCK: usize = 64;

pub(super) fn interleave(c: &mut Call<'_>) {
    let x = [0, 1, 2].map(|at| c.f32(at));
    let (time, y) = (c.f32_opt(3), c.f32_mut(4));
    c.pool.rows(y.split_groups(3), BLOCK, &mut [], |first, mut part, _| {
        for at in 0..part.rows {
            let (r, x) = (first + at / 3, &x[at % 3]);
            match &time {
                None => part.row(at).copy_from_slice(x.row(r)),
                Some(time) => {
                    for ((y, x), t) in part.row(at).iter_mut().zip(x.row(r)).zip(time.row(r)) {
                        *y = x + t;
                    }
                }
            }
        }
    });
}

/// Order of `dtime`: `(dy0 + dy1) + dy2`.
pub(super) fn interleave_dx(c: &mut Call<'_>) {
    let dy = c.f32(0);
    let [dx0, dx1, dx2] = [1, 2, 3].map(|at| c.f32_mut(at).split());
    let dtime = c.f32_mut_opt(4).map(|m| m.split());
    c.pool.rows((dx0, dx1, dx2, dtime), BLOCK, &mut [], |first, (mut dx0, mut dx1, mut dx2, mut dtime), _| {
        for r in 0..dx0.rows {
            let [y0, y1, y2] = [0, 1, 2].map(|j| dy.row(3 * (first + r) + j));
            dx0.row(r).copy_from_slice(y0);
            dx1.row(r).copy_from_slice(y1);
            dx2.row(r).copy_from_slice(y2);
            if let Some(dtime) = &mut dtime {
                for (((t, y0), y1), y2) in dtime.row(r).iter_mut().zip(y0).zip(y1).zip(y2) {
                    *t = y0 + y1 + y2;
                }
            }
        }
    });
}

pub(super) fn select(c: &mut Call<'_>) {
    let (x, y) = (c.f32(0), c.f32_mut(1));
    let [stride, offset] = [0, 1].map(|at| c.dims.scalar(at) as usize);
    c.pool.rows(y.split(), BLOCK, &mut [], |first, mut part, _| {
        for r in 0..part.rows {
            part.row(r).copy_from_slice(x.row((first + r) * stride + offset));
        }
    });
}

pub(super) fn select_dx(c: &mut Call<'_>) {
    let (dy, dx) = (c.f32(0), c.f32_mut(1));
    let [stride, offset] = [0, 1].map(|at| c.dims.scalar(at) as usize);
    c.pool.rows(dx.split_groups(stride), BLOCK, &mut [], |first, mut part, _| {
        for at in 0..part.rows {
            match at % stride == offset {
                true => part.row(at).copy_from_slice(dy.row(first + at / stride)),
                false => part.row(at).fill(0.0),
            }
        }
    });
}

pub(super) fn slide(c: &mut Call<'_>) {
    let (x, window) = (c.f32(0), c.f32_mut(1));
    let groups = c.dims.scalar(0) as usize;
    let (new, rows) = (x.rows / groups, window.rows / groups);
    if new == 0 {
        return;
    }
    c.pool.rows(window.split_groups(rows), 1, &mut [], |group, mut part, _| {
        for at in 0..rows - new {
            part.data.copy_within((at + new) * part.ld..(at + new) * part.ld + part.cols, at * part.ld);
        }
        for at in 0..new {
            part.row(rows - new + at).copy_from_slice(x.row(group * new + at));
        }
    });
}
