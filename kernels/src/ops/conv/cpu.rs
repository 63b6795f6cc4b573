//! Plain CPU code: one loop per index, and the parts that every variant shares.
//!
//! Order: `conv` adds taps ascending to the bias; `conv_dx` adds outputs, then taps; `conv_dw` adds one sum per image,
//! images ascending.

use super::Geometry;
use crate::operand::{BitMat, Call, Mat, MatMut, Operand, Real};
use half::f16;

/// An element of an image.
pub(super) trait Pixel: Copy + Sync {
    /// Its value; bytes are fractions of 255.
    fn value(self) -> f32;
}

impl Pixel for f32 {
    fn value(self) -> f32 {
        self
    }
}

impl Pixel for f16 {
    fn value(self) -> f32 {
        self.to_f32()
    }
}

impl Pixel for u8 {
    fn value(self) -> f32 {
        f32::from(self) / 255.0
    }
}

/// Image stack of one of the two types that go with f32 weights.
#[derive(Clone, Copy)]
pub(super) enum Images<'a> {
    Floats(Mat<'a, f32>),
    Bytes(Mat<'a, u8>),
}

impl<'a> Images<'a> {
    /// Takes argument `at`.
    pub(super) fn take(c: &mut Call<'a>, at: usize) -> Images<'a> {
        match c.args[at] {
            Operand::U8(_) => Images::Bytes(c.u8(at)),
            _ => Images::Floats(c.f32(at)),
        }
    }
}

/// The value if `bit` is 1, zero if it is 0. Free of branches, which random masks make expensive.
pub(super) fn select(value: f32, bit: u32) -> f32 {
    f32::from_bits(value.to_bits() & 0u32.wrapping_sub(bit))
}

/// Bit `j` of a mask row; an absent mask keeps all.
fn bit(mask: Option<&[u32]>, j: usize) -> u32 {
    mask.map_or(1, |words| words[j / 32] >> (j % 32) & 1)
}

/// Effective weight: zero, whatever `w` holds, where the bit is clear.
pub(super) fn kept<W: Real>(w: &[W], mask: Option<&[u32]>, j: usize) -> f32 {
    select(w[j].into(), bit(mask, j))
}

/// Row `o` of an optional mask.
pub(super) fn bits<'a>(mask: &Option<BitMat<'a>>, o: usize) -> Option<&'a [u32]> {
    mask.as_ref().map(|m| m.row(o))
}

pub(super) fn conv(c: &mut Call<'_>) {
    match Images::take(c, 0) {
        Images::Floats(x) => forward::<f32, _>(c, x),
        Images::Bytes(x) => forward::<f32, _>(c, x),
    }
}

pub(super) fn conv_f16(c: &mut Call<'_>) {
    let x = c.f16(0);
    forward::<f16, _>(c, x);
}

fn forward<W: Real, T: Pixel>(c: &mut Call<'_>, x: Mat<'_, T>) {
    let g = Geometry::new(c.dims);
    let (w, mask, bias, bias_mask) = (W::read(c, 1), c.bits_opt(2), c.f32_opt(3), c.bits_opt(4));
    let y = c.f32_mut(5);
    c.pool.rows(y.split(), 1, &mut [], |n, mut y, _| {
        let (x, y) = (x.row(n), y.row(0));
        for (o, y) in y.chunks_exact_mut(g.pixels()).enumerate() {
            y.fill(bias.as_ref().map_or(0.0, |b| kept(b.row(0), bits(&bias_mask, 0), o)));
            for j in 0..g.taps() {
                let w = kept(w.row(o), bits(&mask, o), j);
                for (oy, y) in y.chunks_exact_mut(g.out_w).enumerate() {
                    let x = &x[g.tap_at(j) + g.window_at(oy * g.out_w)..];
                    y.iter_mut().zip(x.iter().step_by(g.stride)).for_each(|(y, x)| *y += w * x.value());
                }
            }
        }
    });
}

pub(super) fn conv_dx<T: Real>(c: &mut Call<'_>) {
    let g = Geometry::new(c.dims);
    let (dy, w, mask) = (T::read(c, 0), T::read(c, 1), c.bits_opt(2));
    let dx = c.f32_mut(3);
    c.pool.rows(dx.split(), 1, &mut [], |n, mut dx, _| {
        let (dy, dx) = (dy.row(n), dx.row(0));
        dx.fill(0.0);
        for (o, dy) in dy.chunks_exact(g.pixels()).enumerate() {
            for j in 0..g.taps() {
                let w = kept(w.row(o), bits(&mask, o), j);
                for (oy, dy) in dy.chunks_exact(g.out_w).enumerate() {
                    let dx = &mut dx[g.tap_at(j) + g.window_at(oy * g.out_w)..];
                    dx.iter_mut().step_by(g.stride).zip(dy).for_each(|(dx, dy)| *dx += w * (*dy).into());
                }
            }
        }
    });
}

pub(super) fn conv_dw(c: &mut Call<'_>) {
    match Images::take(c, 1) {
        Images::Floats(x) => gradient::<f32, _>(c, x),
        Images::Bytes(x) => gradient::<f32, _>(c, x),
    }
}

pub(super) fn conv_dw_f16(c: &mut Call<'_>) {
    let x = c.f16(1);
    gradient::<f16, _>(c, x);
}

/// `W` is the type of `dy` and of the weights.
fn gradient<W: Real, T: Pixel>(c: &mut Call<'_>, x: Mat<'_, T>) {
    let g = Geometry::new(c.dims);
    let dy = W::read(c, 0);
    finish_dw::<W>(c, |o, j| {
        (0..dy.rows).fold(0.0, |all, n| {
            let (x, dy) = (&x.row(n)[g.tap_at(j)..], &dy.row(n)[o * g.pixels()..][..g.pixels()]);
            let mut sum = 0.0;
            for (oy, dy) in dy.chunks_exact(g.out_w).enumerate() {
                let x = &x[g.window_at(oy * g.out_w)..];
                sum += x.iter().step_by(g.stride).zip(dy).map(|(x, dy)| x.value() * (*dy).into()).sum::<f32>();
            }
            all + sum
        })
    });
}

/// Writes the outputs of `conv_dw` from the gradient of the effective weight, given per element.
pub(super) fn finish_dw<W: Real>(c: &mut Call<'_>, grad: impl Fn(usize, usize) -> f32 + Sync) {
    let (w, mask, score, candidates) = (W::read(c, 2), c.bits_opt(3), c.f32_opt(4), c.bits_opt(5));
    let (dw, ds) = (c.f32_mut(6), c.f32_mut_opt(7));
    let one = |o: usize, dw: &mut [f32], mut ds: Option<&mut [f32]>| {
        let (w, score) = (w.row(o), score.as_ref().map(|s| s.row(o)));
        let (mask, candidates) = (bits(&mask, o), bits(&candidates, o));
        for (j, dw) in dw.iter_mut().enumerate() {
            let g = grad(o, j);
            *dw = select(g, bit(mask, j));
            if let Some(ds) = &mut ds {
                // Without a score there is nothing to pass a gradient to.
                let score = score.map_or(0.0, |s| kept(s, candidates, j));
                let (up, down) = (u32::from(score > 0.0), u32::from(score < 0.0));
                ds[j] = select(f32::from_bits((g * w[j].into()).to_bits() ^ down << 31), up | down);
            }
        }
    };
    let ds = ds.map(MatMut::split);
    match ds {
        Some(ds) => c.pool.rows((dw.split(), ds), 1, &mut [], |o, (mut dw, mut ds), _| {
            one(o, dw.row(0), Some(ds.row(0)));
        }),
        None => c.pool.rows(dw.split(), 1, &mut [], |o, mut dw, _| one(o, dw.row(0), None)),
    }
}
