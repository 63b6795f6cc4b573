//! What may follow a product while its rows are in cache: GELU with its slope forward, a slope backward.

use crate::operand::{Mat, MatMut};
use crate::ops::pointwise::cpu::GeluSlope;
use crate::ops::vmath::{Body, Simd};
use std::ops::Range;

/// What is done to the rows of a product once they are finished; nothing by default.
#[derive(Debug, Default)]
pub(crate) struct Finish<'a> {
    /// `y` becomes `gelu(y)`, and this its derivative there.
    pub(crate) gelu: Option<MatMut<'a, f32>>,
    /// `dx` becomes `dx ⊙ slope`.
    pub(crate) slope: Option<Mat<'a, f32>>,
}

/// Finishes `rows` of a block whose first row is row `first` of the product; `gelu` is the same block.
pub(crate) fn finish<S: Simd>(
    y: &mut MatMut<'_, f32>,
    gelu: &mut Option<MatMut<'_, f32>>,
    slope: Option<Mat<'_, f32>>,
    first: usize,
    rows: Range<usize>,
) {
    if let Some(gelu) = gelu {
        if y.ld == y.cols && gelu.ld == y.cols {
            let all = rows.start * y.cols..rows.end * y.cols;
            S::run(GeluSlope { y: &mut y.data[all.clone()], slope: &mut gelu.data[all] });
        } else {
            for row in rows.clone() {
                S::run(GeluSlope { y: y.row(row), slope: gelu.row(row) });
            }
        }
    }
    if let Some(slope) = slope {
        for row in rows {
            S::run(Times { y: y.row(row), slope: slope.row(first + row) });
        }
    }
}

struct Times<'a> {
    y: &'a mut [f32],
    slope: &'a [f32],
}

impl Body for Times<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Times { y, slope } = self;
        let n = y.len();
        for at in (0..n).step_by(S::WIDTH) {
            let here = at..n.min(at + S::WIDTH);
            let (y, slope) = (&mut y[here.clone()], &slope[here]);
            if y.len() == S::WIDTH {
                s.store(s.mul(s.load(y), s.load(slope)), y);
            } else {
                s.store_part(s.mul(s.load_part(y), s.load_part(slope)), y);
            }
        }
    }
}
