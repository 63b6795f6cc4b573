// op      cosine                 y[n, m] = <q_n, p_m> / (max(|q_n|, 1e-8) max(|p_m|, 1e-8))
//         cosine_topk            the k largest cosines of every query, descending, lower index first on ties
// args    CosineArgs  CosineTopkArgs
// layout  row major with pitch `_ld`; q and p f32 or f16, sums f32
// launch  cosine_plain: one thread per y, 256 to a block; cosine_topk_plain: one thread per query, 64 to a block
// order   i = 0..d ascending, one accumulator; cosine_topk: candidates in index order into a descending list
// tol     twice the error of the plain f32 loop against f64, plus 1e-5
// cost    2*d*(n*m + n + m) flop; 4*(n*d + m*d + n*m) bytes; cosine_topk 4*(n*d + m*d) + 8*n*k bytes; with f16 2 for each
//         element that is read
// source  definition
#include "device.h"

template <class T>
DEVICE float dot(const T* a, const T* b, unsigned d) {
    float sum = 0.0f;
    for (unsigned i = 0; i < d; i++) sum = __fmaf_rn(widened(a[i]), widened(b[i]), sum);
    return sum;
}

// Length of a row, at least 1e-8; NaN stays NaN.
template <class T>
DEVICE float length_of(const T* row, unsigned d) {
    float length = sqrtf(dot(row, row, d));
    return length < 1e-8f ? 1e-8f : length;
}

template <class T>
DEVICE void cosine(CosineArgs<T> a) {
    size_t at = thread_of_line();
    if (at >= (size_t)a.n * a.m) return;
    Cell cell = cell_of(at, a.m);
    const T* q = row_of(a.q, cell.row, a.q_ld);
    const T* p = row_of(a.p, cell.col, a.p_ld);
    row_of(a.y, cell.row, a.y_ld)[cell.col] = dot(q, p, a.d) / (length_of(q, a.d) * length_of(p, a.d));
}
KERNEL(256) cosine_plain(CosineArgs<float> a) { cosine(a); }
KERNEL(256) cosine_plain_f16(CosineArgs<f16> a) { cosine(a); }

// NaN ranks as minus infinity.
DEVICE float ranked(float cosine) { return cosine != cosine ? __uint_as_float(0xff800000u) : cosine; }

template <class T>
DEVICE void cosine_topk(CosineTopkArgs<T> a) {
    size_t row = thread_of_line();
    if (row >= a.n) return;
    const T* q = row_of(a.q, row, a.q_ld);
    float* score = row_of(a.score, row, a.score_ld);
    unsigned* index = row_of(a.index, row, a.index_ld);
    float length = length_of(q, a.d);
    for (unsigned j = 0; j < a.m; j++) {
        const T* p = row_of(a.p, j, a.p_ld);
        float own = ranked(dot(q, p, a.d) / (length * length_of(p, a.d)));
        // Candidates come in index order, so behind its equals is where the lower index wins.
        unsigned at = j < a.k ? j : a.k;
        if (at == a.k && !(score[at - 1u] < own)) continue;
        if (at == a.k) at--;
        for (; at > 0u && score[at - 1u] < own; at--) {
            score[at] = score[at - 1u];
            index[at] = index[at - 1u];
        }
        score[at] = own;
        index[at] = j;
    }
}
KERNEL(64) cosine_topk_plain(CosineTopkArgs<float> a) { cosine_topk(a); }
KERNEL(64) cosine_topk_plain_f16(CosineTopkArgs<f16> a) { cosine_topk(a); }
