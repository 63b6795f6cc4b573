// Attention and its gradient on tensor cores, for modules that differ in the type of what is read.
#pragma once
#include "attention.h"

// Own rows of a block, 16 of each warp.
constexpr int ROWS = 64;

// Tokens of a head in shared memory, D columns of them, in the planes of product.h; rows begin 16 bytes apart modulo 128.
template <class T, int D, int TOKENS>
struct Tile {
    static constexpr unsigned PLANES = Planes<T>::COUNT, PITCH = D + 8, PLANE = TOKENS * PITCH, SIZE = PLANES * PLANE;

    // Tokens `first ..`; 0 outside the sequence and the head, and where a token is hidden if `valid` is given.
    DEVICE void load(unsigned short* tile, const Matrix<T>& m, unsigned first, const unsigned char* valid) {
        constexpr unsigned ELEMENTS = 16u / sizeof(T), PER_ROW = D / ELEMENTS;
        ROLLED for (unsigned at = threadIdx.x; at < TOKENS * PER_ROW; at += blockDim.x) {
            unsigned row = at / PER_ROW, col = at % PER_ROW * ELEMENTS, token = first + row;
            unsigned short* to = tile + row * PITCH + col;
            bool there = token < m.rows && col < m.cols && (!valid || valid[token]);
            if (PLANES == 1u && m.aligned) {
                unsigned count = there ? m.cols - col : 0u;
                copy_chunk(to, there ? row_of(m.at, token, m.ld) + col : m.at, count < 8u ? 2u * count : 16u);
            } else {
                put_planes<T, PLANE>(to, there ? chunk_of(m, token, col) : Chunk());
            }
        }
    }
    // Row `row ..` by 16 columns as an operand of a product, whose k are the columns (K_INNER) or the rows.
    template <bool K_INNER>
    DEVICE void fragments(unsigned (&to)[PLANES][4], const unsigned short* tile, unsigned q, unsigned k) {
        UNROLL for (unsigned plane = 0; plane < PLANES; plane++) fragment<K_INNER, PITCH>(to[plane], tile + plane * PLANE, q, k);
    }
};

// Products of 16 rows of one tile with all rows of another: sums as `mma` has them, by eight of the others.
template <class Own, class Others, class T, int COUNT>
DEVICE void products(Sums<T> (&to)[COUNT], const unsigned short* own, unsigned row, const unsigned short* others) {
    UNROLL for (int j = 0; j < COUNT; j++) {
        UNROLL for (unsigned e = 0; e < 4u; e++) Sums<T>::start(to[j], e, 0.0f);
    }
    ROLLED for (unsigned k = 0; k < Own::PITCH - 8u; k += 16u) {
        unsigned a[Own::PLANES][4], b[Own::PLANES][4];
        Own::template fragments<true>(a, own, row, k);
        UNROLL for (int j = 0; j < COUNT; j++) {
            if (j % 2 == 0) Others::template fragments<true>(b, others, 8u * j, k);
            Sums<T>::add(to[j], a, b, j % 2);
        }
    }
}

// value = value * keep + weights times the rows of a tile; keep is of rows lane / 4 and 8 below.
template <class Others, class T, int COUNT, int D>
DEVICE void add(float (&value)[D][4], const Weights<T, COUNT>& weights, const unsigned short* others, const float (&keep)[2]) {
    UNROLL for (unsigned col = 0; col < D; col += 2u) {
        // Registers end if the columns of a wide head are interleaved.
        if (Others::PLANES == 3u && D == 16) __syncwarp();
        Sums<T> sum[2];
        UNROLL for (unsigned e = 0; e < 8u; e++) Sums<T>::start(sum[e / 4u], e % 4u, 0.0f);
        UNROLL for (unsigned k = 0; k < COUNT / 2; k++) {
            unsigned b[Others::PLANES][4];
            Others::template fragments<false>(b, others, 8u * col, 16u * k);
            UNROLL for (unsigned half = 0; half < 2u; half++) {
                if (weights.WIDE) Sums<T>::add(sum[half], weights.at[k] + 1, b, half);
                Sums<T>::add(sum[half], weights.at[k], b, half);
            }
        }
        UNROLL for (unsigned e = 0; e < 8u; e++) {
            float& to = value[col + e / 4u][e % 4u];
            unsigned r = e % 4u / 2u;
            to = __fmaf_rn(to, keep[r], Sums<T>::total(sum[e / 4u], e % 4u) * weights.back[r]);
        }
    }
}

template <int D, int KEYS, class T>
DEVICE void attention(const AttentionArgs<T>& a) {
    using Own = Tile<T, D, ROWS>;
    using Others = Tile<T, D, KEYS>;
    __shared__ unsigned char kept[ROWS * (KEYS / 8 + 1)];
    DYN_SHARED(Chunk, shared);
    unsigned short *queries = (unsigned short*)shared, *keys = queries + Own::SIZE, *values = keys + Others::SIZE;
    const Head head = head_of(a);
    const Draw draw = draw_if(a.rng, a.drop, a.call);
    const unsigned first = blockIdx.y * ROWS, in_block = threadIdx.x / 32u * 16u, own = first + in_block;
    unsigned char* bits = kept + in_block * (KEYS / 8 + 1);
    const auto k = tokens(head, a.qkv, a.qkv_ld, a.c), v = tokens(head, a.qkv, a.qkv_ld, 2u * a.c);
    Own::load(queries, tokens(head, a.qkv, a.qkv_ld, 0u), first, nullptr);
    Softmax softmax;
    softmax.start();
    float value[D / 8][4] = {};
    unsigned end = first + ROWS < head.t ? first + ROWS : head.t;
    for (unsigned from = 0; from < end; from += KEYS) {
        __syncthreads();
        Others::load(keys, k, from, head.valid);
        Others::load(values, v, from, head.valid);
        wait_for_copies();
        __syncthreads();
        if (from >= own + 16u || own >= head.t) continue;
        if (draw.threshold != 0u) draw_rows<KEYS, 16>(bits, draw, head, own, from);
        __syncwarp();
        unsigned long long seen = visible(head, from);
        if (KEYS > 32) seen |= (unsigned long long)visible(head, from + 32u) << 32;
        Sums<T> scores[KEYS / 8];
        products<Own, Others>(scores, queries, in_block, keys);
        float weight[KEYS / 8][4], keep[2];
        UNROLL for (unsigned n = 0; n < KEYS / 8; n++) {
            UNROLL for (unsigned e = 0; e < 4u; e++) weight[n][e] = Sums<T>::total(scores[n], e);
        }
        softmax.weigh(weight, keep, head, draw, bits, own, from, seen);
        add<Others>(value, Weights<T, KEYS / 8>(weight, {1.0f, 1.0f}), values, keep);
    }
    float factor[2];
    softmax.finish(a, factor, head, draw, own);
    store(head, a.y, a.y_ld, 0u, own, value, factor);
}

// The own rows of a block are queries (and dy), the others keys (and values), or the other way round. Gradients of scores are
// computed for dq and again for dk, so that one sum is in registers.
template <Gradient OF, int D, int OWN_ROWS, int OTHERS, class T>
DEVICE void attention_dx(const AttentionDxArgs<T>& a) {
    constexpr bool OF_KEYS = OF != DQ;
    using Own = Tile<T, D, OWN_ROWS>;
    using Others = Tile<T, D, OTHERS>;
    constexpr unsigned BITS = OTHERS * 3;  // bytes of random bits of a warp: 16 queries by OTHERS keys or the other way round
    __shared__ float stats[OWN_ROWS], dots[OWN_ROWS];  // of queries
    __shared__ unsigned char kept[OWN_ROWS / 16 * BITS];
    DYN_SHARED(Chunk, shared);
    unsigned short *own_0 = (unsigned short*)shared, *own_1 = own_0 + Own::SIZE;
    unsigned short *other_0 = own_1 + Own::SIZE, *other_1 = other_0 + Others::SIZE;
    const Head head = head_of(a);
    const Draw draw = draw_if(a.rng, a.drop, a.call);
    const unsigned first = blockIdx.y * OWN_ROWS, in_block = threadIdx.x / 32u * 16u, own = first + in_block;
    unsigned char* bits = kept + threadIdx.x / 32u * BITS;
    const auto q = tokens(head, a.qkv, a.qkv_ld, 0u), k = tokens(head, a.qkv, a.qkv_ld, a.c);
    const auto v = tokens(head, a.qkv, a.qkv_ld, 2u * a.c), dy = tokens(head, a.dy, a.dy_ld, 0u);
    const unsigned char *own_valid = OF_KEYS ? head.valid : nullptr, *other_valid = OF_KEYS ? nullptr : head.valid;
    Own::load(own_0, OF_KEYS ? k : q, first, own_valid);
    if (OF != DV) Own::load(own_1, OF_KEYS ? v : dy, first, own_valid);
    if (!OF_KEYS) load_dots(stats, dots, OWN_ROWS, a, head, first);
    float value[D / 8][4] = {};
    const float all[2] = {1.0f, 1.0f};
    unsigned end = OF_KEYS || first + OWN_ROWS > head.t ? head.t : first + OWN_ROWS;
    for (unsigned from = OF_KEYS ? first / OTHERS * OTHERS : 0u; from < end; from += OTHERS) {
        __syncthreads();
        Others::load(other_0, OF_KEYS ? q : k, from, other_valid);
        Others::load(other_1, OF_KEYS ? dy : v, from, other_valid);
        if (OF_KEYS) load_dots(stats, dots, OTHERS, a, head, from);
        wait_for_copies();
        __syncthreads();
        // No query of these sees a key of those.
        if (own >= head.t || (OF_KEYS ? from + OTHERS <= own : from >= own + 16u)) continue;
        draw_back<OF, OTHERS>(bits, draw, head, own, from);
        __syncwarp();
        unsigned seen = visible(head, OF_KEYS ? own : from);
        Sums<T> scores[OTHERS / 8], dy_v[OTHERS / 8];
        products<Own, Others>(scores, own_0, in_block, other_0);
        if (OF != DV) products<Own, Others>(dy_v, own_1, in_block, other_1);
        float weight[OTHERS / 8][4], of_dy_v[OTHERS / 8][4] = {}, most[2];
        UNROLL for (unsigned n = 0; n < OTHERS / 8; n++) {
            UNROLL for (unsigned e = 0; e < 4u; e++) {
                weight[n][e] = Sums<T>::total(scores[n], e);
                if (OF != DV) of_dy_v[n][e] = Sums<T>::total(dy_v[n], e);
            }
        }
        weigh_back<OF>(weight, of_dy_v, most, head, draw, bits, own, from, seen, stats, dots, OF_KEYS ? 0u : in_block);
        add<Others>(value, Weights<T, OTHERS / 8>(weight, most), OF == DV ? other_1 : other_0, all);
    }
    float factor[2] = {1.0f, 1.0f};
    if (OF == DV) factor[0] = factor[1] = draw.scale;
    store(head, a.dqkv, a.dqkv_ld, (unsigned)OF * a.c, own, value, factor);
}

// All three gradients, a block of its own for each.
template <int D, int OWN_ROWS, int OTHERS, class T>
DEVICE void attention_dx(const AttentionDxArgs<T>& a) {
    if (blockIdx.z == DQ) attention_dx<DQ, D, OWN_ROWS, OTHERS>(a);
    else if (blockIdx.z == DK) attention_dx<DK, D, OWN_ROWS, OTHERS>(a);
    else attention_dx<DV, D, OWN_ROWS, OTHERS>(a);
}
