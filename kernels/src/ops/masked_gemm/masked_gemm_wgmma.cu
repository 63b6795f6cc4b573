// op      masked_gemm : see masked_gemm.cu
//         masked_gemm_dx
//         masked_gemm_dw
// args    MaskedGemmArgs  MaskedGemmDxArgs  MaskedGemmDwArgs
// layout  row major with pitch `_ld`; mask rows of 32-bit words, column j is bit j%32 of word j/32; bf16, sums f32
// launch  384 threads to a tile of 128 x 256 elements of the output; dynamic shared memory; capability 9.0; a second argument,
//         the tensor maps of operands without a mask
// order   as warpgroup.h, then the bias
// tol     twice the error of the plain f32 loop against f64, plus 3e-6
// cost    2*r*i*o flop; 2*(r*i + o*i) + 4*r*o + o*i/8 bytes
// source  definition; layouts of wgmma and of tensor maps: PTX ISA 8.0, sections on wgmma and cp.async.bulk.tensor
#include "ends.h"
#include "warpgroup.h"

KERNEL(384) masked_gemm_wgmma_bf16(MaskedGemmArgs<bf16> a, MAPS(1, map)) {
    auto x = matrix(a.x, a.x_ld, a.r, a.i), w = matrix(a.w, a.w_ld, a.o, a.i, a.mask, a.mask_ld);
    auto finish = [&](unsigned row, unsigned col, float sum) { put_y(a, row, col, sum + bias_of(a, col)); };
    product_of_groups<true, true, true>(x, &map.of[0], w, nullptr, finish);
}

KERNEL(384) masked_gemm_dx_wgmma_bf16(MaskedGemmDxArgs<bf16> a, MAPS(1, map)) {
    auto dy = matrix(a.dy, a.dy_ld, a.r, a.o), w = matrix(a.w, a.w_ld, a.o, a.i, a.mask, a.mask_ld);
    auto finish = [&](unsigned row, unsigned col, float sum) { put_dx(a, row, col, sum); };
    product_of_groups<true, false, true>(dy, &map.of[0], w, nullptr, finish);
}

KERNEL(384) masked_gemm_dw_wgmma_bf16(MaskedGemmDwArgs<bf16> a, MAPS(2, map)) {
    auto dy = matrix(a.dy, a.dy_ld, a.r, a.o), x = matrix(a.x, a.x_ld, a.r, a.i);
    auto finish = [&](unsigned row, unsigned col, float sum) { put_dw(a, row, col, sum); };
    product_of_groups<false, false, false>(dy, &map.of[0], x, &map.of[1], finish);
}
