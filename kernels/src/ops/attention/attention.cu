// op      attention              y = dropout(softmax(q kᵀ / sqrt(d)) v over visible keys); stats = log-sum-exp per
//         head
//         attention_dx           dqkv from dy, probabilities recomputed from stats
// args    AttentionArgs  AttentionDxArgs
// layout  row major with pitch `_ld`; a row of qkv is q, k, v of all heads, each head-major; qkv and dy f32 or f16, sums f32
// launch  attention_plain, attention_dx_queries: one thread per query and head, 128 to a block; attention_dx_keys: one
//         per key and head
// order   keys ascending: largest score, sum of exponents, weighted values; attention_dx: keys ascending, queries
//         ascending; one accumulator each
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    2*r*t*c flop; 4*(r*e + r*c + r*h) + r bytes, and 4*r*t*h of scores; attention_dx 5*r*t*c flop; 4*(2*r*e +
//         2*r*c + r*h) + r bytes, and 8*r*t*h of probabilities and their gradients
// source  definition; dropout as kernels/src/ops/dropout/draw.rs
#include "device.h"

template <class T>
DEVICE void attention_plain_of(const AttentionArgs<T>& a) {
    size_t at = thread_of_line();  // query, then head
    if (at >= (size_t)a.r * a.heads) return;
    Cell cell = cell_of(at, a.heads);
    unsigned d = a.c / a.heads, query = (unsigned)(cell.row % a.t);
    size_t sequence = cell.row / a.t, first = sequence * a.t;
    Draw draw = draw_if(a.rng, a.drop, a.call);
    size_t element = ((sequence * a.heads + cell.col) * a.t + query) * a.t;
    const T* q = row_of(a.qkv, cell.row, a.qkv_ld) + cell.col * d;
    const T* k = row_of(a.qkv, first, a.qkv_ld) + a.c + cell.col * d;
    const T* v = k + a.c;
    const unsigned char* valid = row_of(a.valid, sequence, a.valid_ld);
    unsigned* scores = a.work + at * a.t;
    float scale = 1.0f / sqrtf((float)d), top = UNSEEN;
    for (unsigned key = 0; key <= query; key++) {
        if (!valid[key]) continue;
        float score = 0.0f;
        for (unsigned i = 0; i < d; i++) score = __fmaf_rn(widened(q[i]), widened(row_of(k, key, a.qkv_ld)[i]), score);
        score *= scale;
        scores[key] = __float_as_uint(score);
        top = score > top ? score : top;
    }
    float sum = 0.0f;
    for (unsigned key = 0; key <= query; key++) {
        float weight = 0.0f;
        if (valid[key]) {
            weight = exp_nonpos(__uint_as_float(scores[key]) - top);
            sum += weight;
            weight = keeps(draw, element + key) ? weight * draw.scale : 0.0f;
        }
        scores[key] = __float_as_uint(weight);
    }
    row_of(a.stats, cell.row, a.stats_ld)[cell.col] = sum > 0.0f ? top + ln_1p(sum - 1.0f) : 0.0f;
    float* y = row_of(a.y, cell.row, a.y_ld) + cell.col * d;
    for (unsigned i = 0; i < d; i++) {
        float value = 0.0f;
        for (unsigned key = 0; key <= query; key++) {
            float weight = __uint_as_float(scores[key]);
            // Hidden and dropped values are not read.
            if (weight != 0.0f) value = __fmaf_rn(weight, widened(row_of(v, key, a.qkv_ld)[i]), value);
        }
        y[i] = sum > 0.0f ? value / sum : 0.0f;
    }
}
KERNEL(128) attention_plain(AttentionArgs<float> a) { attention_plain_of(a); }
KERNEL(128) attention_plain_f16(AttentionArgs<f16> a) { attention_plain_of(a); }

template <class T>
DEVICE void attention_dx_queries_of(const AttentionDxArgs<T>& a) {
    size_t at = thread_of_line();  // query, then head
    if (at >= (size_t)a.r * a.heads) return;
    Cell cell = cell_of(at, a.heads);
    unsigned d = a.c / a.heads, query = (unsigned)(cell.row % a.t);
    size_t sequence = cell.row / a.t, first = sequence * a.t;
    Draw draw = draw_if(a.rng, a.drop, a.call);
    size_t element = ((sequence * a.heads + cell.col) * a.t + query) * a.t;
    const T* q = row_of(a.qkv, cell.row, a.qkv_ld) + cell.col * d;
    const T* k = row_of(a.qkv, first, a.qkv_ld) + a.c + cell.col * d;
    const T* v = k + a.c;
    const T* dy = row_of(a.dy, cell.row, a.dy_ld) + cell.col * d;
    const float* y = row_of(a.y, cell.row, a.y_ld) + cell.col * d;
    const unsigned char* valid = row_of(a.valid, sequence, a.valid_ld);
    float stats = row_of(a.stats, cell.row, a.stats_ld)[cell.col], scale = 1.0f / sqrtf((float)d), dy_y = 0.0f;
    for (unsigned i = 0; i < d; i++) dy_y = __fmaf_rn(widened(dy[i]), y[i], dy_y);
    unsigned* pairs = a.work + 2u * at * a.t;  // gradient of a score, then the probability behind dropout
    for (unsigned key = 0; key <= query; key++) {
        float dscore = 0.0f, weight = 0.0f;
        if (valid[key]) {
            float score = 0.0f, dy_v = 0.0f;
            for (unsigned i = 0; i < d; i++) {
                score = __fmaf_rn(widened(q[i]), widened(row_of(k, key, a.qkv_ld)[i]), score);
                dy_v = __fmaf_rn(widened(dy[i]), widened(row_of(v, key, a.qkv_ld)[i]), dy_v);
            }
            float probability = exp_nonpos(score * scale - stats);
            float factor = keeps(draw, element + key) ? draw.scale : 0.0f;
            dscore = probability * (factor * dy_v - dy_y) * scale;
            weight = factor * probability;
        }
        pairs[2u * key] = __float_as_uint(dscore);
        pairs[2u * key + 1u] = __float_as_uint(weight);
    }
    float* dq = row_of(a.dqkv, cell.row, a.dqkv_ld) + cell.col * d;
    for (unsigned i = 0; i < d; i++) {
        float value = 0.0f;
        for (unsigned key = 0; key <= query; key++) {
            // Hidden keys are not read.
            if (!valid[key]) continue;
            value = __fmaf_rn(__uint_as_float(pairs[2u * key]), widened(row_of(k, key, a.qkv_ld)[i]), value);
        }
        dq[i] = value;
    }
}
KERNEL(128) attention_dx_queries(AttentionDxArgs<float> a) { attention_dx_queries_of(a); }
KERNEL(128) attention_dx_queries_f16(AttentionDxArgs<f16> a) { attention_dx_queries_of(a); }

template <class T>
DEVICE void attention_dx_keys_of(const AttentionDxArgs<T>& a) {
    size_t at = thread_of_line();  // key, then head
    if (at >= (size_t)a.r * a.heads) return;
    Cell cell = cell_of(at, a.heads);
    unsigned d = a.c / a.heads, key = (unsigned)(cell.row % a.t);
    size_t sequence = cell.row / a.t, first = sequence * a.t;
    const T* q = row_of(a.qkv, first, a.qkv_ld) + cell.col * d;
    const T* dy = row_of(a.dy, first, a.dy_ld) + cell.col * d;
    const unsigned* pairs = a.work + 2u * ((first * a.heads + cell.col) * a.t + key);
    size_t pair_ld = 2u * (size_t)a.heads * a.t;  // from one query to the next
    bool seen = row_of(a.valid, sequence, a.valid_ld)[key];
    float* dk = row_of(a.dqkv, cell.row, a.dqkv_ld) + a.c + cell.col * d;
    for (unsigned i = 0; i < d; i++) {
        float to_k = 0.0f, to_v = 0.0f;
        for (unsigned query = seen ? key : a.t; query < a.t; query++) {
            const unsigned* pair = pairs + query * pair_ld;
            to_k = __fmaf_rn(__uint_as_float(pair[0]), widened(row_of(q, query, a.qkv_ld)[i]), to_k);
            to_v = __fmaf_rn(__uint_as_float(pair[1]), widened(row_of(dy, query, a.dy_ld)[i]), to_v);
        }
        dk[i] = to_k;
        dk[i + a.c] = to_v;
    }
}
KERNEL(128) attention_dx_keys(AttentionDxArgs<float> a) { attention_dx_keys_of(a); }
KERNEL(128) attention_dx_keys_f16(AttentionDxArgs<f16> a) { attention_dx_keys_of(a); }
