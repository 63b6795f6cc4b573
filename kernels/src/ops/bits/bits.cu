// op      pack_bits              mask bit = flag != 0
//         unpack_bits            flag = mask bit
// args    PackBitsArgs  UnpackBitsArgs
// layout  row major with pitch `_ld`; rows of bits are 32-bit words, column j is bit j%32 of word j/32, pad bits 0
// launch  pack_bits: one thread per word of the mask; unpack_bits: one per flag; 256 to a block
// order   no sums
// tol     exact
// cost    r*c + r*c/8 bytes
// source  definition
#include "device.h"

KERNEL(256) pack_bits_plain(PackBitsArgs a) {
    unsigned words = (a.c + 31u) / 32u;
    size_t at = thread_of_line();
    if (at >= (size_t)a.r * words) return;
    Cell cell = cell_of(at, words);
    const unsigned char* flags = row_of(a.flags, cell.row, a.flags_ld) + 32u * (size_t)cell.col;
    unsigned left = a.c - 32u * cell.col, end = left < 32u ? left : 32u, bits = 0u;
    for (unsigned j = 0; j < end; j++) bits |= (flags[j] != 0u ? 1u : 0u) << j;
    row_of(a.mask, cell.row, a.mask_ld)[cell.col] = bits;
}

KERNEL(256) unpack_bits_plain(UnpackBitsArgs a) {
    size_t at = thread_of_line();
    if (at >= (size_t)a.r * a.c) return;
    Cell cell = cell_of(at, a.c);
    row_of(a.flags, cell.row, a.flags_ld)[cell.col] = bit_of(row_of(a.mask, cell.row, a.mask_ld), cell.col) ? 1u : 0u;
}
