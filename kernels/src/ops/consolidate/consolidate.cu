// op      pull                   y = g + strength * f * (p - a)
//         path_integral          w = w - g * (p - last); last = p
// args    PullArgs  PathIntegralArgs
// layout  row major with pitch `_ld`
// launch  one thread per element, 256 to a block
// order   no sums
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    pull 4*o*i flop; 20*o*i bytes; path_integral 3*o*i flop; 24*o*i bytes
// source  Kirkpatrick et al., Overcoming catastrophic forgetting in neural networks (2017), eq. 3; Zenke et al., Continual
//         Learning Through Synaptic Intelligence (2017), section 3
#include "device.h"

BATCHED(256, pull_plain, PullArgs) {
    size_t at = thread_of_line(block);
    if (at >= (size_t)a.o * a.i) return;
    Cell cell = cell_of(at, a.i);
    float apart = row_of(a.p, cell.row, a.p_ld)[cell.col] - row_of(a.a, cell.row, a.a_ld)[cell.col];
    float pulled = __uint_as_float(a.strength) * row_of(a.f, cell.row, a.f_ld)[cell.col] * apart;
    row_of(a.y, cell.row, a.y_ld)[cell.col] = row_of(a.g, cell.row, a.g_ld)[cell.col] + pulled;
}

BATCHED(256, path_integral_plain, PathIntegralArgs) {
    size_t at = thread_of_line(block);
    if (at >= (size_t)a.o * a.i) return;
    Cell cell = cell_of(at, a.i);
    float value = row_of(a.p, cell.row, a.p_ld)[cell.col];
    float* last = row_of(a.last, cell.row, a.last_ld) + cell.col;
    row_of(a.w, cell.row, a.w_ld)[cell.col] -= row_of(a.g, cell.row, a.g_ld)[cell.col] * (value - *last);
    *last = value;
}
