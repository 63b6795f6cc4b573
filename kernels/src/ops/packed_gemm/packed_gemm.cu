// op      packed_gemm            y = x wᵀ + bias with w as packed rows: row o holds value[row_start[o] .. row_start[o
//         + 1]] at columns col
// args    PackedGemmArgs
// layout  row major with pitch `_ld`
// launch  plain: one thread per y, 256 to a block; by_warps: a warp per column and 16 rows of y, which read every weight once
// order   plain: kept weights ascending from the bias, one accumulator; by_warps: kept weights ascending by 32 within a
//         lane, lanes as warp_sum, the bias
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    2*r*n flop; 4*(r*i + r*o + o) + 4*n bytes
// source  definition
#include "device.h"

KERNEL(256) packed_gemm_plain(PackedGemmArgs a) {
    size_t at = thread_of_line();
    if (at >= (size_t)a.r * a.o) return;
    Cell cell = cell_of(at, a.o);
    const float* x = row_of(a.x, cell.row, a.x_ld);
    float sum = a.bias ? a.bias[cell.col] : 0.0f;
    unsigned end = a.row_start[cell.col + 1u] < a.n ? a.row_start[cell.col + 1u] : a.n;
    for (unsigned k = a.row_start[cell.col]; k < end; k++) {
        // Columns are data: one that x does not have counts nothing, and is not read.
        if (a.col[k] < a.i) sum = __fmaf_rn(x[a.col[k]], widened(a.value[k]), sum);
    }
    row_of(a.y, cell.row, a.y_ld)[cell.col] = sum;
}

KERNEL(256) packed_gemm_by_warps(PackedGemmArgs a) {
    constexpr unsigned ROWS = 16;
    unsigned lane = threadIdx.x % 32u, col = blockIdx.x * 8u + threadIdx.x / 32u, first = blockIdx.y * ROWS;
    if (col >= a.o) return;  // the whole warp
    unsigned rows = a.r - first < ROWS ? a.r - first : ROWS;
    unsigned end = a.row_start[col + 1u] < a.n ? a.row_start[col + 1u] : a.n;
    float sum[ROWS] = {};
    for (unsigned k = a.row_start[col] + lane; k < end; k += 32u) {
        unsigned from = a.col[k];
        if (from >= a.i) continue;
        float value = widened(a.value[k]);
#pragma unroll
        for (unsigned row = 0; row < ROWS; row++) {
            if (row < rows) sum[row] = __fmaf_rn(row_of(a.x, first + row, a.x_ld)[from], value, sum[row]);
        }
    }
    float own = 0.0f;  // lane j keeps the sum of row j
#pragma unroll
    for (unsigned row = 0; row < ROWS; row++) {
        float all = warp_sum(sum[row]);
        own = lane == row ? all : own;
    }
    if (lane < rows) row_of(a.y, first + lane, a.y_ld)[col] = own + (a.bias ? a.bias[col] : 0.0f);
}
