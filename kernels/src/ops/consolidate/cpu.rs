//! Portable: one pass each, in loops that vectorise.

use crate::operand::Call;
use crate::ops::reduce::blocks::block_rows;

pub(super) fn pull(c: &mut Call<'_>) {
    let (g, f, p, a) = (c.f32(0), c.f32(1), c.f32(2), c.f32(3));
    let strength = c.dims.scalar_f32(0);
    let y = c.f32_mut(4).split();
    c.pool.rows(y, block_rows(g.cols), &mut [], |first, mut y, _| {
        for r in 0..y.rows {
            let at = first + r;
            let rows = g.row(at).iter().zip(f.row(at)).zip(p.row(at)).zip(a.row(at));
            for (y, (((g, f), p), a)) in y.row(r).iter_mut().zip(rows) {
                *y = g + strength * f * (p - a);
            }
        }
    });
}

pub(super) fn path_integral(c: &mut Call<'_>) {
    let (g, p) = (c.f32(0), c.f32(1));
    let outputs = (c.f32_mut(2).split(), c.f32_mut(3).split());
    c.pool.rows(outputs, block_rows(g.cols), &mut [], |first, (mut last, mut w), _| {
        for r in 0..w.rows {
            let rows = g.row(first + r).iter().zip(p.row(first + r));
            for ((w, last), (g, p)) in w.row(r).iter_mut().zip(last.row(r)).zip(rows) {
                *w -= g * (p - *last);
                *last = *p;
            }
        }
    });
}
