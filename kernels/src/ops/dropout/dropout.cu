// op      dropout                y = add + x ⊙ keep / (1 - drop)
//         dropout_dx             dx = dy ⊙ keep / (1 - drop)
// args    DropoutArgs  DropoutDxArgs
// layout  row major with pitch `_ld`; rng is seed low, seed high, step, 0
// launch  one thread per element of the output, 256 to a block
// order   no sums
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    2*r*c flop and a Philox block per element; 12*r*c bytes
// source  kernels/src/ops/dropout/draw.rs; Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011)
#include "device.h"

KERNEL(256) dropout_plain(DropoutArgs a) {
    size_t at = thread_of_line();
    if (at >= (size_t)a.r * a.c) return;
    Cell cell = cell_of(at, a.c);
    Draw draw = draw_of(a.rng, a.drop, a.call);
    float v = keeps(draw, at) ? row_of(a.x, cell.row, a.x_ld)[cell.col] * draw.scale : 0.0f;
    if (a.add) v = row_of(a.add, cell.row, a.add_ld)[cell.col] + v;
    row_of(a.y, cell.row, a.y_ld)[cell.col] = v;
}

KERNEL(256) dropout_dx_plain(DropoutDxArgs a) {
    size_t at = thread_of_line();
    if (at >= (size_t)a.r * a.c) return;
    Cell cell = cell_of(at, a.c);
    Draw draw = draw_of(a.rng, a.drop, a.call);
    float v = keeps(draw, at) ? row_of(a.dy, cell.row, a.dy_ld)[cell.col] * draw.scale : 0.0f;
    row_of(a.dx, cell.row, a.dx_ld)[cell.col] = v;
}
