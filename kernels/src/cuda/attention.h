// What attention in tiles shares: the head of a block, random bits of its probabilities, numbers of its queries; on tensor cores
// the softmax of 16 queries of a warp in the registers of sums, and weights as an operand.
#pragma once
#include "product.h"

// One head of one sequence: its first column in a part of qkv, and its tokens.
struct Head {
    unsigned t, d, column;
    size_t first;  // row of the first token
    size_t drawn;  // element of dropout of the first query and key
    float scale;
    const unsigned char* valid;
};
template <class A>
DEVICE Head head_of(const A& a) {
    Head head;
    size_t sequence = blockIdx.x / a.heads, number = blockIdx.x % a.heads;
    head.t = a.t;
    head.d = a.c / a.heads;
    head.column = (unsigned)number * head.d;
    head.first = sequence * a.t;
    head.drawn = (sequence * a.heads + number) * a.t * a.t;
    head.scale = 1.0f / sqrtf((float)head.d);
    head.valid = row_of(a.valid, sequence, a.valid_ld);
    return head;
}

// Tokens of a head in some part of a matrix.
template <class T>
DEVICE Matrix<T> tokens(const Head& head, const T* x, unsigned ld, unsigned part) {
    return matrix(row_of(x, head.first, ld) + part + head.column, ld, head.t, head.d);
}

// Which probabilities of EACH queries and OTHERS keys are kept, in bytes of eight elements; for one warp.
template <int OTHERS, int EACH>
DEVICE void draw_rows(unsigned char* to, const Draw& draw, const Head& head, unsigned query, unsigned key) {
    const unsigned bytes = OTHERS / 8 + 1;
    ROLLED for (unsigned at = threadIdx.x % 32u; at < EACH * bytes; at += 32u) {
        size_t element = head.drawn + (size_t)(query + at / bytes) * head.t + key;
        to[at] = kept_of_block(draw, element / 8u + at % bytes);
    }
}
template <int OTHERS>
DEVICE bool drawn(const unsigned char* rows, const Head& head, unsigned e, unsigned query, unsigned key, unsigned nth) {
    unsigned bit = (unsigned)((head.drawn + (size_t)query * head.t + key) % 8u) + nth;
    return rows[e * (OTHERS / 8 + 1) + bit / 8u] >> bit % 8u & 1u;
}

// <dy, y> of a query in the d columns of a head; for one warp.
template <class T>
DEVICE float dot_of(const AttentionDxArgs<T>& a, size_t row, unsigned column, unsigned d) {
    const T* dy = row_of(a.dy, row, a.dy_ld) + column;
    const float* y = row_of(a.y, row, a.y_ld) + column;
    float sum = 0.0f;
    ROLLED for (unsigned i = threadIdx.x % 32u; i < d; i += 32u) sum = __fmaf_rn(widened(dy[i]), y[i], sum);
    return warp_sum(sum);
}

// Of every query: log-sum-exp, and <dy, y>; 0 behind the sequence.
template <class T>
DEVICE void load_dots(float* stats, float* dots, unsigned count, const AttentionDxArgs<T>& a, const Head& head,
                      unsigned first) {
    ROLLED for (unsigned row = threadIdx.x / 32u; row < count; row += blockDim.x / 32u) {
        unsigned token = first + row;
        float sum = 0.0f, own = 0.0f;
        if (token < head.t) {
            sum = dot_of(a, head.first + token, head.column, head.d);
            own = row_of(a.stats, head.first + token, a.stats_ld)[blockIdx.x % a.heads];
        }
        if (threadIdx.x % 32u == 0u) {
            dots[row] = sum;
            stats[row] = own;
        }
    }
}

DEVICE bf16 rounded(bf16, float v) { return to_bf16(v); }
DEVICE f16 rounded(f16, float v) { return to_f16(v); }

// Numbers in the places of sums, 16 rows by 8 COUNT, as a left operand that is multiplied by rows of a tile of T.
template <class T, int COUNT>
struct Weights {
    using Part = typename Planes<T>::Part;
    static constexpr bool WIDE = sizeof(T) == 2u;  // than a plane of T
    static constexpr unsigned PLANES = WIDE ? 2 : 3;
    unsigned at[COUNT / 2][PLANES][4];
    float back[2];  // what undoes the power of two, for rows lane / 4 and 8 below

    // `most` is what no number of a row exceeds.
    DEVICE_MEMBER Weights(const float (&weight)[COUNT][4], const float (&most)[2]) {
        float power[2] = {1.0f, 1.0f};
        UNROLL for (unsigned r = 0; r < 2u; r++) {
            back[r] = 1.0f;
            if (!WIDE) continue;
            // The largest is brought to 2^14, so that the second f16 of what is 2^17 times smaller is no less exact.
            unsigned exponent = __float_as_uint(most[r]) >> 23;
            exponent = exponent < 15u ? 15u : exponent;
            power[r] = __uint_as_float((268u - exponent) << 23);
            back[r] = __uint_as_float((exponent - 14u) << 23);
        }
        UNROLL for (unsigned k = 0; k < COUNT / 2; k++) {
            UNROLL for (unsigned n = 0; n < 4u; n++) {
                float low = weight[2u * k + n / 2u][n % 2u * 2u] * power[n % 2u];
                float high = weight[2u * k + n / 2u][n % 2u * 2u + 1u] * power[n % 2u];
                UNROLL for (unsigned plane = 0; plane < PLANES; plane++) {
                    Part of_low = rounded(Part(), low), of_high = rounded(Part(), high);
                    at[k][plane][n] = of_low.bits | (unsigned)of_high.bits << 16;
                    low -= widened(of_low);
                    high -= widened(of_high);
                }
            }
        }
    }
};

// Over the lanes that share rows of sums.
DEVICE float quad_max(float v) {
    for (int lanes = 1; lanes < 4; lanes *= 2) {
        float other = __shfl_xor_sync(0xffffffffu, v, lanes);
        v = other > v ? other : v;
    }
    return v;
}
DEVICE float quad_sum(float v) {
    for (int lanes = 1; lanes < 4; lanes *= 2) v += __shfl_xor_sync(0xffffffffu, v, lanes);
    return v;
}

// Where element e of the n-th sum is.
DEVICE unsigned row_in(unsigned e) { return threadIdx.x % 32u / 4u + e / 2u * 8u; }
DEVICE unsigned col_in(unsigned n, unsigned e) { return 8u * n + threadIdx.x % 4u * 2u + e % 2u; }

// Which of 32 tokens may be read, for a warp.
DEVICE unsigned visible(const Head& head, unsigned first) {
    unsigned token = first + threadIdx.x % 32u;
    return __ballot_sync(0xffffffffu, token < head.t && head.valid[token]);
}

// The softmax of 16 queries of a warp over chunks of keys.
struct Softmax {
    float top[2], sum[2];  // of rows lane / 4 and 8 below

    DEVICE_MEMBER void start() {
        top[0] = top[1] = UNSEEN;
        sum[0] = sum[1] = 0.0f;
    }

    // Turns products of q and k into weights, of which the random bits are applied; `keep` is what becomes of earlier ones. `seen`
    // has a bit for every key that may be read.
    template <int COUNT>
    DEVICE_MEMBER void weigh(float (&weight)[COUNT][4], float (&keep)[2], const Head& head, const Draw& draw,
                             const unsigned char* bits, unsigned query, unsigned key, unsigned long long seen) {
        float most[2] = {top[0], top[1]};
        UNROLL for (unsigned n = 0; n < COUNT; n++) {
            UNROLL for (unsigned e = 0; e < 4u; e++) {
                unsigned col = col_in(n, e);
                bool sees = (unsigned)(seen >> 32u * (n / 4u)) >> col % 32u & 1u && key + col <= query + row_in(e);
                weight[n][e] = sees ? weight[n][e] * head.scale : UNSEEN;
                most[e / 2u] = weight[n][e] > most[e / 2u] ? weight[n][e] : most[e / 2u];
            }
        }
        UNROLL for (unsigned r = 0; r < 2u; r++) {
            most[r] = quad_max(most[r]);
            keep[r] = exp_nonpos(top[r] - most[r]);
            sum[r] *= keep[r];
            top[r] = most[r];
        }
        UNROLL for (unsigned n = 0; n < COUNT; n++) {
            UNROLL for (unsigned e = 0; e < 4u; e++) {
                // A query that has seen no key yet has UNSEEN as its largest score.
                float w = weight[n][e] > UNSEEN ? exp_nonpos(weight[n][e] - top[e / 2u]) : 0.0f;
                sum[e / 2u] += w;
                unsigned row = row_in(e);
                bool keeps = draw.threshold == 0u || drawn<8 * COUNT>(bits, head, row, query + row, key, col_in(n, e));
                weight[n][e] = keeps ? w : 0.0f;
            }
        }
    }
    // Leaves the statistics, and what sums of weighted values are multiplied by.
    template <class T>
    DEVICE_MEMBER void finish(const AttentionArgs<T>& a, float (&factor)[2], const Head& head, const Draw& draw,
                              unsigned query) const {
        UNROLL for (unsigned r = 0; r < 2u; r++) {
            unsigned token = query + row_in(2u * r);
            float total = quad_sum(sum[r]);
            factor[r] = total > 0.0f ? draw.scale / total : 0.0f;
            float* stats = row_of(a.stats, head.first + token, a.stats_ld) + blockIdx.x % a.heads;
            if (token < head.t && threadIdx.x % 4u == 0u) *stats = total > 0.0f ? top[r] + ln_1p(total - 1.0f) : 0.0f;
        }
    }
};

// What a block computes: the number of its third dimension.
enum Gradient { DQ, DK, DV };

// The random bits of a warp with 16 own rows, in 3 bytes for each of the others or fewer.
template <Gradient OF, int OTHERS>
DEVICE void draw_back(unsigned char* bits, const Draw& draw, const Head& head, unsigned own, unsigned from) {
    if (draw.threshold == 0u) return;
    if (OF == DQ) draw_rows<OTHERS, 16>(bits, draw, head, own, from);
    else draw_rows<16, OTHERS>(bits, draw, head, from, own);
}

// Turns products of 16 own rows and of others, queries and keys or the other way round, into probabilities behind dropout (DV) or,
// with products of dy and v, into gradients of scores; `most` is the largest of a row. `seen` has a bit for every key that may be
// read; stats and dots are of queries, those here from `first` on.
template <Gradient OF, int COUNT>
DEVICE void weigh_back(float (&weight)[COUNT][4], const float (&dy_v)[COUNT][4], float (&most)[2], const Head& head, const Draw& draw,
                       const unsigned char* bits, unsigned own, unsigned from, unsigned long long seen, const float* stats,
                       const float* dots, unsigned first) {
    most[0] = most[1] = 0.0f;
    UNROLL for (unsigned n = 0; n < COUNT; n++) {
        UNROLL for (unsigned e = 0; e < 4u; e++) {
            unsigned row = row_in(e), col = col_in(n, e);
            unsigned query = OF == DQ ? own + row : from + col, key = OF == DQ ? from + col : own + row;
            unsigned at = first + (OF == DQ ? row : col);  // of stats and dots
            unsigned own_seen = OF == DQ ? (unsigned)(seen >> 32u * (n / 4u)) >> col % 32u : (unsigned)seen >> row;
            bool sees = own_seen & 1u && key <= query && query < head.t, keeps = true;
            if (draw.threshold != 0u && OF == DQ) keeps = drawn<8 * COUNT>(bits, head, row, query, from, col);
            if (draw.threshold != 0u && OF != DQ) keeps = drawn<16>(bits, head, col, query, own, row);
            float probability = sees ? exp_nonpos(weight[n][e] * head.scale - stats[at]) : 0.0f;
            weight[n][e] = keeps ? probability : 0.0f;
            if (OF != DV) {
                float factor = keeps ? draw.scale : 0.0f;
                float dscore = probability * (factor * dy_v[n][e] - dots[at]) * head.scale;
                weight[n][e] = sees ? dscore : 0.0f;
            }
            float size = weight[n][e] < 0.0f ? -weight[n][e] : weight[n][e];
            most[e / 2u] = size > most[e / 2u] ? size : most[e / 2u];
        }
    }
    UNROLL for (unsigned r = 0; r < 2u; r++) most[r] = quad_max(most[r]);
}

// Rows of a head, each times a factor.
template <int COUNT>
DEVICE void store(const Head& head, float* x, unsigned ld, unsigned part, unsigned first, const float (&value)[COUNT][4],
                  const float (&factor)[2]) {
    UNROLL for (unsigned n = 0; n < COUNT; n++) {
        UNROLL for (unsigned e = 0; e < 4u; e++) {
            unsigned token = first + row_in(e), col = col_in(n, e);
            if (token >= head.t || col >= head.d) continue;
            row_of(x, head.first + token, ld)[part + head.column + col] = value[n][e] * factor[e / 2u];
        }
    }
}
