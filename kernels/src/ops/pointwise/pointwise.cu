// op      gelu                   y = x / 2 (1 + erf(x / sqrt 2))
//         gelu_dx                dx = dy (Φ(x) + x φ(x))
//         add                    y = a + b
//         fill                   y = value
// args    GeluArgs  GeluDxArgs  AddArgs  FillArgs
// layout  row major with pitch `_ld`
// launch  one thread per element of the output, 256 to a block
// order   no sums
// tol     twice the error of the plain f32 loop against f64, plus 1e-6; fill exact
// cost    gelu 40*r*c flop; 8*r*c bytes, 12*r*c with a second input
// source  the normal distribution as in kernels/src/ops/vmath.rs
#include "device.h"

KERNEL(256) gelu_plain(GeluArgs a) {
    size_t at = thread_of_line();
    if (at >= (size_t)a.r * a.c) return;
    Cell cell = cell_of(at, a.c);
    float v = row_of(a.x, cell.row, a.x_ld)[cell.col];
    row_of(a.y, cell.row, a.y_ld)[cell.col] = v * normal_cdf(v).cdf;
}

KERNEL(256) gelu_dx_plain(GeluDxArgs a) {
    size_t at = thread_of_line();
    if (at >= (size_t)a.r * a.c) return;
    Cell cell = cell_of(at, a.c);
    float slope = gelu_slope(row_of(a.x, cell.row, a.x_ld)[cell.col]);
    row_of(a.dx, cell.row, a.dx_ld)[cell.col] = row_of(a.dy, cell.row, a.dy_ld)[cell.col] * slope;
}

KERNEL(256) add_plain(AddArgs a) {
    size_t at = thread_of_line();
    if (at >= (size_t)a.r * a.c) return;
    Cell cell = cell_of(at, a.c);
    float sum = row_of(a.a, cell.row, a.a_ld)[cell.col] + row_of(a.b, cell.row, a.b_ld)[cell.col];
    row_of(a.y, cell.row, a.y_ld)[cell.col] = sum;
}

KERNEL(256) fill_plain(FillArgs a) {
    size_t at = thread_of_line();
    if (at >= (size_t)a.r * a.c) return;
    Cell cell = cell_of(at, a.c);
    row_of(a.y, cell.row, a.y_ld)[cell.col] = __uint_as_float(a.value);
}
