// op      attention              y = dropout(softmax(q kᵀ / sqrt(d)) v over visible keys); stats = log-sum-exp per
//         head
// args    AttentionArgs
// layout  row major with pitch `_ld`; a row of qkv is q, k, v of all heads, each head-major; f16; heads of a multiple of 16
//         columns, 128 at most; weights are two f16, as attention_mma_f16.cu
// launch  attention_wgmma_*_f16: one block of 2 warpgroups per head and 128 queries; the number is the columns of a tile;
//         dynamic shared memory; capability 9.0; a second argument, the tensor map of qkv
// order   all products in steps of 16, which the instruction sums; keys in chunks of 64, whose sums are formed from 0; exponents
//         lane by lane, then lanes 1 and 2 apart
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    3*r*t*c flop; 2*r*e + 4*(r*c + r*h) + r bytes
// source  softmax by chunks: Milakov & Gimelshein 2018, Dao et al. 2022; layouts of wgmma and of tensor maps: PTX ISA 8.0
#include "attention_wgmma.h"

template <int D>
DEVICE void attention(const AttentionArgs<f16>& a, const TensorMap* map) {
    __shared__ unsigned char kept[ROWS * (OTHERS / 8 + 1)];
    const Tiles<D, 1> tiles;
    const Head head = head_of(a);
    const Draw draw = draw_if(a.rng, a.drop, a.call);
    const unsigned first = blockIdx.y * ROWS, group = threadIdx.x / 128u, in_block = threadIdx.x / 32u * 16u;
    const unsigned own = first + in_block, own_group = first + group * GROUP;
    unsigned char* bits = kept + in_block * (OTHERS / 8 + 1);
    const Source k = source(head, a.qkv, a.qkv_ld, a.c, map), v = source(head, a.qkv, a.qkv_ld, 2u * a.c, map);
    const unsigned end = first + ROWS < head.t ? first + ROWS : head.t, chunks = (end + OTHERS - 1u) / OTHERS;
    tiles.begin_own(0u, source(head, a.qkv, a.qkv_ld, 0u, map), first);
    tiles.own_begun();
    auto begin = [&](unsigned n) {
        if (n >= chunks) return;
        tiles.begin(n, k, v, n * OTHERS);
        tiles.begun(n);
    };
    for (unsigned n = 0; n < STAGES; n++) begin(n);
    Softmax softmax;
    softmax.start();
    float value[D / 8][4] = {};
    tiles.wait_for_own();
    ROLLED for (unsigned n = 0; n < chunks; n++) {
        unsigned from = n * OTHERS;
        unsigned long long seen = visible_of_chunk(head, from);
        tiles.wait_for(n);
        tiles.clear(n, 1u, seen);
        if (from < own_group + GROUP && own_group < head.t) {
            if (draw.threshold != 0u) draw_rows<OTHERS, 16>(bits, draw, head, own, from);
            __syncwarp();
            float weight[OTHERS / 8][4], keep[2];
            products<D>(weight, tiles.own(0u, group), tiles.other(n, 0u), head.d);
            softmax.weigh(weight, keep, head, draw, bits, own, from, seen);
            add<D>(value, Weights<f16, OTHERS / 8>(weight, {1.0f, 1.0f}), tiles.other(n, 1u), keep);
        }
        __syncthreads();
        begin(n + STAGES);
    }
    float factor[2];
    softmax.finish(a, factor, head, draw, own);
    store(head, a.y, a.y_ld, 0u, own, value, factor);
}

KERNEL(256, 1) attention_wgmma_16_f16(AttentionArgs<f16> a, MAPS(1, map)) { attention<16>(a, &map.of[0]); }
KERNEL(256, 1) attention_wgmma_32_f16(AttentionArgs<f16> a, MAPS(1, map)) { attention<32>(a, &map.of[0]); }
KERNEL(256, 1) attention_wgmma_64_f16(AttentionArgs<f16> a, MAPS(1, map)) { attention<64>(a, &map.of[0]); }
KERNEL(256, 1) attention_wgmma_128_f16(AttentionArgs<f16> a, MAPS(1, map)) { attention<128>(a, &map.of[0]); }
