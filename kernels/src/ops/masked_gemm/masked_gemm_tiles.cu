// op      masked_gemm : see masked_gemm.cu
//         masked_gemm_dx
//         masked_gemm_dw
// args    MaskedGemmArgs  MaskedGemmDxArgs  MaskedGemmDwArgs
// layout  row major with pitch `_ld`; mask rows of 32-bit words, column j is bit j%32 of word j/32; f32, bf16 or f16, sums f32
// launch  256 threads to a tile of 64 x 64 elements of the output, with `wide` of 128 x 128; dynamic shared memory; few_rows:
//         a warp to 4 columns of the output, for at most 16 rows: every weight and bit is read once; parts: tiles for every 256
//         rows, into the workspace; combine: one thread per element, 256 to a block; rows: to a tile of 32 rows of at most 128
//         elements, and the stages of rows.h that follow
// order   tiled: the summed index ascending, one accumulator, from the bias if there is one; mma: as product.h;
//         few_rows: chunks of 16 bytes ascending by 32 within a lane, lanes as warp_sum, the bias; parts: rows within a part as
//         tiled and mma, parts ascending
// tol     twice the error of the plain f32 loop against f64, plus 1e-6; bf16 3e-6
// cost    2*r*i*o flop, f32 on tensor cores six times as many; 4*(r*i + o*i + r*o) + o*i/8 bytes, with 16 bits 2 for
//         each element read
// source  definition; splitting an f32 as in kernels/src/ops/gemm/amx
#include "rows.h"

template <class How, class T>
DEVICE void masked_gemm(const MaskedGemmArgs<T>& a) {
    auto x = matrix(a.x, a.x_ld, a.r, a.i), w = matrix(a.w, a.w_ld, a.o, a.i, a.mask, a.mask_ld);
    auto start = [&](unsigned col) { return bias_of(a, col); };
    auto finish = [&](unsigned row, unsigned col, float sum) { put_y(a, row, col, sum); };
    How::template run<true, true>(blockIdx, x, w, start, finish);
}
KERNEL(256) masked_gemm_tiled(MaskedGemmArgs<float> a) { masked_gemm<Tiled<1>>(a); }
KERNEL(256) masked_gemm_tiled_wide(MaskedGemmArgs<float> a) { masked_gemm<Tiled<2>>(a); }
KERNEL(256) masked_gemm_mma(MaskedGemmArgs<float> a) { masked_gemm<Mma<1, 32>>(a); }
KERNEL(256) masked_gemm_mma_bf16(MaskedGemmArgs<bf16> a) { masked_gemm<Mma<1, 64>>(a); }
KERNEL(256) masked_gemm_mma_f16(MaskedGemmArgs<f16> a) { masked_gemm<Mma<1, 32>>(a); }
KERNEL(256) masked_gemm_mma_wide_bf16(MaskedGemmArgs<bf16> a) { masked_gemm<Mma<2, 64>>(a); }
KERNEL(256) masked_gemm_rows(Followed<MaskedGemmArgs<float>> all) {
    const auto& a = all.call;
    auto x = matrix(a.x, a.x_ld, a.r, a.i), w = matrix(a.w, a.w_ld, a.o, a.i, a.mask, a.mask_ld);
    auto finish = [&](unsigned row, Held& v) { finish_y(all, row, v); };
    WholeRows::run<true>(x, w, [&](unsigned col) { return bias_of(a, col); }, finish);
}

template <class T>
DEVICE void few_rows(const MaskedGemmArgs<T>& a) {
    constexpr unsigned COUNT = 16u / sizeof(T), ROWS = 16, COLS = 4;
    auto x = matrix(a.x, a.x_ld, a.r, a.i), w = matrix(a.w, a.w_ld, a.o, a.i, a.mask, a.mask_ld);
    unsigned lane = threadIdx.x % 32u, first = (unsigned)(thread_of_line() / 32u) * COLS;
    float sum[ROWS][COLS] = {};
    for (unsigned k = lane * COUNT; k < a.i; k += 32u * COUNT) {
        Chunk weights[COLS];
#pragma unroll
        for (unsigned j = 0; j < COLS; j++) weights[j] = chunk_of(w, first + j, k);
#pragma unroll
        for (unsigned row = 0; row < ROWS; row++) {
            if (row >= a.r) continue;
            Chunk values = chunk_of(x, row, k);
#pragma unroll
            for (unsigned j = 0; j < COLS; j++) {
#pragma unroll
                for (unsigned at = 0; at < COUNT; at++) {
                    sum[row][j] = __fmaf_rn(element<T>(values, at), element<T>(weights[j], at), sum[row][j]);
                }
            }
        }
    }
#pragma unroll
    for (unsigned row = 0; row < ROWS; row++) {
        float own = 0.0f;  // lane j keeps the sum of column j
#pragma unroll
        for (unsigned j = 0; j < COLS; j++) {
            float all = warp_sum(sum[row][j]);
            own = lane == j ? all : own;
        }
        unsigned col = first + lane;
        if (row < a.r && lane < COLS && col < a.o) put_y(a, row, col, own + bias_of(a, col));
    }
}
KERNEL(256) masked_gemm_few_rows(MaskedGemmArgs<float> a) { few_rows(a); }
KERNEL(256) masked_gemm_few_rows_bf16(MaskedGemmArgs<bf16> a) { few_rows(a); }

template <class How, class T>
DEVICE void masked_gemm_dx(const MaskedGemmDxArgs<T>& a) {
    auto dy = matrix(a.dy, a.dy_ld, a.r, a.o), w = matrix(a.w, a.w_ld, a.o, a.i, a.mask, a.mask_ld);
    auto start = [](unsigned) { return 0.0f; };
    auto finish = [&](unsigned row, unsigned col, float sum) { put_dx(a, row, col, sum); };
    How::template run<true, false>(blockIdx, dy, w, start, finish);
}
KERNEL(256) masked_gemm_dx_tiled(MaskedGemmDxArgs<float> a) { masked_gemm_dx<Tiled<1>>(a); }
KERNEL(256) masked_gemm_dx_tiled_wide(MaskedGemmDxArgs<float> a) { masked_gemm_dx<Tiled<2>>(a); }
KERNEL(256) masked_gemm_dx_mma(MaskedGemmDxArgs<float> a) { masked_gemm_dx<Mma<1, 32>>(a); }
KERNEL(256) masked_gemm_dx_mma_bf16(MaskedGemmDxArgs<bf16> a) { masked_gemm_dx<Mma<1, 64>>(a); }
KERNEL(256) masked_gemm_dx_mma_f16(MaskedGemmDxArgs<f16> a) { masked_gemm_dx<Mma<1, 32>>(a); }
KERNEL(256) masked_gemm_dx_mma_wide_bf16(MaskedGemmDxArgs<bf16> a) { masked_gemm_dx<Mma<2, 64>>(a); }
KERNEL(256) masked_gemm_dx_rows(Followed<MaskedGemmDxArgs<float>> all) {
    const auto& a = all.call;
    auto dy = matrix(a.dy, a.dy_ld, a.r, a.o), w = matrix(a.w, a.w_ld, a.o, a.i, a.mask, a.mask_ld);
    auto finish = [&](unsigned row, Held& v) { finish_dx(all, row, v); };
    WholeRows::run<false>(dy, w, [](unsigned) { return 0.0f; }, finish);
}

template <class How, class T>
DEVICE void masked_gemm_dw(const MaskedGemmDwArgs<T>& a, uint3 block) {
    auto dy = matrix(a.dy, a.dy_ld, a.r, a.o), x = matrix(a.x, a.x_ld, a.r, a.i);
    auto start = [](unsigned) { return 0.0f; };
    auto finish = [&](unsigned row, unsigned col, float sum) { put_dw(a, row, col, sum); };
    How::template run<false, false>(block, dy, x, start, finish);
}
KERNEL(256) masked_gemm_dw_tiled(MaskedGemmDwArgs<float> a) { masked_gemm_dw<Tiled<1>>(a, blockIdx); }
KERNEL(256) masked_gemm_dw_tiled_wide(MaskedGemmDwArgs<float> a) { masked_gemm_dw<Tiled<2>>(a, blockIdx); }
KERNEL(256) masked_gemm_dw_mma(MaskedGemmDwArgs<float> a) { masked_gemm_dw<Mma<1, 32>>(a, blockIdx); }
KERNEL(256) masked_gemm_dw_mma_bf16(MaskedGemmDwArgs<bf16> a) { masked_gemm_dw<Mma<1, 64>>(a, blockIdx); }
KERNEL(256) masked_gemm_dw_mma_f16(MaskedGemmDwArgs<f16> a) { masked_gemm_dw<Mma<1, 32>>(a, blockIdx); }
KERNEL(256) masked_gemm_dw_mma_wide_bf16(MaskedGemmDwArgs<bf16> a) { masked_gemm_dw<Mma<2, 64>>(a, blockIdx); }

template <class How, class T>
DEVICE void masked_gemm_dw_parts(const MaskedGemmDwArgs<T>& a, uint3 block) {
    auto dy = part_of(block.z, a.dy, a.dy_ld, a.r, a.o), x = part_of(block.z, a.x, a.x_ld, a.r, a.i);
    auto start = [](unsigned) { return 0.0f; };
    auto finish = [&](unsigned row, unsigned col, float sum) {
        a.work[((size_t)block.z * a.o + row) * a.i + col] = __float_as_uint(sum);
    };
    How::template run<false, false>(block, dy, x, start, finish);
}
BATCHED(256, masked_gemm_dw_tiled_parts, MaskedGemmDwArgs<float>) { masked_gemm_dw_parts<Tiled<1>>(a, block); }
BATCHED(256, masked_gemm_dw_mma_parts_bf16, MaskedGemmDwArgs<bf16>) { masked_gemm_dw_parts<Mma<1, 64>>(a, block); }

template <class T>
DEVICE void combine(const MaskedGemmDwArgs<T>& a, uint3 block) {
    size_t at = thread_of_line(block), count = (size_t)a.o * a.i;
    if (at >= count) return;
    Cell cell = cell_of(at, a.i);
    put_dw(a, cell.row, cell.col, sum_of_parts(a.work, a.r, at, count));
}
BATCHED(256, masked_gemm_dw_combine, MaskedGemmDwArgs<float>) { combine(a, block); }
BATCHED(256, masked_gemm_dw_combine_bf16, MaskedGemmDwArgs<bf16>) { combine(a, block); }
