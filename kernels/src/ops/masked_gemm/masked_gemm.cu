// op      masked_gemm            y = x (w ⊙ mask)ᵀ + bias ⊙ bias_mask; with slope y = gelu of that, slope its derivative
//         masked_gemm_dx         dx = dy (w ⊙ mask); with slope dx = dy (w ⊙ mask) ⊙ slope
//         masked_gemm_dw         g = dyᵀ x; dw = g ⊙ mask; ds = g ⊙ w ⊙ sign(score), zero outside the candidates
//         masked_bias_dw         g[o] = sum over r and inner of dy; db = g ⊙ mask; ds = g ⊙ bias ⊙ sign(score), zero
//                                outside the candidates
// args    MaskedGemmArgs  MaskedGemmDxArgs  MaskedGemmDwArgs  MaskedBiasDwArgs
// layout  row major with pitch `_ld`; mask rows of 32-bit words, column j is bit j%32 of word j/32; f32, bf16 or f16, sums f32
// launch  masked_gemm, masked_gemm_dx, masked_gemm_dw: one thread per element of the output, 256 to a block;
//         masked_bias_dw_blocks: one thread per channel and block of 32 rows; masked_bias_dw_combine: one per channel
// order   products: the summed index ascending, one accumulator, from the bias if there is one; masked_bias_dw: the inner
//         index within a row, rows within a block, blocks; all ascending
// tol     twice the error of the plain f32 loop against f64, plus 1e-6; bf16 3e-6
// cost    2*r*i*o flop; 4*(r*i + o*i + r*o) + o*i/8 bytes, with 16 bits 2 for each element that is read
// source  definition; the normal distribution as in kernels/src/ops/vmath.rs
#include "ends.h"

// A weight behind a cleared bit is not read.
template <class T>
DEVICE void masked_gemm(MaskedGemmArgs<T> a) {
    size_t at = thread_of_line();
    if (at >= (size_t)a.r * a.o) return;
    Cell cell = cell_of(at, a.o);
    const T* x = row_of(a.x, cell.row, a.x_ld);
    const T* w = row_of(a.w, cell.col, a.w_ld);
    const unsigned* mask = row_of(a.mask, cell.col, a.mask_ld);
    float sum = bias_of(a, cell.col);
    for (unsigned j = 0; j < a.i; j++) {
        if (bit_of(mask, j)) sum = __fmaf_rn(widened(x[j]), widened(w[j]), sum);
    }
    put_y(a, cell.row, cell.col, sum);
}
KERNEL(256) masked_gemm_plain(MaskedGemmArgs<float> a) { masked_gemm(a); }
KERNEL(256) masked_gemm_plain_bf16(MaskedGemmArgs<bf16> a) { masked_gemm(a); }
KERNEL(256) masked_gemm_plain_f16(MaskedGemmArgs<f16> a) { masked_gemm(a); }

template <class T>
DEVICE void masked_gemm_dx(MaskedGemmDxArgs<T> a) {
    size_t at = thread_of_line();
    if (at >= (size_t)a.r * a.i) return;
    Cell cell = cell_of(at, a.i);
    const T* dy = row_of(a.dy, cell.row, a.dy_ld);
    float sum = 0.0f;
    for (unsigned k = 0; k < a.o; k++) {
        if (!bit_of(row_of(a.mask, k, a.mask_ld), cell.col)) continue;
        sum = __fmaf_rn(widened(dy[k]), widened(row_of(a.w, k, a.w_ld)[cell.col]), sum);
    }
    put_dx(a, cell.row, cell.col, sum);
}
KERNEL(256) masked_gemm_dx_plain(MaskedGemmDxArgs<float> a) { masked_gemm_dx(a); }
KERNEL(256) masked_gemm_dx_plain_bf16(MaskedGemmDxArgs<bf16> a) { masked_gemm_dx(a); }
KERNEL(256) masked_gemm_dx_plain_f16(MaskedGemmDxArgs<f16> a) { masked_gemm_dx(a); }

template <class T>
DEVICE void masked_gemm_dw(MaskedGemmDwArgs<T> a) {
    size_t at = thread_of_line();
    if (at >= (size_t)a.o * a.i) return;
    Cell cell = cell_of(at, a.i);  // output feature, input feature
    float sum = 0.0f;
    for (unsigned k = 0; k < a.r; k++) {
        float dy = widened(row_of(a.dy, k, a.dy_ld)[cell.row]);
        sum = __fmaf_rn(dy, widened(row_of(a.x, k, a.x_ld)[cell.col]), sum);
    }
    put_dw(a, cell.row, cell.col, sum);
}
KERNEL(256) masked_gemm_dw_plain(MaskedGemmDwArgs<float> a) { masked_gemm_dw(a); }
KERNEL(256) masked_gemm_dw_plain_bf16(MaskedGemmDwArgs<bf16> a) { masked_gemm_dw(a); }
KERNEL(256) masked_gemm_dw_plain_f16(MaskedGemmDwArgs<f16> a) { masked_gemm_dw(a); }

BATCHED(256, masked_bias_dw_blocks, MaskedBiasDwArgs) { sum_rows(a, block); }

BATCHED(256, masked_bias_dw_combine, MaskedBiasDwArgs) {
    size_t channel = thread_of_line(block);
    if (channel >= a.o) return;
    float sum = sum_of_blocks(a, channel);
    a.db[channel] = bit_of(a.mask, (unsigned)channel) ? sum : 0.0f;
    if (!a.ds) return;
    float to_score = 0.0f;
    if (!a.candidates || bit_of(a.candidates, (unsigned)channel)) {
        to_score = sum * a.bias[channel];
        if (a.score) to_score *= sign_of(a.score[channel]);
    }
    a.ds[channel] = to_score;
}
