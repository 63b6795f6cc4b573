// op      layernorm              y = (x - mean) * rstd * w + b over the last axis, biased variance; stats = (mean,
//         rstd)
//         layernorm_dx           dx of layernorm, plus add if present; dw = sum over rows of dy ⊙ xhat, db = sum of dy
// args    LayernormArgs  LayernormDxArgs
// layout  row major with pitch `_ld`; x and dy f32 or f16, sums f32
// launch  layernorm_plain, layernorm_dx_rows: one block of 128 per row; layernorm_dx_blocks: one thread per column and
//         block of 32 rows; layernorm_dx_combine: one thread per column
// order   rows: every 128th element ascending, lanes of a warp by halves, warps ascending; dw, db: rows of a block
//         ascending, then blocks
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    7*r*c flop; 4*(2*r*c + 2*c + 2*r) bytes; dx twice that, and 16*c*r/32 bytes of partial sums
// source  definition
#include "device.h"

template <class T>
DEVICE void layernorm(LayernormArgs<T> a) {
    __shared__ float shared[32];
    const T* x = row_of(a.x, blockIdx.x, a.x_ld);
    float own = 0.0f;
    for (unsigned i = threadIdx.x; i < a.c; i += 128u) own += widened(x[i]);
    float mean = block_sum(own, shared) / (float)a.c;
    own = 0.0f;
    for (unsigned i = threadIdx.x; i < a.c; i += 128u) {
        float apart = widened(x[i]) - mean;
        own = __fmaf_rn(apart, apart, own);
    }
    float rstd = 1.0f / sqrtf(block_sum(own, shared) / (float)a.c + __uint_as_float(a.eps));
    float* y = row_of(a.y, blockIdx.x, a.y_ld);
    for (unsigned i = threadIdx.x; i < a.c; i += 128u) {
        float value = (widened(x[i]) - mean) * rstd * a.w[i];
        y[i] = a.b ? value + a.b[i] : value;
    }
    if (threadIdx.x == 0u) {
        float* stats = row_of(a.stats, blockIdx.x, a.stats_ld);
        stats[0] = mean;
        stats[1] = rstd;
    }
}
KERNEL(128) layernorm_plain(LayernormArgs<float> a) { layernorm(a); }
KERNEL(128) layernorm_plain_f16(LayernormArgs<f16> a) { layernorm(a); }

template <class T>
DEVICE void layernorm_dx(LayernormDxArgs<T> a) {
    __shared__ float shared[32];
    const T* x = row_of(a.x, blockIdx.x, a.x_ld);
    const T* dy = row_of(a.dy, blockIdx.x, a.dy_ld);
    const float* stats = row_of(a.stats, blockIdx.x, a.stats_ld);
    float mean = stats[0], rstd = stats[1];
    float own = 0.0f, own_xhat = 0.0f;
    for (unsigned i = threadIdx.x; i < a.c; i += 128u) {
        float g = widened(dy[i]) * a.w[i];
        own += g;
        own_xhat += g * (widened(x[i]) - mean) * rstd;
    }
    float mean_g = block_sum(own, shared) / (float)a.c;
    float mean_xhat = block_sum(own_xhat, shared) / (float)a.c;
    float* dx = row_of(a.dx, blockIdx.x, a.dx_ld);
    for (unsigned i = threadIdx.x; i < a.c; i += 128u) {
        float xhat = (widened(x[i]) - mean) * rstd;
        float value = rstd * (widened(dy[i]) * a.w[i] - mean_g - xhat * mean_xhat);
        dx[i] = a.add ? value + row_of(a.add, blockIdx.x, a.add_ld)[i] : value;
    }
}
KERNEL(128) layernorm_dx_rows(LayernormDxArgs<float> a) { layernorm_dx(a); }
KERNEL(128) layernorm_dx_rows_f16(LayernormDxArgs<f16> a) { layernorm_dx(a); }

template <class T>
DEVICE void sums_of_blocks(LayernormDxArgs<T> a) {
    size_t at = thread_of_line();  // block of 32 rows, then column
    if (at >= (size_t)((a.r + 31u) / 32u) * a.c || !(a.dw || a.db)) return;
    Cell cell = cell_of(at, a.c);
    unsigned first = (unsigned)cell.row * 32u, end = first + 32u < a.r ? first + 32u : a.r;
    float dw = 0.0f, db = 0.0f;
    for (unsigned row = first; row < end; row++) {
        const float* stats = row_of(a.stats, row, a.stats_ld);
        float g = widened(row_of(a.dy, row, a.dy_ld)[cell.col]);
        dw += g * (widened(row_of(a.x, row, a.x_ld)[cell.col]) - stats[0]) * stats[1];
        db += g;
    }
    a.work[2u * at] = __float_as_uint(dw);
    a.work[2u * at + 1u] = __float_as_uint(db);
}
KERNEL(128) layernorm_dx_blocks(LayernormDxArgs<float> a) { sums_of_blocks(a); }
KERNEL(128) layernorm_dx_blocks_f16(LayernormDxArgs<f16> a) { sums_of_blocks(a); }

// Of f16, too: it reads neither x nor dy.
KERNEL(128) layernorm_dx_combine(LayernormDxArgs<float> a) {
    size_t i = thread_of_line();
    if (i >= a.c || !(a.dw || a.db)) return;
    float dw = 0.0f, db = 0.0f;
    for (size_t block = 0; block < (a.r + 31u) / 32u; block++) {
        size_t at = 2u * (block * a.c + i);
        dw += __uint_as_float(a.work[at]);
        db += __uint_as_float(a.work[at + 1u]);
    }
    if (a.dw) a.dw[i] = dw;
    if (a.db) a.db[i] = db;
}
