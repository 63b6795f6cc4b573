// op      embed                  y[r] = (w ⊙ mask)[min(ids[r], v - 1)]
//         embed_dw               g[v] = sum of dy[r] with ids[r] = v, r ascending; dw = g ⊙ mask; ds = g ⊙ w ⊙
//                                sign(score), zero outside the candidates
// args    EmbedArgs  EmbedDwArgs
// layout  row major with pitch `_ld`; rows of bits are 32-bit words, column j is bit j%32 of word j/32
// launch  one thread per element of the output, 256 to a block; one of dw looks through all ids
// order   r ascending, one accumulator
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    8*r*c + 4*r + r*c/8 bytes; dw 4*(v*r + r*c + 4*v*c) + v*c/4
// source  definition
#include "device.h"

BATCHED(256, embed_plain, EmbedArgs) {
    size_t at = thread_of_line(block);
    if (at >= (size_t)a.r * a.c) return;
    Cell cell = cell_of(at, a.c);
    float value = 0.0f;
    if (a.v > 0u) {
        unsigned id = a.ids[cell.row] < a.v ? a.ids[cell.row] : a.v - 1u;
        if (!a.mask || bit_of(row_of(a.mask, id, a.mask_ld), cell.col)) value = row_of(a.w, id, a.w_ld)[cell.col];
    }
    row_of(a.y, cell.row, a.y_ld)[cell.col] = value;
}

KERNEL(256) embed_dw_plain(EmbedDwArgs a) {
    size_t at = thread_of_line();
    if (at >= (size_t)a.v * a.c) return;
    Cell cell = cell_of(at, a.c);
    float g = 0.0f;
    for (unsigned i = 0; i < a.r; i++) {
        unsigned id = a.ids[i] < a.v ? a.ids[i] : a.v - 1u;
        if (id == cell.row) g += row_of(a.dy, i, a.dy_ld)[cell.col];
    }
    bool kept = !a.mask || bit_of(row_of(a.mask, cell.row, a.mask_ld), cell.col);
    row_of(a.dw, cell.row, a.dw_ld)[cell.col] = kept ? g : 0.0f;
    if (!a.ds) return;
    float s = 0.0f;
    bool open = !a.candidates || bit_of(row_of(a.candidates, cell.row, a.candidates_ld), cell.col);
    if (open && a.w && a.score) {
        float sign = sign_of(row_of(a.score, cell.row, a.score_ld)[cell.col]);
        if (sign != 0.0f) s = g * row_of(a.w, cell.row, a.w_ld)[cell.col] * sign;
    }
    row_of(a.ds, cell.row, a.ds_ld)[cell.col] = s;
}
