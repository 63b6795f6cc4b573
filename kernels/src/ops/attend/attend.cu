// op      attend                 y = softmax(q kᵀ / sqrt(d)) v over the valid keys, one query per sequence
// args    AttendArgs
// layout  row major with pitch `_ld`; a row of kv is k, v of all heads, each head-major
// launch  attend_plain: one thread per sequence and head, 128 to a block; attend_block: one block of 128 per sequence and
//         head
// order   attend_plain: keys ascending: largest score, sum of exponents, weighted values; attend_block: scores by lanes,
//         which add by halves; sums thread by thread, as block_sum; values every fourth key ascending, then warps
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    4*r*c flop; 4*(r*e + 2*b*c) + r bytes, and 4*r*heads of scores
// source  definition
#include "device.h"

KERNEL(128) attend_plain(AttendArgs a) {
    size_t at = thread_of_line();  // sequence, then head
    if (at >= (size_t)a.b * a.heads) return;
    Cell cell = cell_of(at, a.heads);
    unsigned d = a.c / a.heads;
    const float* q = row_of(a.q, cell.row, a.q_ld) + cell.col * d;
    const float* k = row_of(a.kv, cell.row * a.t, a.kv_ld) + cell.col * d;
    const float* v = k + a.c;
    const unsigned char* valid = row_of(a.valid, cell.row, a.valid_ld);
    unsigned* scores = a.work + at * a.t;
    float scale = 1.0f / sqrtf((float)d), top = UNSEEN;
    for (unsigned key = 0; key < a.t; key++) {
        if (!valid[key]) continue;
        float score = 0.0f;
        for (unsigned i = 0; i < d; i++) score = __fmaf_rn(q[i], row_of(k, key, a.kv_ld)[i], score);
        score *= scale;
        scores[key] = __float_as_uint(score);
        top = score > top ? score : top;
    }
    float sum = 0.0f;
    for (unsigned key = 0; key < a.t; key++) {
        float weight = valid[key] ? exp_nonpos(__uint_as_float(scores[key]) - top) : 0.0f;
        sum += weight;
        scores[key] = __float_as_uint(weight);
    }
    float* y = row_of(a.y, cell.row, a.y_ld) + cell.col * d;
    for (unsigned i = 0; i < d; i++) {
        float value = 0.0f;
        for (unsigned key = 0; key < a.t; key++) {
            // A hidden value is not read.
            if (valid[key]) value = __fmaf_rn(__uint_as_float(scores[key]), row_of(v, key, a.kv_ld)[i], value);
        }
        y[i] = sum > 0.0f ? value / sum : 0.0f;
    }
}

KERNEL(128) attend_block(AttendArgs a) {
    __shared__ float shared[32], parts[4][32];
    const unsigned warp = threadIdx.x / 32u, lane = threadIdx.x % 32u, d = a.c / a.heads;
    size_t sequence = blockIdx.x / a.heads, head = blockIdx.x % a.heads;
    const float* q = row_of(a.q, sequence, a.q_ld) + head * d;
    const float* k = row_of(a.kv, sequence * a.t, a.kv_ld) + head * d;
    const float* v = k + a.c;
    const unsigned char* valid = row_of(a.valid, sequence, a.valid_ld);
    unsigned* scores = a.work + (size_t)blockIdx.x * a.t;
    float scale = 1.0f / sqrtf((float)d), top = UNSEEN;
    for (unsigned key = warp; key < a.t; key += 4u) {
        if (!valid[key]) continue;
        float score = 0.0f;
        for (unsigned i = lane; i < d; i += 32u) score = __fmaf_rn(q[i], row_of(k, key, a.kv_ld)[i], score);
        score = warp_sum(score) * scale;
        if (lane == 0u) scores[key] = __float_as_uint(score);
        top = score > top ? score : top;
    }
    top = block_max(top, shared);
    float sum = 0.0f;
    for (unsigned key = threadIdx.x; key < a.t; key += 128u) {
        float weight = valid[key] ? exp_nonpos(__uint_as_float(scores[key]) - top) : 0.0f;
        scores[key] = __float_as_uint(weight);
        sum += weight;
    }
    sum = block_sum(sum, shared);
    float* y = row_of(a.y, sequence, a.y_ld) + head * d;
    for (unsigned first = 0; first < d; first += 32u) {
        unsigned i = first + lane;
        float value = 0.0f;
        for (unsigned key = warp; key < a.t && i < d; key += 4u) {
            if (valid[key]) value = __fmaf_rn(__uint_as_float(scores[key]), row_of(v, key, a.kv_ld)[i], value);
        }
        parts[warp][lane] = value;
        __syncthreads();
        if (warp == 0u && i < d) {
            value = ((value + parts[1][lane]) + parts[2][lane]) + parts[3][lane];
            y[i] = sum > 0.0f ? value / sum : 0.0f;
        }
        __syncthreads();
    }
}
