//! The panel passes in plain Rust, written so that 8 lanes become vectors on every instruction set.

use super::cpu::Pixel;
use super::cpu_panels::{Kernels, Product};
use crate::contract::{Dims, Scratch};
use crate::operand::Call;

const LANES: usize = 8;
/// Rows of a tile: 4 x 8 sums are half of 16 four-lane registers.
const ROWS: usize = 4;

const PORTABLE: Kernels = Kernels { lanes: LANES, width: LANES, product, transpose, widen };

pub(super) fn conv(c: &mut Call<'_>) {
    PORTABLE.conv(c);
}

pub(super) fn conv_scratch(d: &Dims) -> Scratch {
    PORTABLE.conv_scratch(d)
}

pub(super) fn conv_dx(c: &mut Call<'_>) {
    PORTABLE.conv_dx(c);
}

pub(super) fn conv_dx_scratch(d: &Dims) -> Scratch {
    PORTABLE.conv_dx_scratch(d)
}

pub(super) fn conv_dw(c: &mut Call<'_>) {
    PORTABLE.conv_dw(c);
}

pub(super) fn conv_dw_scratch(d: &Dims) -> Scratch {
    PORTABLE.conv_dw_scratch(d)
}

fn product(mut p: Product<'_>) {
    for (base, rows) in p.base.chunks(ROWS).zip(p.rows.chunks(ROWS)) {
        match (base.try_into(), rows.try_into()) {
            (Ok(base), Ok(rows)) => tile::<ROWS>(&mut p, base, rows),
            _ => base.iter().zip(rows).for_each(|(base, row)| tile(&mut p, [*base], [*row])),
        }
    }
}

fn tile<const M: usize>(p: &mut Product<'_>, base: [u32; M], rows: [u32; M]) {
    let from = base.map(|at| &p.src[at as usize..]);
    let mut sum = [[0.0; LANES]; M];
    let (panel, _) = p.panel.as_chunks::<LANES>();
    for (step, w) in p.steps.iter().zip(panel) {
        for (sum, from) in sum.iter_mut().zip(from) {
            let x = from[*step as usize];
            for (sum, w) in sum.iter_mut().zip(w) {
                *sum = multiply_add(x, *w, *sum);
            }
        }
    }
    for (sum, row) in sum.iter().zip(rows) {
        let out = &mut p.out[row as usize * p.pitch..][..LANES];
        out.iter_mut().zip(sum).for_each(|(out, sum)| *out += sum);
    }
}

/// Fused where that is an instruction; elsewhere it would be a call.
fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(target_arch = "aarch64", target_feature = "fma")) { a.mul_add(b, c) } else { a * b + c }
}

fn transpose(from: &[f32], from_ld: usize, to: &mut [f32], to_ld: usize, rows: usize, cols: usize) {
    for c in 0..cols {
        (0..rows).for_each(|r| to[c * to_ld + r] = from[r * from_ld + c]);
    }
}

fn widen(from: &[u8], to: &mut [f32]) {
    from.iter().zip(to).for_each(|(v, to)| *to = v.value());
}
