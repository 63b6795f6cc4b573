// op      layernorm              y = (x - mean) * rstd * w + b over the last axis, biased variance; stats = (mean,
//         rstd)
//         layernorm_dx           dx of layernorm, plus add if present; dw = sum over rows of dy ⊙ xhat, db = sum of dy
// args    LayernormArgs  LayernormDxArgs
// layout  row major with pitch `_ld`; rows of at most 1024 columns
// launch  layernorm_warps, layernorm_dx_warps: one warp per row, which it holds in registers, 4 to a block;
//         layernorm_dx_sums: a block of 8 warps per 32 columns and 32 rows; layernorm_dx_add: one thread per column
// order   rows: lanes take four columns in turn, ascending, then lanes by halves; dw, db: every eighth row ascending, then
//         warps, then blocks of rows
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    7*r*c flop; 4*(2*r*c + 2*c + 2*r) bytes; dx twice that, and 16*c*r/32 bytes of partial sums
// source  definition
#include "rows.h"

DEVICE size_t row_of_warp() { return (size_t)blockIdx.x * 4u + threadIdx.x / 32u; }

template <int FOURS>
DEVICE void layernorm(const LayernormArgs<float>& a) {
    size_t row = row_of_warp();
    if (row >= a.r) return;
    Row<FOURS> x;
    x.load(row_of(a.x, row, a.x_ld), a.x_ld, a.c);
    layernorm(a, row, x);
}
KERNEL(128) layernorm_warps_256(LayernormArgs<float> a) { layernorm<2>(a); }
KERNEL(128) layernorm_warps_1024(LayernormArgs<float> a) { layernorm<8>(a); }

template <int FOURS>
DEVICE void layernorm_dx(const LayernormDxArgs<float>& a) {
    size_t row = row_of_warp();
    if (row >= a.r) return;
    Row<FOURS> dy;
    dy.load(row_of(a.dy, row, a.dy_ld), a.dy_ld, a.c);
    layernorm_dx(a, row, dy);
}
KERNEL(128) layernorm_dx_warps_256(LayernormDxArgs<float> a) { layernorm_dx<2>(a); }
KERNEL(128) layernorm_dx_warps_1024(LayernormDxArgs<float> a) { layernorm_dx<8>(a); }

BATCHED(256, layernorm_dx_sums, LayernormDxArgs<float>) {
    __shared__ float dw_of[8][32], db_of[8][32];
    if (!(a.dw || a.db)) return;  // all threads alike
    const unsigned warp = threadIdx.x / 32u, lane = threadIdx.x % 32u;
    const unsigned col = block.x * 32u + lane, first = block.y * 32u;
    float dw = 0.0f, db = 0.0f;
    for (unsigned row = first + warp; row < first + 32u && row < a.r && col < a.c; row += 8u) {
        const float* stats = row_of(a.stats, row, a.stats_ld);
        float g = row_of(a.dy, row, a.dy_ld)[col];
        dw += g * (row_of(a.x, row, a.x_ld)[col] - stats[0]) * stats[1];
        db += g;
    }
    dw_of[warp][lane] = dw;
    db_of[warp][lane] = db;
    __syncthreads();
    if (warp > 0u || col >= a.c) return;
    for (unsigned other = 1; other < 8u; other++) {
        dw += dw_of[other][lane];
        db += db_of[other][lane];
    }
    size_t at = 2u * ((size_t)block.y * a.c + col);
    a.work[at] = __float_as_uint(dw);
    a.work[at + 1u] = __float_as_uint(db);
}

BATCHED(128, layernorm_dx_add, LayernormDxArgs<float>) {
    size_t i = thread_of_line(block);
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
