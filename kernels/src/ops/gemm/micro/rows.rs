//! Work on rows, beside tiles: dot products, the epilogue of a masked gradient, sums over listed rows.
#![expect(unsafe_code, reason = "vector loads and stores through pointers; bounds are asserted once per call")]

use super::{Epilogue, Lanes, Weight, low_bits, masked_value};
use crate::operand::Mat;
use half::f16;

/// `y[m, n] = x[m] · w[n] + bias[n]` for up to four rows of x, vectors along k. Reads the weight once, without a copy.
///
/// # Safety
/// The CPU has the instructions of `L`.
#[inline(always)]
pub(in crate::ops::gemm) unsafe fn dots<L: Lanes>(
    x: &[&[f32]],
    w: Mat<'_, f32>,
    bias: Option<&Weight<'_>>,
    y: &mut [f32],
    ld: usize,
) {
    // As many sums as registers hold.
    // SAFETY: the caller has the instructions.
    unsafe {
        match (x, L::W) {
            (&[a], 16) => one_dots::<L, 4>(a, w, bias, y),
            (&[a], _) => one_dots::<L, 2>(a, w, bias, y),
            (&[a, b], 16) => dots_of::<L, 2, 8>([a, b], w, bias, y, ld),
            (&[a, b], _) => dots_of::<L, 2, 4>([a, b], w, bias, y, ld),
            (&[a, b, c], 16) => dots_of::<L, 3, 4>([a, b, c], w, bias, y, ld),
            (&[a, b, c], _) => dots_of::<L, 3, 2>([a, b, c], w, bias, y, ld),
            (&[a, b, c, d], 16) => dots_of::<L, 4, 4>([a, b, c, d], w, bias, y, ld),
            (&[a, b, c, d], _) => dots_of::<L, 4, 2>([a, b, c, d], w, bias, y, ld),
            _ => unreachable!("one to four rows"),
        }
    }
}

/// One row of x with four rows of the weight at a time, `U` vectors of each: more rows, a power of two apart, would fall on
/// one set of the first-level cache.
///
/// # Safety
/// The CPU has the instructions of `L`.
#[inline(always)]
unsafe fn one_dots<L: Lanes, const U: usize>(x: &[f32], w: Mat<'_, f32>, bias: Option<&Weight<'_>>, y: &mut [f32]) {
    let (rows, cols) = (w.rows, w.cols);
    assert!(x.len() == cols, "x is as wide as w");
    let unrolled = cols / (U * L::W) * (U * L::W);
    for (block, y) in y[..rows].chunks_mut(16).enumerate() {
        let mut sums = [0.0; 16];
        // SAFETY: vectors below `unrolled` and lanes under `valid` name columns only, and all rows have `cols` columns.
        unsafe {
            let mut all = [L::splat(0.0); 16];
            for at in (0..y.len()).step_by(4) {
                // Past the last row the last one is computed again; its result is not stored.
                let mut w_rows = [std::ptr::null(); 4];
                for (j, w_row) in w_rows.iter_mut().enumerate() {
                    *w_row = w.row((block * 16 + at + j).min(rows - 1)).as_ptr();
                }
                let mut acc = [[L::splat(0.0); U]; 4];
                for k in (0..unrolled).step_by(U * L::W) {
                    for j in 0..4 {
                        for (u, acc) in acc[j].iter_mut().enumerate() {
                            let k = k + u * L::W;
                            *acc = L::load(x.as_ptr().add(k)).mul_add(L::load(w_rows[j].add(k)), *acc);
                        }
                    }
                }
                for k in (unrolled..cols).step_by(L::W) {
                    let valid = low_bits((cols - k).min(L::W));
                    let a = L::load_bits(x.as_ptr().add(k), valid);
                    for j in 0..4 {
                        acc[j][0] = a.mul_add(L::load_bits(w_rows[j].add(k), valid), acc[j][0]);
                    }
                }
                for j in 0..4 {
                    for u in 1..U {
                        acc[j][0] = acc[j][u].mul_add(L::splat(1.0), acc[j][0]);
                    }
                    all[at + j] = acc[j][0];
                }
            }
            L::lane_sums(&all, &mut sums);
        }
        let sums = y.iter_mut().zip(sums);
        match bias {
            None => sums.for_each(|(y, sum)| *y = sum),
            Some(b) if b.mask.is_none() => {
                sums.zip(&b.w.data[block * 16..]).for_each(|((y, sum), b)| *y = sum + b);
            }
            Some(b) => sums.enumerate().for_each(|(j, (y, sum))| *y = sum + masked_value(b, block * 16 + j)),
        }
    }
}

/// # Safety
/// The CPU has the instructions of `L`.
#[inline(always)]
unsafe fn dots_of<L: Lanes, const M: usize, const N: usize>(
    x: [&[f32]; M],
    w: Mat<'_, f32>,
    bias: Option<&Weight<'_>>,
    y: &mut [f32],
    ld: usize,
) {
    // No closures around vectors: they are compiled without the instruction set and may stay calls.
    let (rows, cols) = (w.rows, w.cols);
    assert!(x.iter().all(|x| x.len() == cols), "rows of x are as wide as w");
    let whole = cols / L::W * L::W;
    for first in (0..rows).step_by(N) {
        // Past the last row the last one is computed again; its result is not stored.
        let mut w_rows = [std::ptr::null(); N];
        for (j, w_row) in w_rows.iter_mut().enumerate() {
            *w_row = w.row((first + j).min(rows - 1)).as_ptr();
        }
        let mut sums = [0.0; 16];
        // SAFETY: whole vectors and `valid` name columns only, and all rows have `cols` columns.
        unsafe {
            let mut acc = [L::splat(0.0); 16];
            for k in (0..whole).step_by(L::W) {
                for j in 0..N {
                    let b = L::load(w_rows[j].add(k));
                    for m in 0..M {
                        acc[m * N + j] = L::load(x[m].as_ptr().add(k)).mul_add(b, acc[m * N + j]);
                    }
                }
            }
            if whole < cols {
                let valid = low_bits(cols - whole);
                for j in 0..N {
                    let b = L::load_bits(w_rows[j].add(whole), valid);
                    for m in 0..M {
                        acc[m * N + j] = L::load_bits(x[m].as_ptr().add(whole), valid).mul_add(b, acc[m * N + j]);
                    }
                }
            }
            L::lane_sums(&acc, &mut sums[..M * N]);
        }
        for (m, sums) in sums.chunks_exact(N).take(M).enumerate() {
            for (j, sum) in sums.iter().take(rows - first).enumerate() {
                let n = first + j;
                y[m * ld + n] = sum + bias.map_or(0.0, |b| masked_value(b, n));
            }
        }
    }
}

/// # Safety
/// The CPU has the instructions of `L`.
#[inline(always)]
pub(in crate::ops::gemm) unsafe fn finish<L: Lanes>(e: Epilogue<'_>) {
    let Epilogue { g, mask, mut ds, w, score, candidates } = e;
    let cols = g.len();
    assert!(w.len() == cols && score.is_none_or(|s| s.len() == cols), "rows of one tensor are equally long");
    assert!(ds.as_ref().is_none_or(|s| s.len() == cols), "rows of one tensor are equally long");
    for j in (0..cols).step_by(L::W) {
        let valid = low_bits(cols - j);
        let bits = |words: &[u32]| (words[j / 32] >> (j % 32)) & valid;
        let at = candidates.map_or(valid, bits);
        // SAFETY: `valid` names columns only, and all rows have `cols` columns.
        unsafe {
            let here = g.as_mut_ptr().add(j);
            if let Some(ds) = &mut ds {
                let mut s = L::load_bits(here, at).mul(L::load_bits(w.as_ptr().add(j), at));
                if let Some(score) = score {
                    s = s.mul_sign(L::load_bits(score.as_ptr().add(j), at));
                }
                s.store_bits(ds.as_mut_ptr().add(j), valid);
            }
            L::load_bits(here, bits(mask)).store_bits(here, valid);
        }
    }
}

/// `out[NR] = start + sum of values[n] * panel[cols[n], NR]`. Order: even and odd n apart, then their sum.
///
/// # Safety
/// The CPU has the instructions of `L`.
#[inline(always)]
pub(in crate::ops::gemm) unsafe fn listed<L: Lanes>(
    panel: &[f32],
    cols: &[u16],
    values: &[f16],
    start: f32,
    out: &mut [f32],
) {
    let nr = 2 * L::W;
    assert!(cols.len() == values.len() && out.len() == nr, "one column per value, one sum per panel column");
    let row = |col: u16| panel[usize::from(col) * nr..][..nr].as_ptr();
    // SAFETY: `row` checks that two vectors can be read; blocks are `W` long; `out` holds two vectors.
    unsafe {
        let mut acc = [[L::splat(start); 2], [L::splat(0.0); 2]];
        let (mut cols, mut values) = (cols, values);
        while !cols.is_empty() {
            let mut wide = [0.0; 16];
            let count = cols.len().min(L::W);
            if count == L::W {
                L::widen(values.as_ptr()).store(wide.as_mut_ptr());
            } else {
                wide.iter_mut().zip(values).for_each(|(wide, v)| *wide = v.to_f32());
            }
            for n in 0..count {
                let (v, b) = (L::splat(wide[n]), row(cols[n]));
                let acc = &mut acc[n % 2];
                acc[0] = v.mul_add(L::load(b), acc[0]);
                acc[1] = v.mul_add(L::load(b.add(L::W)), acc[1]);
            }
            (cols, values) = (&cols[count..], &values[count..]);
        }
        let one = L::splat(1.0);
        acc[1][0].mul_add(one, acc[0][0]).store(out.as_mut_ptr());
        acc[1][1].mul_add(one, acc[0][1]).store(out.as_mut_ptr().add(L::W));
    }
}
