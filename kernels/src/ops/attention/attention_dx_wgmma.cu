// op      attention_dx           dqkv from dy, probabilities recomputed from stats
// args    AttentionDxArgs
// layout  row major with pitch `_ld`; a row of qkv is q, k, v of all heads, each head-major; f16; heads of a multiple of 16
//         columns, 128 at most; weights are two f16, as attention_mma_f16.cu; the workspace has a float per query, head by head
// launch  attention_dx_dots_f16: one warp per query and head, 128 threads to a block; attention_dx_wgmma_*_f16: one block of 2
//         warpgroups per head and 128 queries for dq, and two per head and 128 keys for dk and dv; the number is the columns of a
//         tile; dynamic shared memory; capability 9.0; a second argument, the tensor maps of qkv and dy
// order   all products in steps of 16, which the instruction sums; keys or queries in chunks of 64, whose sums are formed from 0
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    8*r*t*c flop; 4*(2*r*e + 2*r*c + 3*r*h) + r bytes; 2 products where a weight is multiplied
// source  definition; layouts of wgmma and of tensor maps: PTX ISA 8.0; dots ahead of time: Dao et al. 2022
#include "attention_wgmma.h"

// <dy, y>, which every block of keys needs of all queries behind them.
KERNEL(128) attention_dx_dots_f16(AttentionDxArgs<f16> a) {
    size_t at = thread_of_line() / 32u;
    if (at >= (size_t)a.r * a.heads) return;
    Cell cell = cell_of(at, a.t);  // sequence and head, then query
    unsigned d = a.c / a.heads;
    float dot = dot_of(a, cell.row / a.heads * a.t + cell.col, (unsigned)(cell.row % a.heads) * d, d);
    if (threadIdx.x % 32u == 0u) a.work[at] = __float_as_uint(dot);
}

// Of every query: log-sum-exp, and <dy, y>; 0 behind the sequence. `count` is no more than there are threads.
DEVICE void load_stats(float* stats, float* dots, unsigned count, const AttentionDxArgs<f16>& a, const Head& head,
                       unsigned first) {
    if (threadIdx.x >= count) return;
    unsigned token = first + threadIdx.x;
    bool there = token < head.t;
    stats[threadIdx.x] = there ? row_of(a.stats, head.first + token, a.stats_ld)[blockIdx.x % a.heads] : 0.0f;
    dots[threadIdx.x] = there ? __uint_as_float(a.work[(size_t)blockIdx.x * head.t + token]) : 0.0f;
}

// The own tokens of a block are queries (and dy), the others keys (and values), or the other way round. Gradients of scores are
// computed for dq and again for dk, so that one sum is in registers.
template <Gradient OF, int D>
DEVICE void attention_dx(const AttentionDxArgs<f16>& a, const Maps<2>& maps) {
    constexpr bool OF_KEYS = OF != DQ;
    constexpr unsigned WEIGHTED = OF == DV ? 1u : 0u;  // which matrix of others is multiplied by weights
    constexpr unsigned BITS = OTHERS * 3;              // bytes of random bits of a warp: 16 queries by 64 keys or 64 by 16
    __shared__ float stats[ROWS], dots[ROWS];  // of own queries, or of those in the ring
    __shared__ unsigned char kept[THREADS / 32 * BITS];
    static_assert(STAGES * OTHERS <= ROWS, "a place for every query of the ring");
    const Tiles<D, 2> tiles;
    const Head head = head_of(a);
    const Draw draw = draw_if(a.rng, a.drop, a.call);
    const unsigned first = blockIdx.y * ROWS, group = threadIdx.x / 128u, in_block = threadIdx.x / 32u * 16u;
    const unsigned own = first + in_block, own_group = first + group * GROUP;
    unsigned char* bits = kept + threadIdx.x / 32u * BITS;
    const Source q = source(head, a.qkv, a.qkv_ld, 0u, &maps.of[0]), k = source(head, a.qkv, a.qkv_ld, a.c, &maps.of[0]);
    const Source v = source(head, a.qkv, a.qkv_ld, 2u * a.c, &maps.of[0]), dy = source(head, a.dy, a.dy_ld, 0u, &maps.of[1]);
    tiles.begin_own(0u, OF_KEYS ? k : q, first);
    if (OF != DV) tiles.begin_own(1u, OF_KEYS ? v : dy, first);
    if (!OF_KEYS) load_stats(stats, dots, ROWS, a, head, first);
    tiles.own_begun();
    // No query sees a later key.
    const unsigned start = OF_KEYS ? first : 0u, end = OF_KEYS || first + ROWS > head.t ? head.t : first + ROWS;
    const unsigned chunks = (end - start + OTHERS - 1u) / OTHERS;
    auto begin = [&](unsigned n) {
        if (n >= chunks) return;
        unsigned from = start + n * OTHERS, at = n % STAGES * OTHERS;
        tiles.begin(n, OF_KEYS ? q : k, OF_KEYS ? dy : v, from);
        if (OF_KEYS) load_stats(stats + at, dots + at, OTHERS, a, head, from);
        tiles.begun(n);
    };
    for (unsigned n = 0; n < STAGES; n++) begin(n);
    float value[D / 8][4] = {};
    const float all[2] = {1.0f, 1.0f};
    tiles.wait_for_own();
    ROLLED for (unsigned n = 0; n < chunks; n++) {
        unsigned from = start + n * OTHERS;
        unsigned long long in_sequence = from + OTHERS > head.t ? (1ull << (head.t - from)) - 1u : ~0ull;
        unsigned long long seen = OF_KEYS ? visible(head, own) : visible_of_chunk(head, from);
        tiles.wait_for(n);
        tiles.clear(n, WEIGHTED, OF_KEYS ? in_sequence : seen);
        if (own_group < head.t && (OF_KEYS ? from + OTHERS > own_group : from < own_group + GROUP)) {
            draw_back<OF, OTHERS>(bits, draw, head, own, from);
            __syncwarp();
            float weight[OTHERS / 8][4], dy_v[OTHERS / 8][4] = {}, most[2];
            products<D>(weight, tiles.own(0u, group), tiles.other(n, 0u), head.d);
            if (OF != DV) products<D>(dy_v, tiles.own(1u, group), tiles.other(n, 1u), head.d);
            weigh_back<OF>(weight, dy_v, most, head, draw, bits, own, from, seen, stats, dots,
                           OF_KEYS ? n % STAGES * OTHERS : in_block);
            add<D>(value, Weights<f16, OTHERS / 8>(weight, most), tiles.other(n, WEIGHTED), all);
        }
        __syncthreads();
        begin(n + STAGES);
    }
    float factor[2] = {1.0f, 1.0f};
    if (OF == DV) factor[0] = factor[1] = draw.scale;
    store(head, a.dqkv, a.dqkv_ld, (unsigned)OF * a.c, own, value, factor);
}

// All three gradients, a block of its own for each.
template <int D>
DEVICE void attention_dx(const AttentionDxArgs<f16>& a, const Maps<2>& maps) {
    if (blockIdx.z == DQ) attention_dx<DQ, D>(a, maps);
    else if (blockIdx.z == DK) attention_dx<DK, D>(a, maps);
    else attention_dx<DV, D>(a, maps);
}

KERNEL(256, 1) attention_dx_wgmma_16_f16(AttentionDxArgs<f16> a, MAPS(2, maps)) { attention_dx<16>(a, maps); }
KERNEL(256, 1) attention_dx_wgmma_32_f16(AttentionDxArgs<f16> a, MAPS(2, maps)) { attention_dx<32>(a, maps); }
KERNEL(256, 1) attention_dx_wgmma_64_f16(AttentionDxArgs<f16> a, MAPS(2, maps)) { attention_dx<64>(a, maps); }
KERNEL(256, 1) attention_dx_wgmma_128_f16(AttentionDxArgs<f16> a, MAPS(2, maps)) { attention_dx<128>(a, maps); }
