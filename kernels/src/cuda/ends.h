// How products end, dense and masked: what becomes of a sum.
#pragma once
#include "device.h"

template <class T>
DEVICE float bias_of(const GemmArgs<T>& a, unsigned col) {
    return a.bias ? a.bias[col] : 0.0f;
}
template <class T>
DEVICE float bias_of(const MaskedGemmArgs<T>& a, unsigned col) {
    return a.bias && (!a.bias_mask || bit_of(a.bias_mask, col)) ? a.bias[col] : 0.0f;
}
// The output for a sum: with `slope` its GELU.
template <class A>
DEVICE float activated(const A& a, size_t row, unsigned col, float sum) {
    if (!a.slope) return sum;
    Normal normal = normal_cdf(sum);
    row_of(a.slope, row, a.slope_ld)[col] = __fmaf_rn(sum * normal.e, DENSITY_0, normal.cdf);
    return sum * normal.cdf;
}
template <class A>
DEVICE void put_y(const A& a, size_t row, unsigned col, float sum) {
    row_of(a.y, row, a.y_ld)[col] = activated(a, row, col, sum);
}

template <class A>
DEVICE void put_dx(const A& a, size_t row, unsigned col, float sum) {
    if (a.slope) sum *= row_of(a.slope, row, a.slope_ld)[col];
    row_of(a.dx, row, a.dx_ld)[col] = sum;
}

template <class T>
DEVICE void put_dw(const MaskedGemmDwArgs<T>& a, size_t row, unsigned col, float sum) {
    bool kept = bit_of(row_of(a.mask, row, a.mask_ld), col);
    row_of(a.dw, row, a.dw_ld)[col] = kept ? sum : 0.0f;
    if (!a.ds) return;
    float to_score = 0.0f;
    if (!a.candidates || bit_of(row_of(a.candidates, row, a.candidates_ld), col)) {
        to_score = sum * widened(row_of(a.w, row, a.w_ld)[col]);
        if (a.score) to_score *= sign_of(row_of(a.score, row, a.score_ld)[col]);
    }
    row_of(a.ds, row, a.ds_ld)[col] = to_score;
}

// The gradient of a bias: a sum for every channel and block of 32 rows, and what they add up to.
template <class A>
DEVICE void sum_rows(const A& a, uint3 block) {
    size_t at = thread_of_line(block);  // block of 32 rows, then channel
    if (at >= (size_t)((a.r + 31u) / 32u) * a.o) return;
    Cell cell = cell_of(at, a.o);
    unsigned first = (unsigned)cell.row * 32u, end = first + 32u < a.r ? first + 32u : a.r;
    float all = 0.0f;
    for (unsigned row = first; row < end; row++) {
        const float* dy = row_of(a.dy, row, a.dy_ld) + (size_t)cell.col * a.inner;
        float sum = 0.0f;
        for (unsigned j = 0; j < a.inner; j++) sum += dy[j];
        all += sum;
    }
    a.work[at] = __float_as_uint(all);
}
template <class A>
DEVICE float sum_of_blocks(const A& a, size_t channel) {
    float sum = 0.0f;
    for (size_t block = 0; block < (a.r + 31u) / 32u; block++) sum += __uint_as_float(a.work[block * a.o + channel]);
    return sum;
}
