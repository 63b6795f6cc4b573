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
#include "attention.h"
#include "hopper.h"

constexpr unsigned THREADS = 256, GROUP = 64, ROWS = 128, KEYS = 64, STAGES = 2;

// 64 tokens of a head by D columns in panels; what is behind the columns of the head belongs to others and is not used.
template <int D>
struct Panels {
    static constexpr unsigned COUNT = (D + PANEL - 1) / PANEL, BYTES = COUNT * PANEL_BYTES;
    static constexpr unsigned CHUNKS = COUNT * 512u / THREADS;  // of a thread

    DEVICE char* chunk(char* tile, unsigned n) {
        unsigned at = threadIdx.x + n * THREADS, row = at / 8u % PANEL;
        return tile + at / 512u * PANEL_BYTES + row * 128u + (at % 8u ^ row % 8u) * 16u;
    }
    DEVICE unsigned row(unsigned n) { return (threadIdx.x + n * THREADS) / 8u % PANEL; }

    // Begins to fill a tile with tokens `first ..`, in bulk or, if rows are not aligned, element by element.
    DEVICE void begin(char* tile, const Matrix<f16>& of_head, const TensorMap* map, const Head& head, unsigned part,
                      unsigned first, Barrier* full) {
        if (map) {
            for (unsigned n = 0; n < COUNT && threadIdx.x == 0u; n++) {
                unsigned row = (unsigned)head.first + first, col = part + head.column + n * PANEL;
                copy_panel(tile + n * PANEL_BYTES, map, row, col, full);
            }
            return;
        }
        ROLLED for (unsigned n = 0; n < CHUNKS; n++) {
            unsigned at = threadIdx.x + n * THREADS;
            store_chunk(chunk(tile, n), chunk_of(of_head, first + row(n), at / 512u * PANEL + at % 8u * 8u));
        }
    }
    // Clears tokens without a bit in `seen`.
    DEVICE void clear(char* tile, unsigned long long seen) {
        ROLLED for (unsigned n = 0; n < CHUNKS; n++) {
            if (!(seen >> row(n) & 1u)) store_chunk(chunk(tile, n), Chunk());
        }
    }

    // Describes all tokens and 16 columns, or, turned, 16 tokens and all columns, in units of 16 bytes: where they begin; a panel
    // to the next; 8 tokens to the next; chunks exchanged.
    DEVICE unsigned long long descriptor(const char* tile, unsigned token, unsigned col) {
        unsigned at = in_shared(tile) + col / PANEL * PANEL_BYTES + token * 128u + col % PANEL * 2u;
        return (at & 0x3ffffu) >> 4 | (unsigned long long)(PANEL_BYTES / 16u) << 16 | 64ull << 32 | 1ull << 62;
    }
};

template <int D>
DEVICE void attention(const AttentionArgs<f16>& a, const TensorMap* map) {
    using Tile = Panels<D>;
    __shared__ unsigned char kept[ROWS * (KEYS / 8 + 1)];
    DYN_SHARED(Chunk, shared);
    char* queries = (char*)shared + (0u - in_shared(shared)) % 1024u;
    char* ring = queries + ROWS / GROUP * Tile::BYTES;
    Barrier *full = (Barrier*)(ring + STAGES * 2u * Tile::BYTES), *ready = full + STAGES;
    const Head head = head_of(a);
    const Draw draw = draw_if(a.rng, a.drop, a.call);
    const unsigned first = blockIdx.y * ROWS, group = threadIdx.x / 128u, in_block = threadIdx.x / 32u * 16u;
    const unsigned own = first + in_block;
    unsigned char* bits = kept + in_block * (KEYS / 8 + 1);
    const auto q = tokens(head, a.qkv, a.qkv_ld, 0u), k = tokens(head, a.qkv, a.qkv_ld, a.c);
    const auto v = tokens(head, a.qkv, a.qkv_ld, 2u * a.c);
    if (!matrix(a.qkv, a.qkv_ld, a.r, a.e).aligned) map = nullptr;
    const unsigned end = first + ROWS < head.t ? first + ROWS : head.t, chunks = (end + KEYS - 1u) / KEYS;
    if (threadIdx.x == 0u) {
        for (unsigned n = 0; n <= STAGES; n++) begin_barrier(full + n, THREADS);
        fence_async();
    }
    __syncthreads();
    if (map && threadIdx.x == 0u) expect(ready, ROWS / GROUP * Tile::BYTES);
    for (unsigned n = 0; n < ROWS / GROUP; n++) {
        Tile::begin(queries + n * Tile::BYTES, q, map, head, 0u, first + n * GROUP, ready);
    }
    fence_async();
    arrive(ready);
    // Of a chunk of keys and values.
    auto begin = [&](unsigned n) {
        if (n >= chunks) return;
        char* keys = ring + n % STAGES * 2u * Tile::BYTES;
        Barrier* of = full + n % STAGES;
        if (map && threadIdx.x == 0u) expect(of, 2u * Tile::BYTES);
        Tile::begin(keys, k, map, head, a.c, n * KEYS, of);
        Tile::begin(keys + Tile::BYTES, v, map, head, 2u * a.c, n * KEYS, of);
        fence_async();
        arrive(of);
    };
    for (unsigned n = 0; n < STAGES; n++) begin(n);
    Softmax softmax;
    softmax.start();
    float value[D / 8][4] = {};
    wait(ready, 0u);
    ROLLED for (unsigned n = 0; n < chunks; n++) {
        unsigned from = n * KEYS;
        char *keys = ring + n % STAGES * 2u * Tile::BYTES, *values = keys + Tile::BYTES;
        unsigned long long seen = visible(head, from) | (unsigned long long)visible(head, from + 32u) << 32;
        wait(full + n % STAGES, n / STAGES % 2u);
        if (~seen) {
            // A weight of 0 does not hide a value that is no number.
            Tile::clear(values, seen);
            fence_async();
            __syncthreads();
        }
        unsigned own_group = first + group * GROUP;
        if (from < own_group + GROUP && own_group < head.t) {
            if (draw.threshold != 0u) draw_rows<KEYS, 16>(bits, draw, head, own, from);
            __syncwarp();
            float weight[KEYS / 8][4] = {}, keep[2];
            order_sums();
            ROLLED for (unsigned i = 0; i < head.d; i += 16u) {
                begin_product<f16, KEYS, false, false>((float (&)[KEYS / 2])weight,
                                                       Tile::descriptor(queries + group * Tile::BYTES, 0u, i),
                                                       Tile::descriptor(keys, 0u, i));
            }
            end_group();
            wait_for_groups<0>();
            softmax.weigh(weight, keep, head, draw, bits, own, from, seen);
            Weights<f16, KEYS / 8> weights(weight, {1.0f, 1.0f});
            float part[D / 8][4] = {};
            order_sums();
            UNROLL for (unsigned i = 0; i < KEYS / 16u; i++) {
                UNROLL for (int plane = 1; plane >= 0; plane--) {
                    begin_product<f16, D, true>((float (&)[D / 2])part, weights.at[i][plane],
                                                Tile::descriptor(values, 16u * i, 0u));
                }
            }
            end_group();
            wait_for_groups<0>();
            UNROLL for (unsigned at = 0; at < D / 2; at++) {
                float& to = value[at / 4u][at % 4u];
                to = __fmaf_rn(to, keep[at / 2u % 2u], part[at / 4u][at % 4u] * weights.back[at / 2u % 2u]);
            }
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
