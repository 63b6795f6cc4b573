//! f64 references.

use crate::reference::Reference;

pub(super) fn pull(r: &mut Reference) {
    let (g, f, p, a) = (r.f(0), r.f(1), r.f(2), r.f(3));
    let strength = f64::from(r.dims.scalar_f32(0));
    let y = (0..g.len()).map(|at| g[at] + strength * f[at] * (p[at] - a[at])).collect();
    r.put_f(4, y);
}

pub(super) fn path_integral(r: &mut Reference) {
    let (g, p, last, mut w) = (r.f(0), r.f(1), r.f(2), r.f(3));
    for at in 0..g.len() {
        w[at] -= g[at] * (p[at] - last[at]);
    }
    r.put_f(2, p);
    r.put_f(3, w);
}
