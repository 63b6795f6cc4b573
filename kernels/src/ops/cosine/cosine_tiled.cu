// op      cosine                 y[n, m] = <q_n, p_m> / (max(|q_n|, 1e-8) max(|p_m|, 1e-8))
//         cosine_topk            the k largest cosines of every query, descending, lower index first on ties
// args    CosineArgs  CosineTopkArgs
// layout  row major with pitch `_ld`
// launch  cosine_tiled_*: one block of 256 per tile of 16 or 64 queries by 64 rows of p; cosine_topk_tiled_*: one block
//         per tile of queries and span of p, which goes through tiles of 64 rows; mma: the same for 64 queries, dynamic shared
//         memory; cosine_topk_merge: one warp per query
// order   i = 0..d ascending, one accumulator; mma: products as product.h, a squared length in eight sums of f32, each four of
//         32 ascending, and those by lanes; candidates in index order into descending lists of 32, spans in order
// tol     twice the error of the plain f32 loop against f64, plus 1e-5
// cost    2*d*(n*m + n + m) flop, products on tensor cores six times as many; 4*(n*d + m*d + n*m) bytes; cosine_topk
//         4*(n*d + m*d) + 8*n*k bytes, and 16*n*k for every span; scores stay in shared memory
// source  definition; splitting an f32 as in kernels/src/ops/gemm/amx
#include "product.h"

#define THREADS 256u
#define ROWS 64u   // of p in a tile
#define CHUNK 32u  // columns of a tile
#define PITCH (CHUNK / 4u + 1u)

// From its square. NaN stays NaN.
DEVICE float length_of(float square) {
    float length = sqrtf(square);
    return length < 1e-8f ? 1e-8f : length;
}

// Q*16 queries and 64 rows of p, some columns of them, and their lengths.
template <int Q>
struct Tile {
    float4 q[16 * Q * PITCH], p[ROWS * PITCH];
    float q_length[16 * Q], p_length[ROWS];
};

DEVICE void load(float4* to, unsigned count, const float* from, unsigned ld, size_t first, size_t end, unsigned i, unsigned d) {
    bool fours = in_fours(from, ld) && d % 4u == 0u;
    for (unsigned at = threadIdx.x; at < count * (CHUNK / 4u); at += THREADS) {
        size_t row = first + at / (CHUNK / 4u);
        unsigned four = at % (CHUNK / 4u);
        float4 v = row < end ? load_four(row_of(from, row, ld), i + 4u * four, d, fours) : zeros();
        to[at / (CHUNK / 4u) * PITCH + four] = v;
    }
}

// Cosines of a tile: thread t has queries t / 16 + 16 a and rows t % 16 + 16 b.
template <int Q>
struct Cosines {
    float at[Q][4];

    template <class A>
    DEVICE_MEMBER void compute(Tile<Q>& tile, const A& a, size_t query, size_t row) {
        float length = 0.0f;  // squared, of one row: threads from 128 on have queries
        UNROLL for (int x = 0; x < Q; x++) UNROLL for (int y = 0; y < 4; y++) at[x][y] = 0.0f;
        for (unsigned i = 0; i < a.d; i += CHUNK) {
            __syncthreads();
            load(tile.q, 16u * Q, a.q, a.q_ld, query, a.n, i, a.d);
            load(tile.p, ROWS, a.p, a.p_ld, row, a.m, i, a.d);
            __syncthreads();
            UNROLL for (unsigned four = 0; four < CHUNK / 4u; four++) {
                float4 q[Q], p[4];
                UNROLL for (int x = 0; x < Q; x++) q[x] = tile.q[(threadIdx.x / 16u + 16u * x) * PITCH + four];
                UNROLL for (int y = 0; y < 4; y++) p[y] = tile.p[(threadIdx.x % 16u + 16u * y) * PITCH + four];
                UNROLL for (int x = 0; x < Q; x++) UNROLL for (int y = 0; y < 4; y++) at[x][y] = dot_four(q[x], p[y], at[x][y]);
            }
            unsigned own = threadIdx.x % 128u;
            const float4* line = (threadIdx.x < 128u ? tile.p : tile.q) + own * PITCH;
            if (own < (threadIdx.x < 128u ? ROWS : 16u * Q)) {
                for (unsigned four = 0; four < CHUNK / 4u; four++) length = dot_four(line[four], line[four], length);
            }
        }
        __syncthreads();
        length = length_of(length);
        if (threadIdx.x < ROWS) tile.p_length[threadIdx.x] = length;
        if (threadIdx.x >= 128u && threadIdx.x < 128u + 16u * Q) tile.q_length[threadIdx.x - 128u] = length;
        __syncthreads();
        UNROLL for (int x = 0; x < Q; x++) UNROLL for (int y = 0; y < 4; y++) {
            at[x][y] /= tile.q_length[threadIdx.x / 16u + 16u * x] * tile.p_length[threadIdx.x % 16u + 16u * y];
        }
    }
};

template <int Q>
DEVICE void cosine(const CosineArgs<float>& a) {
    __shared__ Tile<Q> tile;
    size_t query = (size_t)blockIdx.y * 16u * Q, row = (size_t)blockIdx.x * ROWS;
    Cosines<Q> cosines;
    cosines.compute(tile, a, query, row);
    UNROLL for (int x = 0; x < Q; x++) UNROLL for (int y = 0; y < 4; y++) {
        size_t n = query + threadIdx.x / 16u + 16u * x, m = row + threadIdx.x % 16u + 16u * y;
        if (n < a.n && m < a.m) row_of(a.y, n, a.y_ld)[m] = cosines.at[x][y];
    }
}
KERNEL(256) cosine_tiled_16(CosineArgs<float> a) { cosine<1>(a); }
KERNEL(256) cosine_tiled_64(CosineArgs<float> a) { cosine<4>(a); }

// A matrix whose rows are measured while they are staged: of every row that a thread has chunks of, the sum of their squares.
struct Measured {
    using Element = float;
    using From = Staging<float, 64, 32, true>;
    static constexpr bool COPIED = false;
    Matrix<float> m;
    unsigned rows, cols;
    mutable float square[From::COUNT];

    // Lengths of all rows of a tile; a row's threads are neighbours.
    DEVICE_MEMBER void put_lengths(float* to) const {
        UNROLL for (unsigned n = 0; n < From::COUNT; n++) {
            float sum = square[n];
            for (unsigned lanes = From::PER_ROW / 2u; lanes > 0u; lanes /= 2u) sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
            if (From::col(n) == 0u) to[From::row(n)] = length_of(sum);
        }
    }
};
DEVICE Measured measured(const float* at, unsigned ld, unsigned rows, unsigned cols) {
    return {matrix(at, ld, rows, cols), rows, cols, {}};
}
DEVICE Chunk nth_chunk_of(const Measured& m, unsigned n, unsigned row, unsigned col) {
    Chunk chunk = chunk_of(m.m, row, col);
    UNROLL for (unsigned j = 0; j < 4u; j++) {
        float v = __uint_as_float(chunk.word[j]);
        m.square[n] = __fmaf_rn(v, v, m.square[n]);
    }
    return chunk;
}

// Products and lengths of 64 queries and 64 rows of p, there behind a barrier. A pitch of 68 spreads what a warp writes over
// the banks.
struct Products {
    float at[64 * 68], q_length[64], p_length[64];

    template <class A>
    DEVICE_MEMBER void compute(const A& a, uint3 block) {
        Measured q = measured(a.q, a.q_ld, a.n, a.d), p = measured(a.p, a.p_ld, a.m, a.d);
        auto finish = [&](unsigned row, unsigned col, float sum) { at[row % 64u * 68u + col % 64u] = sum; };
        __syncthreads();  // those of the tile before are used
        Mma<1, 32>::run<true, true>(block, q, p, [](unsigned) { return 0.0f; }, finish);
        q.put_lengths(q_length);
        p.put_lengths(p_length);
    }
    DEVICE_MEMBER float cosine(unsigned query, unsigned row) const {
        return at[query * 68u + row] / (q_length[query] * p_length[row]);
    }
};

KERNEL(256) cosine_mma(CosineArgs<float> a) {
    __shared__ Products products;
    products.compute(a, blockIdx);
    __syncthreads();
    unsigned row = threadIdx.x % 64u, m = blockIdx.x * 64u + row;
    for (unsigned query = threadIdx.x / 64u; query < 64u; query += 4u) {
        unsigned n = blockIdx.y * 64u + query;
        if (n < a.n && m < a.m) row_of(a.y, n, a.y_ld)[m] = products.cosine(query, row);
    }
}

// Keys in the order of floats, 0 for no entry; NaN ranks as minus infinity, both zeros are one.
DEVICE unsigned rank_of(float v) {
    return v != v ? 0x007fffffu : ordered(v);
}

// The 32 best of what came so far, an entry for each lane, descending.
struct Best {
    unsigned rank, index;

    // Adds what each lane has, the lowest lane first: behind its equals, so the lower index wins.
    DEVICE_MEMBER void add(unsigned own_rank, unsigned own_index, unsigned k) {
        const unsigned lane = threadIdx.x % 32u;
        unsigned waiting = __ballot_sync(0xffffffffu, own_rank > __shfl_sync(0xffffffffu, rank, k - 1u));
        while (waiting != 0u) {
            int from = __ffs(waiting) - 1;
            unsigned other = __shfl_sync(0xffffffffu, own_rank, from), number = __shfl_sync(0xffffffffu, own_index, from);
            unsigned place = __popc(__ballot_sync(0xffffffffu, rank >= other));
            unsigned rank_before = __shfl_up_sync(0xffffffffu, rank, 1), index_before = __shfl_up_sync(0xffffffffu, index, 1);
            if (lane >= place) {
                rank = lane == place ? other : rank_before;
                index = lane == place ? number : index_before;
            }
            waiting &= waiting - 1u;
        }
    }
};

// The workspace: the number of spans, a word without use, then rank and index of k entries of every query and span.
DEVICE unsigned* entry_of(unsigned* work, unsigned spans, unsigned k, size_t query, size_t span) {
    return work + 2u + 2u * (query * spans + span) * k;
}

// The best of a tile of queries in a span. `fill` computes the cosines of a tile of p, and `cosine` is one of them behind a
// barrier.
template <int Q, class Fill, class Of>
DEVICE void choose(const CosineTopkArgs<float>& a, Fill fill, Of cosine) {
    const unsigned warp = threadIdx.x / 32u, lane = threadIdx.x % 32u;
    size_t query = (size_t)blockIdx.x * 16u * Q, tiles = ((size_t)a.m + ROWS - 1u) / ROWS;
    size_t first = tiles * blockIdx.y / gridDim.y, end = tiles * (blockIdx.y + 1u) / gridDim.y;
    Best best[2 * Q];  // of every eighth query from that of the warp on
    UNROLL for (int j = 0; j < 2 * Q; j++) best[j].rank = best[j].index = 0u;
    for (size_t at = first; at < end; at++) {
        fill(at);
        __syncthreads();
        UNROLL for (int j = 0; j < 2 * Q; j++) {
            for (unsigned half = 0; half < ROWS; half += 32u) {
                size_t index = at * ROWS + half + lane;
                unsigned rank = rank_of(cosine(warp + 8u * j, half + lane));
                best[j].add(index < a.m ? rank : 0u, (unsigned)index, a.k);
            }
        }
    }
    if (blockIdx.x == 0u && blockIdx.y == 0u && threadIdx.x == 0u) a.work[0] = gridDim.y;
    UNROLL for (int j = 0; j < 2 * Q; j++) {
        size_t own = query + warp + 8u * j;
        if (own < a.n && lane < a.k) {
            unsigned* entry = entry_of(a.work, gridDim.y, a.k, own, blockIdx.y) + 2u * lane;
            entry[0] = best[j].rank;
            entry[1] = best[j].index;
        }
    }
}

template <int Q>
DEVICE void cosine_topk(const CosineTopkArgs<float>& a) {
    __shared__ Tile<Q> tile;
    __shared__ float scores[16 * Q * ROWS];
    auto fill = [&](size_t at) {
        Cosines<Q> cosines;
        cosines.compute(tile, a, (size_t)blockIdx.x * 16u * Q, at * ROWS);
        UNROLL for (int x = 0; x < Q; x++) UNROLL for (int y = 0; y < 4; y++) {
            scores[(threadIdx.x / 16u + 16u * x) * ROWS + threadIdx.x % 16u + 16u * y] = cosines.at[x][y];
        }
    };
    choose<Q>(a, fill, [&](unsigned query, unsigned row) { return scores[query * ROWS + row]; });
}
KERNEL(256) cosine_topk_tiled_16(CosineTopkArgs<float> a) { cosine_topk<1>(a); }
KERNEL(256) cosine_topk_tiled_64(CosineTopkArgs<float> a) { cosine_topk<4>(a); }
KERNEL(256) cosine_topk_mma(CosineTopkArgs<float> a) {
    __shared__ Products products;
    auto fill = [&](size_t at) {
        uint3 block = {(unsigned)at, blockIdx.x, 0u};
        products.compute(a, block);
    };
    choose<4>(a, fill, [&](unsigned query, unsigned row) { return products.cosine(query, row); });
}

KERNEL(128) cosine_topk_merge(CosineTopkArgs<float> a) {
    const unsigned lane = threadIdx.x % 32u;
    size_t query = (size_t)blockIdx.x * 4u + threadIdx.x / 32u;
    if (query >= a.n) return;
    Best best = {0u, 0u};
    for (unsigned span = 0, spans = a.work[0]; span < spans; span++) {
        const unsigned* entry = entry_of(a.work, spans, a.k, query, span) + 2u * lane;
        best.add(lane < a.k ? entry[0] : 0u, lane < a.k ? entry[1] : 0u, a.k);
    }
    if (lane < a.k) {
        row_of(a.score, query, a.score_ld)[lane] = number_of(best.rank);
        row_of(a.index, query, a.index_ld)[lane] = best.index;
    }
}
