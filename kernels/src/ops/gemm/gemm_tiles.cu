// op      gemm : see gemm.cu
//         gemm_dx
//         gemm_dw
// args    GemmArgs  GemmDxArgs  GemmDwArgs
// layout  row major with pitch `_ld`; f32, bf16 or f16, sums f32
// launch  256 threads to a tile of 64 x 64 elements of the output, with `wide` of 128 x 128; dynamic shared memory
//         rows: to a tile of 32 rows of at most 128 elements, and the stages of rows.h that follow
//         parts: the same for every 256 rows, into the workspace; combine: one thread per element, 256 to a block
// order   tiled: the summed index ascending, one accumulator, from the bias if there is one; mma: as product.h; parts: rows
//         within a part as those, parts ascending
// tol     twice the error of the plain f32 loop against f64, plus 1e-6; bf16 3e-6
// cost    2*r*i*o flop, f32 on tensor cores six times as many; 4*(r*i + o*i + r*o) bytes, with 16 bits 2 for each element
// source  definition; splitting an f32 as in kernels/src/ops/gemm/amx
#include "rows.h"

template <class How, class T>
DEVICE void gemm(const GemmArgs<T>& a) {
    auto x = matrix(a.x, a.x_ld, a.r, a.i), w = matrix(a.w, a.w_ld, a.o, a.i);
    auto start = [&](unsigned col) { return bias_of(a, col); };
    auto finish = [&](unsigned row, unsigned col, float sum) { put_y(a, row, col, sum); };
    How::template run<true, true>(blockIdx, x, w, start, finish);
}
KERNEL(256) gemm_tiled(GemmArgs<float> a) { gemm<Tiled<1>>(a); }
KERNEL(256) gemm_tiled_wide(GemmArgs<float> a) { gemm<Tiled<2>>(a); }
KERNEL(256) gemm_mma(GemmArgs<float> a) { gemm<Mma<1, 32>>(a); }
KERNEL(256) gemm_mma_bf16(GemmArgs<bf16> a) { gemm<Mma<1, 64>>(a); }
KERNEL(256) gemm_mma_f16(GemmArgs<f16> a) { gemm<Mma<1, 32>>(a); }
KERNEL(256) gemm_mma_wide_bf16(GemmArgs<bf16> a) { gemm<Mma<2, 64>>(a); }
KERNEL(256) gemm_rows(Followed<GemmArgs<float>> all) {
    const auto& a = all.call;
    auto x = matrix(a.x, a.x_ld, a.r, a.i), w = matrix(a.w, a.w_ld, a.o, a.i);
    auto finish = [&](unsigned row, Held& v) { finish_y(all, row, v); };
    WholeRows::run<true>(x, w, [&](unsigned col) { return bias_of(a, col); }, finish);
}

template <class How, class T>
DEVICE void gemm_dx(const GemmDxArgs<T>& a) {
    auto dy = matrix(a.dy, a.dy_ld, a.r, a.o), w = matrix(a.w, a.w_ld, a.o, a.i);
    auto start = [](unsigned) { return 0.0f; };
    auto finish = [&](unsigned row, unsigned col, float sum) { put_dx(a, row, col, sum); };
    How::template run<true, false>(blockIdx, dy, w, start, finish);
}
KERNEL(256) gemm_dx_tiled(GemmDxArgs<float> a) { gemm_dx<Tiled<1>>(a); }
KERNEL(256) gemm_dx_tiled_wide(GemmDxArgs<float> a) { gemm_dx<Tiled<2>>(a); }
KERNEL(256) gemm_dx_mma(GemmDxArgs<float> a) { gemm_dx<Mma<1, 32>>(a); }
KERNEL(256) gemm_dx_mma_bf16(GemmDxArgs<bf16> a) { gemm_dx<Mma<1, 64>>(a); }
KERNEL(256) gemm_dx_mma_f16(GemmDxArgs<f16> a) { gemm_dx<Mma<1, 32>>(a); }
KERNEL(256) gemm_dx_mma_wide_bf16(GemmDxArgs<bf16> a) { gemm_dx<Mma<2, 64>>(a); }
KERNEL(256) gemm_dx_rows(Followed<GemmDxArgs<float>> all) {
    const auto& a = all.call;
    auto dy = matrix(a.dy, a.dy_ld, a.r, a.o), w = matrix(a.w, a.w_ld, a.o, a.i);
    auto finish = [&](unsigned row, Held& v) { finish_dx(all, row, v); };
    WholeRows::run<false>(dy, w, [](unsigned) { return 0.0f; }, finish);
}

template <class How, class T>
DEVICE void gemm_dw(const GemmDwArgs<T>& a, uint3 block) {
    auto dy = matrix(a.dy, a.dy_ld, a.r, a.o), x = matrix(a.x, a.x_ld, a.r, a.i);
    auto start = [](unsigned) { return 0.0f; };
    auto finish = [&](unsigned row, unsigned col, float sum) { row_of(a.dw, row, a.dw_ld)[col] = sum; };
    How::template run<false, false>(block, dy, x, start, finish);
}
KERNEL(256) gemm_dw_tiled(GemmDwArgs<float> a) { gemm_dw<Tiled<1>>(a, blockIdx); }
KERNEL(256) gemm_dw_tiled_wide(GemmDwArgs<float> a) { gemm_dw<Tiled<2>>(a, blockIdx); }
KERNEL(256) gemm_dw_mma(GemmDwArgs<float> a) { gemm_dw<Mma<1, 32>>(a, blockIdx); }
KERNEL(256) gemm_dw_mma_bf16(GemmDwArgs<bf16> a) { gemm_dw<Mma<1, 64>>(a, blockIdx); }
KERNEL(256) gemm_dw_mma_f16(GemmDwArgs<f16> a) { gemm_dw<Mma<1, 32>>(a, blockIdx); }
KERNEL(256) gemm_dw_mma_wide_bf16(GemmDwArgs<bf16> a) { gemm_dw<Mma<2, 64>>(a, blockIdx); }

template <class How, class T>
DEVICE void gemm_dw_parts(const GemmDwArgs<T>& a, uint3 block) {
    auto dy = part_of(block.z, a.dy, a.dy_ld, a.r, a.o), x = part_of(block.z, a.x, a.x_ld, a.r, a.i);
    auto start = [](unsigned) { return 0.0f; };
    auto finish = [&](unsigned row, unsigned col, float sum) {
        a.work[((size_t)block.z * a.o + row) * a.i + col] = __float_as_uint(sum);
    };
    How::template run<false, false>(block, dy, x, start, finish);
}
BATCHED(256, gemm_dw_tiled_parts, GemmDwArgs<float>) { gemm_dw_parts<Tiled<1>>(a, block); }
BATCHED(256, gemm_dw_mma_parts_bf16, GemmDwArgs<bf16>) { gemm_dw_parts<Mma<1, 64>>(a, block); }

template <class T>
DEVICE void combine(const GemmDwArgs<T>& a, uint3 block) {
    size_t at = thread_of_line(block), count = (size_t)a.o * a.i;
    if (at >= count) return;
    Cell cell = cell_of(at, a.i);
    row_of(a.dw, cell.row, a.dw_ld)[cell.col] = sum_of_parts(a.work, a.r, at, count);
}
BATCHED(256, gemm_dw_combine, GemmDwArgs<float>) { combine(a, block); }
BATCHED(256, gemm_dw_combine_bf16, GemmDwArgs<bf16>) { combine(a, block); }
