//! f64 references.

use crate::reference::Reference;

pub(super) fn layernorm(r: &mut Reference) {
    let (x, w, b, cols) = (r.f(0), r.f(1), r.f(2), r.dims.size('c'));
    let eps = f64::from(r.dims.scalar_f32(0));
    let (mut y, mut stats) = (Vec::new(), Vec::new());
    for row in 0..r.dims.size('r') {
        let x = &x[row * cols..][..cols];
        let mean = x.iter().sum::<f64>() / cols as f64;
        let var = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / cols as f64;
        let rstd = 1.0 / (var + eps).sqrt();
        y.extend((0..cols).map(|c| (x[c] - mean) * rstd * w[c] + b.get(c).unwrap_or(&0.0)));
        stats.extend([mean, rstd]);
    }
    r.put_f(3, y);
    r.put_f(4, stats);
}

pub(super) fn layernorm_dx(r: &mut Reference) {
    let (dy, x, w, stats, add, cols) = (r.f(0), r.f(1), r.f(2), r.f(3), r.f(4), r.dims.size('c'));
    let (mut dx, mut dw, mut db) = (Vec::new(), vec![0.0; cols], vec![0.0; cols]);
    for row in 0..r.dims.size('r') {
        let (mean, rstd) = (stats[2 * row], stats[2 * row + 1]);
        let at = row * cols;
        let xhat: Vec<f64> = (0..cols).map(|c| (x[at + c] - mean) * rstd).collect();
        let g: Vec<f64> = (0..cols).map(|c| dy[at + c] * w[c]).collect();
        for c in 0..cols {
            dw[c] += dy[at + c] * xhat[c];
            db[c] += dy[at + c];
        }
        let mean_g = g.iter().sum::<f64>() / cols as f64;
        let mean_gx = g.iter().zip(&xhat).map(|(g, x)| g * x).sum::<f64>() / cols as f64;
        dx.extend((0..cols).map(|c| {
            let own = rstd * (g[c] - mean_g - xhat[c] * mean_gx);
            add.get(at + c).map_or(own, |a| a + own)
        }));
    }
    r.put_f(5, dx);
    r.put_f(6, dw);
    r.put_f(7, db);
}
