// op      interleave             y[3 r + j] = xj[r] + time[r]
//         interleave_dx          dxj[r] = dy[3 r + j]; dtime[r] = their sum
//         select                 y[r] = x[r * stride + offset]
//         select_dx              dx[r * stride + offset] = dy[r], zero elsewhere
//         slide                  in each of b groups of rows, window moves up by the group's rows of x, which become
//                                its last
// args    InterleaveArgs  InterleaveDxArgs  SelectArgs  SelectDxArgs  SlideArgs
// layout  row major with pitch `_ld`
// launch  one thread per element of the output, 256 to a block; interleave_dx: one per three tokens and column; slide: one
//         per group and column
// order   interleave_dx: (dy0 + dy1) + dy2; slide: rows ascending, so that every row is read before it is overwritten
// tol     twice the error of the plain f32 loop against f64, plus 1e-6; slide exact
// cost    interleave 3*r*c flop; 28*r*c bytes; select 8*r*c bytes, dx 4*(r + q)*c; slide 8*q*c
// source  definition
#include "device.h"

KERNEL(256) interleave_plain(InterleaveArgs a) {
    size_t at = thread_of_line();
    if (at >= (size_t)a.q * a.c) return;
    Cell cell = cell_of(at, a.c);
    size_t row = cell.row / 3u;
    unsigned part = cell.row % 3u;
    const float* x = part == 0u ? row_of(a.x0, row, a.x0_ld) : part == 1u ? row_of(a.x1, row, a.x1_ld) : row_of(a.x2, row, a.x2_ld);
    float v = x[cell.col];
    if (a.time) v += row_of(a.time, row, a.time_ld)[cell.col];
    row_of(a.y, cell.row, a.y_ld)[cell.col] = v;
}

KERNEL(256) interleave_dx_plain(InterleaveDxArgs a) {
    size_t at = thread_of_line();
    if (at >= (size_t)a.r * a.c) return;
    Cell cell = cell_of(at, a.c);
    float y[3];
    for (unsigned part = 0; part < 3u; part++) y[part] = row_of(a.dy, 3u * cell.row + part, a.dy_ld)[cell.col];
    row_of(a.dx0, cell.row, a.dx0_ld)[cell.col] = y[0];
    row_of(a.dx1, cell.row, a.dx1_ld)[cell.col] = y[1];
    row_of(a.dx2, cell.row, a.dx2_ld)[cell.col] = y[2];
    if (a.dtime) row_of(a.dtime, cell.row, a.dtime_ld)[cell.col] = y[0] + y[1] + y[2];
}

KERNEL(256) select_plain(SelectArgs a) {
    size_t at = thread_of_line();
    if (at >= (size_t)a.r * a.c) return;
    Cell cell = cell_of(at, a.c);
    row_of(a.y, cell.row, a.y_ld)[cell.col] = row_of(a.x, cell.row * a.stride + a.offset, a.x_ld)[cell.col];
}

KERNEL(256) select_dx_plain(SelectDxArgs a) {
    size_t at = thread_of_line();
    if (at >= (size_t)a.q * a.c) return;
    Cell cell = cell_of(at, a.c);
    bool hit = cell.row % a.stride == a.offset;
    row_of(a.dx, cell.row, a.dx_ld)[cell.col] = hit ? row_of(a.dy, cell.row / a.stride, a.dy_ld)[cell.col] : 0.0f;
}

BATCHED(256, slide_plain, SlideArgs) {
    size_t at = thread_of_line(block);
    if (at >= (size_t)a.b * a.c) return;
    Cell cell = cell_of(at, a.c);
    unsigned fresh = a.r / a.b, rows = a.q / a.b;
    if (fresh == 0u) return;
    float* top = row_of(a.window, cell.row * rows, a.window_ld) + cell.col;
    for (unsigned i = 0; i < rows - fresh; i++) *row_of(top, i, a.window_ld) = *row_of(top, i + fresh, a.window_ld);
    for (unsigned i = 0; i < fresh; i++) {
        *row_of(top, rows - fresh + i, a.window_ld) = row_of(a.x, cell.row * fresh + i, a.x_ld)[cell.col];
    }
}
