// op      attention              y = dropout(softmax(q kᵀ / sqrt(d)) v over visible keys); stats = log-sum-exp per
//         head
//         attention_dx           dqkv from dy, probabilities recomputed from stats
// args    AttentionArgs  AttentionDxArgs
// layout  row major with pitch `_ld`; a row of qkv is q, k, v of all heads, each head-major; heads of at most 128 columns;
//         qkv and dy f32 or f16, which is widened in shared memory
// launch  attention_tiled_*: one block of 4 warps per head and tile of queries; attention_dx_tiled_*: the same for dq,
//         and one block per head and tile of keys for dk and dv, at the same time; the number is the columns of a tile
// order   attention: keys in chunks of 32 or 64; scores i ascending; sums lane by lane, then lanes by halves; values keys
//         ascending; attention_dx: keys or queries ascending
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    2*r*t*c flop; 4*(r*e + r*c + r*h) + r bytes; attention_dx 7*r*t*c flop; 4*(2*r*e + 2*r*c + r*h) + r bytes;
//         scores stay in shared memory
// source  softmax by chunks: Milakov & Gimelshein 2018, Dao et al. 2022; dropout as kernels/src/ops/dropout/draw.rs
#include "attention.h"

#define THREADS 128u
#define WARPS 4

// Rows of a head's tokens: the first, and how far it is to the next.
template <class T>
struct Rows {
    const T* from;
    unsigned ld;
};
template <class T>
DEVICE Rows<T> rows_of(const Head& head, const T* x, unsigned ld, unsigned part) {
    Rows<T> rows = {row_of(x, head.first, ld) + part + head.column, ld};
    return rows;
}

// Tokens `first ..` of some rows, D columns of them, to shared memory, PITCH fours apart; 0 outside the sequence and the
// head, and where a token is hidden if that is asked for.
template <int D, int PITCH, class T>
DEVICE void load(float4* to, unsigned count, const Head& head, Rows<T> rows, unsigned first, bool visible_only) {
    bool fours = in_fours(rows.from, rows.ld) && head.d % 4u == 0u;
    ROLLED for (unsigned at = threadIdx.x; at < count * (D / 4); at += THREADS) {
        unsigned row = at / (D / 4), four = at % (D / 4), token = first + row;
        bool there = token < head.t && (!visible_only || head.valid[token]);
        to[row * PITCH + four] = there ? load_four(row_of(rows.from, token, rows.ld), 4u * four, head.d, fours) : zeros();
    }
}

// Four columns of a row of a head.
DEVICE void store(const Head& head, float* x, unsigned ld, unsigned part, unsigned token, unsigned column, float4 v) {
    if (token >= head.t) return;
    store_four(row_of(x, head.first + token, ld) + part + head.column, column, head.d, in_fours(x + part + head.column, ld), v);
}

// Products of EACH rows of a warp with the rows of its lanes, OTHERS/32 for each lane; columns ascending.
template <int D, int OTHERS, int EACH>
DEVICE void products(float (&to)[EACH][OTHERS / 32], const float4* own, const float4* others) {
    const unsigned lane = threadIdx.x % 32u;
    UNROLL_4 for (int four = 0; four < D / 4; four++) {
        float4 other[OTHERS / 32];
        UNROLL for (int j = 0; j < OTHERS / 32; j++) other[j] = others[(lane + 32u * j) * (D / 4 + 1) + four];
        UNROLL for (int e = 0; e < EACH; e++) {
            float4 row = own[e * (D / 4) + four];
            UNROLL for (int j = 0; j < OTHERS / 32; j++) to[e][j] = dot_four(row, other[j], to[e][j]);
        }
    }
}

// Rows of a strip of weights times the rows of the others: lane l has columns 4 (l % FOURS) .. of every SLOTS-th row.
template <int D, int OTHERS, int EACH>
struct Combined {
    static constexpr int FOURS = D / 4, SLOTS = 32 / FOURS, COUNT = EACH / SLOTS, STRIP = OTHERS / 4 + 1;
    float4 at[COUNT];

    DEVICE_MEMBER static unsigned row(int n) { return threadIdx.x % 32u / FOURS + SLOTS * n; }
    DEVICE_MEMBER static unsigned column() { return 4u * (threadIdx.x % FOURS); }
    DEVICE_MEMBER void add(const float4* strip, const float4* others, unsigned pitch, unsigned count) {
        const float4* column = others + threadIdx.x % FOURS;
        ROLLED for (unsigned four = 0; 4u * four < count; four++) {
            float4 o0 = column[4u * four * pitch], o1 = column[(4u * four + 1u) * pitch];
            float4 o2 = column[(4u * four + 2u) * pitch], o3 = column[(4u * four + 3u) * pitch];
            UNROLL for (int n = 0; n < COUNT; n++) {
                float4 w = strip[row(n) * STRIP + four];
                at[n] = add_four(w.w, o3, add_four(w.z, o2, add_four(w.y, o1, add_four(w.x, o0, at[n]))));
            }
        }
    }
};

template <int D, int KEYS, int EACH, class T>
DEVICE void attention(const AttentionArgs<T>& a) {
    typedef Combined<D, KEYS, EACH> Values;
    __shared__ float4 queries[WARPS * EACH * D / 4], keys[KEYS * (D / 4 + 1)], values[KEYS * (D / 4 + 1)];
    __shared__ float4 strips[WARPS * EACH * Values::STRIP];
    __shared__ float factors[WARPS * EACH];  // a number for every query
    __shared__ unsigned char kept[WARPS * EACH * (KEYS / 8 + 1)];
    const Head head = head_of(a);
    const Draw draw = draw_if(a.rng, a.drop, a.call);
    const unsigned warp = threadIdx.x / 32u, lane = threadIdx.x % 32u;
    const unsigned first = blockIdx.y * WARPS * EACH, own = first + warp * EACH;
    float4* strip = strips + warp * EACH * Values::STRIP;
    float* factor = factors + warp * EACH;
    unsigned char* bits = kept + warp * EACH * (KEYS / 8 + 1);
    load<D, D / 4>(queries, WARPS * EACH, head, rows_of(head, a.qkv, a.qkv_ld, 0u), first, false);
    float top[EACH], sum[EACH];
    UNROLL for (int e = 0; e < EACH; e++) {
        top[e] = UNSEEN;
        sum[e] = 0.0f;
    }
    Values value;
    UNROLL for (int n = 0; n < Values::COUNT; n++) value.at[n] = zeros();
    unsigned end = first + WARPS * EACH < head.t ? first + WARPS * EACH : head.t;
    for (unsigned from = 0; from < end; from += KEYS) {
        __syncthreads();
        load<D, D / 4 + 1>(keys, KEYS, head, rows_of(head, a.qkv, a.qkv_ld, a.c), from, true);
        load<D, D / 4 + 1>(values, KEYS, head, rows_of(head, a.qkv, a.qkv_ld, 2u * a.c), from, true);
        __syncthreads();
        if (from >= own + EACH || own >= head.t) continue;
        if (draw.threshold != 0u) draw_rows<KEYS, EACH>(bits, draw, head, own, from);
        __syncwarp();
        float score[EACH][KEYS / 32] = {};
        products<D, KEYS, EACH>(score, queries + warp * EACH * D / 4, keys);
        UNROLL for (int e = 0; e < EACH; e++) {
            unsigned query = own + e;
            float most = top[e];
            UNROLL for (int j = 0; j < KEYS / 32; j++) {
                unsigned key = from + lane + 32u * j;
                bool seen = key <= query && query < head.t && head.valid[key];
                score[e][j] = seen ? score[e][j] * head.scale : UNSEEN;
                most = score[e][j] > most ? score[e][j] : most;
            }
            most = warp_max(most);
            float shrink = exp_nonpos(top[e] - most);
            sum[e] *= shrink;
            top[e] = most;
            UNROLL for (int j = 0; j < KEYS / 32; j++) {
                // A query that has seen no key yet has UNSEEN as its largest score.
                float weight = score[e][j] > UNSEEN ? exp_nonpos(score[e][j] - most) : 0.0f;
                sum[e] += weight;
                unsigned nth = lane + 32u * j;
                if (draw.threshold != 0u) weight = drawn<KEYS>(bits, head, e, query, from, nth) ? weight * draw.scale : 0.0f;
                ((float*)(strip + e * Values::STRIP))[nth] = weight;
            }
            if (lane == 0u) factor[e] = shrink;
        }
        __syncwarp();
        UNROLL for (int n = 0; n < Values::COUNT; n++) value.at[n] = times_four(factor[Values::row(n)], value.at[n]);
        value.add(strip, values, D / 4 + 1, end - from < KEYS ? end - from : KEYS);
    }
    __syncwarp();
    UNROLL for (int e = 0; e < EACH; e++) {
        float total = warp_sum(sum[e]);
        if (lane == 0u) {
            factor[e] = total > 0.0f ? 1.0f / total : 0.0f;
            float* stats = row_of(a.stats, head.first + own + e, a.stats_ld) + blockIdx.x % a.heads;
            if (own + e < head.t) *stats = total > 0.0f ? top[e] + ln_1p(total - 1.0f) : 0.0f;
        }
    }
    __syncwarp();
    UNROLL for (int n = 0; n < Values::COUNT; n++) {
        unsigned row = Values::row(n);
        store(head, a.y, a.y_ld, 0u, own + row, Values::column(), times_four(factor[row], value.at[n]));
    }
}
KERNEL(128) attention_tiled_16(AttentionArgs<float> a) { attention<16, 64, 8>(a); }
KERNEL(128) attention_tiled_16_f16(AttentionArgs<f16> a) { attention<16, 64, 8>(a); }
KERNEL(128) attention_tiled_32(AttentionArgs<float> a) { attention<32, 64, 8>(a); }
KERNEL(128) attention_tiled_32_f16(AttentionArgs<f16> a) { attention<32, 64, 8>(a); }
KERNEL(128) attention_tiled_64(AttentionArgs<float> a) { attention<64, 32, 8>(a); }
KERNEL(128) attention_tiled_64_f16(AttentionArgs<f16> a) { attention<64, 32, 8>(a); }
KERNEL(128) attention_tiled_128(AttentionArgs<float> a) { attention<128, 32, 4>(a); }
KERNEL(128) attention_tiled_128_f16(AttentionArgs<f16> a) { attention<128, 32, 4>(a); }

// The own rows of a block are queries (and dy), the others keys (and values), or the other way round: then the strips
// hold gradients of scores and probabilities of own rows all the same.
template <int D, int OTHERS, int EACH, class T>
DEVICE void attention_dx(const AttentionDxArgs<T>& a) {
    typedef Combined<D, OTHERS, EACH> Sums;
    constexpr int ROWS = WARPS * EACH, MOST = OTHERS > ROWS ? OTHERS : ROWS;
    __shared__ float4 own_rows[2][ROWS * D / 4], other_rows[2][OTHERS * (D / 4 + 1)];
    __shared__ float4 strips[2][ROWS * Sums::STRIP];
    __shared__ float stats[MOST], dots[MOST];  // of queries
    __shared__ unsigned char kept[ROWS * (OTHERS / 8 + 1)];
    const Head head = head_of(a);
    const Draw draw = draw_if(a.rng, a.drop, a.call);
    const bool of_keys = blockIdx.z == 1u;
    const unsigned warp = threadIdx.x / 32u, lane = threadIdx.x % 32u;
    const unsigned first = blockIdx.y * ROWS, own = first + warp * EACH;
    float4* dscores = strips[0] + warp * EACH * Sums::STRIP;
    float4* weights = strips[1] + warp * EACH * Sums::STRIP;
    unsigned char* bits = kept + warp * EACH * (OTHERS / 8 + 1);
    const Rows<T> q = rows_of(head, a.qkv, a.qkv_ld, 0u), k = rows_of(head, a.qkv, a.qkv_ld, a.c);
    const Rows<T> v = rows_of(head, a.qkv, a.qkv_ld, 2u * a.c), dy = rows_of(head, a.dy, a.dy_ld, 0u);
    load<D, D / 4>(own_rows[0], ROWS, head, of_keys ? k : q, first, of_keys);
    load<D, D / 4>(own_rows[1], ROWS, head, of_keys ? v : dy, first, of_keys);
    if (!of_keys) load_dots(stats, dots, ROWS, a, head, first);
    Sums to_first, to_second;  // dq, or dk and dv
    UNROLL for (int n = 0; n < Sums::COUNT; n++) to_first.at[n] = to_second.at[n] = zeros();
    unsigned end = of_keys || first + ROWS > head.t ? head.t : first + ROWS;
    for (unsigned from = of_keys ? first / OTHERS * OTHERS : 0u; from < end; from += OTHERS) {
        __syncthreads();
        load<D, D / 4 + 1>(other_rows[0], OTHERS, head, of_keys ? q : k, from, !of_keys);
        load<D, D / 4 + 1>(other_rows[1], OTHERS, head, of_keys ? dy : v, from, !of_keys);
        if (of_keys) load_dots(stats, dots, OTHERS, a, head, from);
        __syncthreads();
        // No query of these sees a key of those.
        if (own >= head.t || (of_keys ? from + OTHERS <= own : from >= own + EACH)) continue;
        if (draw.threshold != 0u && !of_keys) draw_rows<OTHERS, EACH>(bits, draw, head, own, from);
        __syncwarp();
        float score[EACH][OTHERS / 32] = {}, dy_v[EACH][OTHERS / 32] = {};
        products<D, OTHERS, EACH>(score, own_rows[0] + warp * EACH * D / 4, other_rows[0]);
        products<D, OTHERS, EACH>(dy_v, own_rows[1] + warp * EACH * D / 4, other_rows[1]);
        UNROLL for (int j = 0; j < OTHERS / 32; j++) {
            unsigned nth = lane + 32u * j, other = from + nth, eight = 0xffffu, shift = 0u;
            if (draw.threshold != 0u && of_keys && other < head.t) {
                // The own keys of one query lie in two blocks of eight at most.
                size_t element = head.drawn + (size_t)other * head.t + own;
                shift = (unsigned)(element % 8u);
                eight = kept_of_block(draw, element / 8u);
                if (shift + EACH > 8u) eight |= (unsigned)kept_of_block(draw, element / 8u + 1u) << 8;
            }
            UNROLL for (int e = 0; e < EACH; e++) {
                unsigned query = of_keys ? other : own + e, key = of_keys ? own + e : other;
                unsigned row = of_keys ? nth : warp * EACH + e;  // of stats and dots
                bool seen = key <= query && query < head.t && head.valid[key];
                bool keeps = eight >> (shift + e) & 1u;
                if (draw.threshold != 0u && !of_keys) keeps = drawn<OTHERS>(bits, head, e, query, from, nth);
                float probability = seen ? exp_nonpos(score[e][j] * head.scale - stats[row]) : 0.0f;
                float factor = keeps ? draw.scale : 0.0f;
                float dscore = seen ? probability * (factor * dy_v[e][j] - dots[row]) * head.scale : 0.0f;
                ((float*)(dscores + e * Sums::STRIP))[nth] = dscore;
                ((float*)(weights + e * Sums::STRIP))[nth] = factor * probability;
            }
        }
        __syncwarp();
        unsigned count = end - from < OTHERS ? end - from : OTHERS;
        to_first.add(dscores, other_rows[0], D / 4 + 1, count);
        if (of_keys) to_second.add(weights, other_rows[1], D / 4 + 1, count);
    }
    UNROLL for (int n = 0; n < Sums::COUNT; n++) {
        unsigned token = own + Sums::row(n);
        store(head, a.dqkv, a.dqkv_ld, of_keys ? a.c : 0u, token, Sums::column(), to_first.at[n]);
        if (of_keys) store(head, a.dqkv, a.dqkv_ld, 2u * a.c, token, Sums::column(), to_second.at[n]);
    }
}
KERNEL(128) attention_dx_tiled_16(AttentionDxArgs<float> a) { attention_dx<16, 32, 8>(a); }
KERNEL(128) attention_dx_tiled_16_f16(AttentionDxArgs<f16> a) { attention_dx<16, 32, 8>(a); }
KERNEL(128) attention_dx_tiled_32(AttentionDxArgs<float> a) { attention_dx<32, 32, 8>(a); }
KERNEL(128) attention_dx_tiled_32_f16(AttentionDxArgs<f16> a) { attention_dx<32, 32, 8>(a); }
KERNEL(128) attention_dx_tiled_64(AttentionDxArgs<float> a) { attention_dx<64, 32, 8>(a); }
KERNEL(128) attention_dx_tiled_64_f16(AttentionDxArgs<f16> a) { attention_dx<64, 32, 8>(a); }
KERNEL(128) attention_dx_tiled_128(AttentionDxArgs<float> a) { attention_dx<128, 32, 2>(a); }
KERNEL(128) attention_dx_tiled_128_f16(AttentionDxArgs<f16> a) { attention_dx<128, 32, 2>(a); }
