//! CPU code.
//!
//! ```text
//! op      cosine, cosine_topk    y = <q, p> / (max(|q|, 1e-8) max(|p|, 1e-8)); the k largest of each row
//! args    q f32[n,d]  p f32[m,d]  ->  y f32[n,m]   or   score f32[n,k]  index u32[n,k]
//! layout  row major; others: queries copied to [group][d][16], one lane per query, scaled to length 1
//! launch  plain: blocks of 8 queries; others: see cpu_lanes.rs
//! order   lanes: d ascending, one accumulator per score; up to DOT_QUERIES queries: partial sums along d, folded pairwise
//! tol     twice the error of the plain f32 loop against f64, plus 1e-5 of the largest value
//! cost    2*d*(n*m + n + m) flop; 4*(n*d + m*d) bytes and the outputs; the score matrix of cosine_topk is never written
//! source  definition; fused selection as in facebookresearch/faiss: a running threshold per query
//! ```

use crate::operand::{Call, Mat, Real};

/// Smallest length a vector is divided by.
pub(super) const LEAST: f32 = 1e-8;

pub(super) fn cosine<T: Real>(c: &mut Call<'_>) {
    let (q, p, y) = (T::read(c, 0), T::read(c, 1), c.f32_mut(2));
    c.pool.rows(y.split(), 8, &mut [], |first, mut y, _| {
        for i in 0..y.rows {
            plain_row(q.row(first + i), p, |j, score| y.row(i)[j] = score);
        }
    });
}

pub(super) fn cosine_topk<T: Real>(c: &mut Call<'_>) {
    let (q, p, score, index) = (T::read(c, 0), T::read(c, 1), c.f32_mut(2), c.u32_mut(3));
    c.pool.rows((score.split(), index.split()), 8, &mut [], |first, (mut score, mut index), _| {
        for i in 0..score.rows {
            plain_row(q.row(first + i), p, |j, s| {
                insert(score.row(i), index.row(i), j, s);
            });
        }
    });
}

/// Cosines of one query with every row of `p`, by the plain f32 loop.
fn plain_row<T: Real>(q: &[T], p: Mat<'_, T>, mut emit: impl FnMut(usize, f32)) {
    let dot = |a: &[T], b: &[T]| a.iter().zip(b).fold(0.0, |sum, (x, y)| sum + (*x).into() * (*y).into());
    let length = dot(q, q).sqrt().max(LEAST);
    for j in 0..p.rows {
        let row = p.row(j);
        emit(j, dot(q, row) / (length * dot(row, row).sqrt().max(LEAST)));
    }
}

/// Puts candidate `j` into a descending list that has seen candidates `0..j`; the smallest score kept once the list is
/// full. Candidates come in index order, so behind its equals is where the lower index wins.
pub(super) fn insert(score: &mut [f32], index: &mut [u32], j: usize, s: f32) -> Option<f32> {
    let s = if s.is_nan() { f32::NEG_INFINITY } else { s };
    let k = score.len();
    let held = j.min(k);
    let at = score[..held].partition_point(|v| *v >= s);
    if at < k {
        let end = held.min(k - 1);
        score.copy_within(at..end, at + 1);
        index.copy_within(at..end, at + 1);
        (score[at], index[at]) = (s, j as u32);
    }
    if j + 1 >= k { score.last().copied() } else { None }
}
