// Attention and its gradient as products of warpgroups of f16, for heads of a multiple of 16 columns: a block has 128 own tokens,
// 64 for each of two warpgroups, and goes through chunks of 64 others.
#pragma once
#include "attention.h"
#include "hopper.h"

constexpr unsigned THREADS = 256, GROUP = 64, ROWS = 128, OTHERS = 64, STAGES = 2;

// Tokens of a head in some part of a matrix, and where the first of them is in what the map is of.
struct Source {
    Matrix<f16> m;
    const TensorMap* map;
    unsigned row, col;
};
DEVICE Source source(const Head& head, const f16* x, unsigned ld, unsigned part, const TensorMap* map) {
    return {tokens(head, x, ld, part), map, (unsigned)head.first, part + head.column};
}

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
    DEVICE void begin(char* tile, const Source& from, unsigned first, Barrier* full) {
        if (from.m.aligned) {
            if (threadIdx.x != 0u) return;
            expect(full, BYTES);
            for (unsigned n = 0; n < COUNT; n++) {
                copy_panel(tile + n * PANEL_BYTES, from.map, from.row + first, from.col + n * PANEL, full);
            }
            return;
        }
        ROLLED for (unsigned n = 0; n < CHUNKS; n++) {
            unsigned at = threadIdx.x + n * THREADS;
            store_chunk(chunk(tile, n), chunk_of(from.m, first + row(n), at / 512u * PANEL + at % 8u * 8u));
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

// What a block has in dynamic shared memory: OWN matrices of its own tokens, a ring of chunks of two matrices of others, and
// barriers, at which every thread arrives.
template <int D, unsigned OWN>
struct Tiles {
    using Tile = Panels<D>;
    char* at;       // a multiple of 1024
    Barrier* full;  // those of the ring, then that of own tokens

    DEVICE_MEMBER Tiles() {
        DYN_SHARED(Chunk, shared);
        at = (char*)shared + (0u - in_shared(shared)) % 1024u;
        full = (Barrier*)(at + 2u * (OWN + STAGES) * Tile::BYTES);
        if (threadIdx.x == 0u) {
            for (unsigned n = 0; n <= STAGES; n++) begin_barrier(full + n, THREADS);
            fence_async();
        }
        __syncthreads();
    }
    DEVICE_MEMBER char* own(unsigned matrix, unsigned group) const { return at + (2u * matrix + group) * Tile::BYTES; }
    DEVICE_MEMBER char* other(unsigned n, unsigned matrix) const {
        return at + (2u * (OWN + n % STAGES) + matrix) * Tile::BYTES;
    }

    DEVICE_MEMBER void begin_own(unsigned matrix, const Source& from, unsigned first) const {
        for (unsigned n = 0; n < ROWS / GROUP; n++) Tile::begin(own(matrix, n), from, first + n * GROUP, full + STAGES);
    }
    DEVICE_MEMBER void begin(unsigned n, const Source& from_0, const Source& from_1, unsigned first) const {
        Tile::begin(other(n, 0u), from_0, first, full + n % STAGES);
        Tile::begin(other(n, 1u), from_1, first, full + n % STAGES);
    }
    // What this thread has stored is for all that wait.
    DEVICE_MEMBER void own_begun() const { arrive_at(full + STAGES); }
    DEVICE_MEMBER void begun(unsigned n) const { arrive_at(full + n % STAGES); }
    DEVICE void arrive_at(Barrier* barrier) {
        fence_async();
        arrive(barrier);
    }
    DEVICE_MEMBER void wait_for_own() const { wait(full + STAGES, 0u); }
    DEVICE_MEMBER void wait_for(unsigned n) const { wait(full + n % STAGES, n / STAGES % 2u); }

    // Clears tokens of a matrix of others: a weight of 0 does not hide what is no number. All threads have the same bits.
    DEVICE_MEMBER void clear(unsigned n, unsigned matrix, unsigned long long seen) const {
        if (!~seen) return;
        Tile::clear(other(n, matrix), seen);
        fence_async();
        __syncthreads();
    }
};

// sum = 64 own tokens times a chunk of others, over d columns, by a warpgroup.
template <int D>
DEVICE void products(float (&sum)[OTHERS / 8][4], const char* own, const char* others, unsigned d) {
    UNROLL for (unsigned e = 0; e < OTHERS / 2; e++) sum[e / 4u][e % 4u] = 0.0f;
    order_sums();
    ROLLED for (unsigned i = 0; i < d; i += 16u) {
        begin_product<f16, OTHERS, false, false>((float (&)[OTHERS / 2])sum, Panels<D>::descriptor(own, 0u, i),
                                                 Panels<D>::descriptor(others, 0u, i));
    }
    end_group();
    wait_for_groups<0>();
}

// value = value * keep + weights times a chunk of others; keep is of rows lane / 4 and 8 below.
template <int D>
DEVICE void add(float (&value)[D / 8][4], const Weights<f16, OTHERS / 8>& weights, const char* others, const float (&keep)[2]) {
    float part[D / 8][4] = {};
    order_sums();
    UNROLL for (unsigned i = 0; i < OTHERS / 16u; i++) {
        UNROLL for (int plane = 1; plane >= 0; plane--) {
            begin_product<f16, D, true>((float (&)[D / 2])part, weights.at[i][plane], Panels<D>::descriptor(others, 16u * i, 0u));
        }
    }
    end_group();
    wait_for_groups<0>();
    UNROLL for (unsigned at = 0; at < D / 2; at++) {
        float& to = value[at / 4u][at % 4u];
        to = __fmaf_rn(to, keep[at / 2u % 2u], part[at / 4u][at % 4u] * weights.back[at / 2u % 2u]);
    }
}

// Which of 64 tokens may be read, for a warp.
DEVICE unsigned long long visible_of_chunk(const Head& head, unsigned first) {
    return visible(head, first) | (unsigned long long)visible(head, first + 32u) << 32;
}
