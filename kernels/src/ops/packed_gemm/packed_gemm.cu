// op      packed_gemm            y = x wᵀ + bias with w as packed rows: row o holds value[row_start[o] .. row_start[o
//         + 1]] at columns col
// args    PackedGemmArgs
// layout  row major with pitch `_ld`
// launch  plain: one thread per y, 256 to a block
// order   plain: kept weights ascending from the bias, one accumulator
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
