// op      multiply_add           y = the sum of 32 chains x -> x s + t: what the multiprocessors do at most
//         read                   y = sums of x: what the memory gives at most
// args    MultiplyAddArgs  ReadArgs
// layout  row major with pitch `_ld`
// launch  multiply_add: one thread per y; read: n threads in all
// order   chains ascending; read: every n-th element ascending
// tol     not compared with anything
// cost    multiply_add 256*32*2 flop a thread; read 4*r*c bytes
// source  tsn/cli/src/profile/gpu_ceilings.rs has the contracts
#include "device.h"

struct MultiplyAddArgs {
    float* y;
    unsigned* work;
    unsigned r, c, y_ld;
};

struct ReadArgs {
    const float* x;
    float* y;
    unsigned* work;
    unsigned r, c, n, x_ld, y_ld;
};

KERNEL(256) multiply_add(MultiplyAddArgs a) {
    size_t at = thread_of_line();
    if (at >= (size_t)a.r * a.c) return;
    float s = 0.999f + 1e-9f * (float)(at % 7u), t = 1e-3f;
    float chains[32];
    for (int chain = 0; chain < 32; chain++) chains[chain] = (float)chain;
    for (int turn = 0; turn < 256; turn++) {
        for (int chain = 0; chain < 32; chain++) chains[chain] = __fmaf_rn(chains[chain], s, t);
    }
    float sum = 0.0f;
    for (int chain = 0; chain < 32; chain++) sum += chains[chain];
    Cell cell = cell_of(at, a.c);
    row_of(a.y, cell.row, a.y_ld)[cell.col] = sum;
}

// Four elements at a time; rows have no gaps and their length is a multiple of 4.
KERNEL(256) read(ReadArgs a) {
    struct alignas(16) Four {
        float at[4];
    };
    size_t thread = thread_of_line();
    if (thread >= a.n) return;
    const Four* x = (const Four*)a.x;
    float sum = 0.0f;
    for (size_t at = thread; at < (size_t)a.r * a.c / 4u; at += a.n) {
        Four v = x[at];
        sum += (v.at[0] + v.at[1]) + (v.at[2] + v.at[3]);
    }
    a.y[thread] = sum;
}
