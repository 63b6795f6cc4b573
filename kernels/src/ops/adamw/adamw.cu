// op      adamw                  m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g²; p = p (1 - lr wd) - lr (m / c1) /
//                                (sqrt(v / c2) + eps), g scaled by clip; entries outside trainable are not touched
//         sumsq                  s = sum of g² over trainable entries
//         clip                   norm = sqrt(sum of s); factor = min(1, max_norm / (norm + 1e-6))
// args    AdamwArgs  SumsqArgs  ClipArgs
// layout  row major with pitch `_ld`; rows of bits are 32-bit words, column j is bit j%32 of word j/32; step is lr, c1,
//         c2, 0
// launch  adamw: one thread per entry, 256 to a block; sumsq_blocks: one block of 256 per 4096 entries; sumsq_combine, clip:
//         one block of 256
// order   every 256th entry of a block ascending, lanes of a warp by halves, warps ascending; then every 256th block
//         alike; sums in f64
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    adamw 14*o*i flop; 28*o*i + o*i/8 bytes; sumsq 2*o*i flop; 4*o*i + o*i/8 bytes
// source  Loshchilov and Hutter, Decoupled Weight Decay Regularization (2019), algorithm 2
#include "device.h"

// 1 - beta to the nearest multiple of 1e-7: an f32 near 1 does not hold the decimal that was meant.
DEVICE float complement(float beta) { return rintf((1.0f - beta) * 1e7f) / 1e7f; }

BATCHED(256, adamw_plain, AdamwArgs) {
    size_t at = thread_of_line(block);
    if (at >= (size_t)a.o * a.i) return;
    Cell cell = cell_of(at, a.i);
    if (a.trainable && !bit_of(row_of(a.trainable, cell.row, a.trainable_ld), cell.col)) return;
    float beta1 = __uint_as_float(a.beta1), beta2 = __uint_as_float(a.beta2);
    float rate = a.step[0] * __uint_as_float(a.lr_scale);
    float g = row_of(a.g, cell.row, a.g_ld)[cell.col];
    if (a.clip) g *= a.clip[0];
    float* p = row_of(a.p, cell.row, a.p_ld) + cell.col;
    float* m = row_of(a.m, cell.row, a.m_ld) + cell.col;
    float* v = row_of(a.v, cell.row, a.v_ld) + cell.col;
    float mean = beta1 * *m + complement(beta1) * g;
    float square = beta2 * *v + complement(beta2) * g * g;
    float change = (mean / a.step[1]) / (sqrtf(square / a.step[2]) + __uint_as_float(a.eps));
    *m = mean;
    *v = square;
    *p = *p * (1.0f - rate * __uint_as_float(a.weight_decay)) - rate * change;
}

BATCHED(256, sumsq_blocks, SumsqArgs) {
    __shared__ double shared[32];
    size_t count = (size_t)a.o * a.i, first = (size_t)block.x * 4096u;
    double sum = 0.0;
    for (size_t at = first + threadIdx.x; at < count && at < first + 4096u; at += 256u) {
        Cell cell = cell_of(at, a.i);
        if (a.trainable && !bit_of(row_of(a.trainable, cell.row, a.trainable_ld), cell.col)) continue;
        double g = row_of(a.g, cell.row, a.g_ld)[cell.col];
        sum += g * g;
    }
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0u) ((double*)a.work)[block.x] = sum;
}

BATCHED(256, sumsq_combine, SumsqArgs) {
    __shared__ double shared[32];
    size_t count = ((size_t)a.o * a.i + 4095u) / 4096u;
    double sum = sum_of_parts(a.work, count, shared);
    if (threadIdx.x == 0u) a.s[0] = (float)sum;
}

KERNEL(256) clip_plain(ClipArgs a) {
    __shared__ double shared[32];
    double sum = 0.0;
    for (unsigned at = threadIdx.x; at < a.n; at += 256u) sum += a.s[at];
    sum = block_sum(sum, shared);
    if (threadIdx.x != 0u) return;
    float length = sqrtf((float)sum), most = __uint_as_float(a.max_norm);
    // By bits: neither infinity nor NaN turns clipping on.
    bool on = a.max_norm > 0u && a.max_norm < 0x7f800000u;
    float factor = most / (length + 1e-6f);
    a.norm[0] = length;
    a.factor[0] = !on || factor > 1.0f ? 1.0f : factor;
}
