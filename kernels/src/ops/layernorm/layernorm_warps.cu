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
#include "device.h"

// A row of at most 128 * FOURS columns, lane l with columns 4 l, 4 l + 128, ..; 0 behind the last.
template <int FOURS>
struct Row {
    float4 at[FOURS];

    DEVICE_MEMBER void load(const float* row, unsigned ld, unsigned c) {
        bool fours = in_fours(row, ld) && c % 4u == 0u;
        UNROLL for (int n = 0; n < FOURS; n++) at[n] = load_four(row, column(n), c, fours);
    }
    DEVICE_MEMBER void store(float* row, unsigned ld, unsigned c) const {
        bool fours = in_fours(row, ld);
        UNROLL for (int n = 0; n < FOURS; n++) store_four(row, column(n), c, fours, at[n]);
    }
    DEVICE_MEMBER static unsigned column(int n) { return threadIdx.x % 32u * 4u + 128u * n; }
};

// f of every column below c, and of its place.
template <int FOURS, class F>
DEVICE void each(unsigned c, F f) {
    UNROLL for (int n = 0; n < FOURS; n++) {
        UNROLL for (int j = 0; j < 4; j++) {
            if (Row<FOURS>::column(n) + j < c) f(n, j);
        }
    }
}
DEVICE float& part(float4& v, int j) { return j == 0 ? v.x : j == 1 ? v.y : j == 2 ? v.z : v.w; }

DEVICE size_t row_of_warp() { return (size_t)blockIdx.x * 4u + threadIdx.x / 32u; }

template <int FOURS>
DEVICE void layernorm(const LayernormArgs& a) {
    size_t row = row_of_warp();
    if (row >= a.r) return;
    Row<FOURS> x, w, b;
    x.load(row_of(a.x, row, a.x_ld), a.x_ld, a.c);
    w.load(a.w, 4u, a.c);
    if (a.b) b.load(a.b, 4u, a.c);
    float own = 0.0f;
    each<FOURS>(a.c, [&](int n, int j) { own += part(x.at[n], j); });
    float mean = warp_sum(own) / (float)a.c;
    own = 0.0f;
    each<FOURS>(a.c, [&](int n, int j) {
        float apart = part(x.at[n], j) - mean;
        own = __fmaf_rn(apart, apart, own);
    });
    float rstd = 1.0f / sqrtf(warp_sum(own) / (float)a.c + __uint_as_float(a.eps));
    each<FOURS>(a.c, [&](int n, int j) {
        float& v = part(x.at[n], j);
        v = (v - mean) * rstd * part(w.at[n], j);
        if (a.b) v += part(b.at[n], j);
    });
    x.store(row_of(a.y, row, a.y_ld), a.y_ld, a.c);
    if (threadIdx.x % 32u == 0u) {
        float* stats = row_of(a.stats, row, a.stats_ld);
        stats[0] = mean;
        stats[1] = rstd;
    }
}
KERNEL(128) layernorm_warps_256(LayernormArgs a) { layernorm<2>(a); }
KERNEL(128) layernorm_warps_1024(LayernormArgs a) { layernorm<8>(a); }

template <int FOURS>
DEVICE void layernorm_dx(const LayernormDxArgs& a) {
    size_t row = row_of_warp();
    if (row >= a.r) return;
    Row<FOURS> x, g, w;  // g: dy, then its product with w
    x.load(row_of(a.x, row, a.x_ld), a.x_ld, a.c);
    g.load(row_of(a.dy, row, a.dy_ld), a.dy_ld, a.c);
    w.load(a.w, 4u, a.c);
    const float* stats = row_of(a.stats, row, a.stats_ld);
    float mean = stats[0], rstd = stats[1], own = 0.0f, own_xhat = 0.0f;
    each<FOURS>(a.c, [&](int n, int j) {
        part(x.at[n], j) = (part(x.at[n], j) - mean) * rstd;
        part(g.at[n], j) *= part(w.at[n], j);
        own += part(g.at[n], j);
        own_xhat = __fmaf_rn(part(g.at[n], j), part(x.at[n], j), own_xhat);
    });
    float mean_g = warp_sum(own) / (float)a.c, mean_xhat = warp_sum(own_xhat) / (float)a.c;
    if (a.add) w.load(row_of(a.add, row, a.add_ld), a.add_ld, a.c);
    each<FOURS>(a.c, [&](int n, int j) {
        float value = rstd * (part(g.at[n], j) - mean_g - part(x.at[n], j) * mean_xhat);
        part(x.at[n], j) = a.add ? value + part(w.at[n], j) : value;
    });
    x.store(row_of(a.dx, row, a.dx_ld), a.dx_ld, a.c);
}
KERNEL(128) layernorm_dx_warps_256(LayernormDxArgs a) { layernorm_dx<2>(a); }
KERNEL(128) layernorm_dx_warps_1024(LayernormDxArgs a) { layernorm_dx<8>(a); }

BATCHED(256, layernorm_dx_sums, LayernormDxArgs) {
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

BATCHED(128, layernorm_dx_add, LayernormDxArgs) {
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
