// op      gemm                   y = x wᵀ + bias; with slope y = gelu of that, slope its derivative
//         gemm_dx                dx = dy w; with slope dx = dy w ⊙ slope
//         gemm_dw                dw = dyᵀ x
//         bias_dw                db[o] = sum over r and inner of dy[r, o * inner]
// args    GemmArgs  GemmDxArgs  GemmDwArgs  BiasDwArgs
// layout  row major with pitch `_ld`; f32, bf16 or f16, sums f32
// launch  gemm, gemm_dx, gemm_dw: one thread per element of the output, 256 to a block; bias_dw_blocks: one thread per
//         channel and block of 32 rows; bias_dw_combine: one thread per channel
// order   products: the summed index ascending, one accumulator, from the bias if there is one; bias_dw: the inner index
//         within a row, rows within a block, blocks; all ascending
// tol     twice the error of the plain f32 loop against f64, plus 1e-6; bf16 3e-6
// cost    2*r*i*o flop; 4*(r*i + o*i + r*o) bytes, with 16 bits 2 for each element that is read
// source  definition; the normal distribution as in kernels/src/ops/vmath.rs
#include "ends.h"

template <class T>
DEVICE void gemm(GemmArgs<T> a) {
    size_t at = thread_of_line();
    if (at >= (size_t)a.r * a.o) return;
    Cell cell = cell_of(at, a.o);
    const T* x = row_of(a.x, cell.row, a.x_ld);
    const T* w = row_of(a.w, cell.col, a.w_ld);
    float sum = bias_of(a, cell.col);
    for (unsigned j = 0; j < a.i; j++) sum = __fmaf_rn(widened(x[j]), widened(w[j]), sum);
    put_y(a, cell.row, cell.col, sum);
}
KERNEL(256) gemm_plain(GemmArgs<float> a) { gemm(a); }
KERNEL(256) gemm_plain_bf16(GemmArgs<bf16> a) { gemm(a); }
KERNEL(256) gemm_plain_f16(GemmArgs<f16> a) { gemm(a); }

template <class T>
DEVICE void gemm_dx(GemmDxArgs<T> a) {
    size_t at = thread_of_line();
    if (at >= (size_t)a.r * a.i) return;
    Cell cell = cell_of(at, a.i);
    const T* dy = row_of(a.dy, cell.row, a.dy_ld);
    float sum = 0.0f;
    for (unsigned k = 0; k < a.o; k++) {
        sum = __fmaf_rn(widened(dy[k]), widened(row_of(a.w, k, a.w_ld)[cell.col]), sum);
    }
    put_dx(a, cell.row, cell.col, sum);
}
KERNEL(256) gemm_dx_plain(GemmDxArgs<float> a) { gemm_dx(a); }
KERNEL(256) gemm_dx_plain_bf16(GemmDxArgs<bf16> a) { gemm_dx(a); }
KERNEL(256) gemm_dx_plain_f16(GemmDxArgs<f16> a) { gemm_dx(a); }

template <class T>
DEVICE void gemm_dw(GemmDwArgs<T> a) {
    size_t at = thread_of_line();
    if (at >= (size_t)a.o * a.i) return;
    Cell cell = cell_of(at, a.i);  // output feature, input feature
    float sum = 0.0f;
    for (unsigned k = 0; k < a.r; k++) {
        float dy = widened(row_of(a.dy, k, a.dy_ld)[cell.row]);
        sum = __fmaf_rn(dy, widened(row_of(a.x, k, a.x_ld)[cell.col]), sum);
    }
    row_of(a.dw, cell.row, a.dw_ld)[cell.col] = sum;
}
KERNEL(256) gemm_dw_plain(GemmDwArgs<float> a) { gemm_dw(a); }
KERNEL(256) gemm_dw_plain_bf16(GemmDwArgs<bf16> a) { gemm_dw(a); }
KERNEL(256) gemm_dw_plain_f16(GemmDwArgs<f16> a) { gemm_dw(a); }

BATCHED(256, bias_dw_blocks, BiasDwArgs) { sum_rows(a, block); }

BATCHED(256, bias_dw_combine, BiasDwArgs) {
    size_t channel = thread_of_line(block);
    if (channel >= a.o) return;
    float sum = sum_of_blocks(a, channel);
    a.db[channel] = sum;
}
