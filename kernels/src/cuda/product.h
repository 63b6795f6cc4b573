// A product of matrices, c[m, n] = sum over k of left[m, k] right[k, n], in tiles of a block of 256 threads. Operands lie in
// either direction and may have a mask, which is applied while a tile is staged: what a cleared bit hides becomes 0 in
// shared memory, and nothing else of the mask exists.
//
//   Tiled<G>        f32, tiles of 64 G x 64 G, 4 G x 4 G sums a thread; order: k ascending, one accumulator
//   Mma<G, STEP>    bf16 on tensor cores (mma.sync m16n8k16); order: k ascending in steps of 16, which the instruction sums
//                   f16 with each 16 k apart and added in f32, for tensor cores round their sums towards 0
//                   f32 as the six larger products of x = h + m + l, three bf16 each, as kernels/src/ops/gemm/amx: h h' as
//                   those of f16, the small ones in sums of their own, added at the end; beside bf16 (small integers) it
//                   is three products
//
// An operand is a Matrix or any other type with `rows` and `cols`, an Element and a `chunk_of` or `nth_chunk_of`: the main loops
// ask for chunks of 16 bytes and do not see where they come from.
//
// Both stage the next step of k while they compute one: two buffers in dynamic shared memory, one barrier a step.
#pragma once
#include "device.h"

// 16 bytes: 4 elements of f32 or 8 of 16 bits.
struct alignas(16) Chunk {
    unsigned word[4];
};

#ifdef HOST_CUDA
DEVICE Chunk read_chunk(const void* from) {
    Chunk chunk;
    memcpy(&chunk, from, 16);
    return chunk;
}
// Begins to copy 16 bytes to shared memory, of which the first `bytes` are read and the others 0.
DEVICE void copy_chunk(void* to, const void* from, unsigned bytes) { hc::begin_copy(to, from, bytes); }
// Waits for all copies of this thread.
DEVICE void wait_for_copies() { hc::end_copies(); }
// Four matrices of 8 x 8 elements of 16 bits, row l % 8 of matrix l / 8 at the address of lane l.
DEVICE void load_matrices(unsigned* to, const unsigned short* row) { hc::load_matrices(to, row, false); }
DEVICE void load_transposed(unsigned* to, const unsigned short* row) { hc::load_matrices(to, row, true); }
// sum[16, 8] += a[16, 16] b[16, 8], all lanes together.
DEVICE void mma(bf16, float* sum, const unsigned* a, unsigned b0, unsigned b1) {
    hc::mma_m16n8k16<hc::of_bf16>(sum, a, b0, b1);
}
DEVICE void mma(f16, float* sum, const unsigned* a, unsigned b0, unsigned b1) {
    hc::mma_m16n8k16<hc::of_f16>(sum, a, b0, b1);
}
// The nearest f16, ties to even.
DEVICE f16 to_f16(float v) { return {hc::to_f16(v)}; }
#else
DEVICE Chunk read_chunk(const void* from) { return *(const Chunk*)from; }
DEVICE unsigned in_shared(const void* at) { return (unsigned)__cvta_generic_to_shared(at); }
DEVICE void copy_chunk(void* to, const void* from, unsigned bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(in_shared(to)), "l"(from), "r"(bytes) : "memory");
}
DEVICE void wait_for_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }
DEVICE void load_matrices(unsigned* to, const unsigned short* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(in_shared(row))
                 : "memory");
}
DEVICE void load_transposed(unsigned* to, const unsigned short* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(in_shared(row))
                 : "memory");
}
#define MMA(type)                                                                                                         \
    DEVICE void mma(type, float* sum, const unsigned* a, unsigned b0, unsigned b1) {                                      \
        asm("mma.sync.aligned.m16n8k16.row.col.f32." #type "." #type ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, " \
            "{%0, %1, %2, %3};"                                                                                           \
            : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])                                                      \
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));                                              \
    }
MMA(bf16)
MMA(f16)
#undef MMA
DEVICE f16 to_f16(float v) {
    f16 out;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(out.bits) : "f"(v));
    return out;
}
#endif

// A matrix as it is stored; `mask` is null if it has none.
template <class T>
struct Matrix {
    using Element = T;
    static constexpr bool COPIED = sizeof(T) == 2u;  // chunks may go to shared memory on their own
    const T* at;
    unsigned ld, rows, cols;
    const unsigned* mask;
    unsigned mask_ld;
    bool aligned;  // every row begins at a multiple of 16 bytes
};
template <class T>
DEVICE Matrix<T> matrix(const T* at, unsigned ld, unsigned rows, unsigned cols, const unsigned* mask = nullptr,
                        unsigned mask_ld = 0) {
    return {at, ld, rows, cols, mask, mask_ld, (size_t)at % 16u == 0 && ld % (16u / sizeof(T)) == 0u};
}

DEVICE void place(Chunk& chunk, unsigned j, float v) { chunk.word[j] = __float_as_uint(v); }
template <class T>
DEVICE void place(Chunk& chunk, unsigned j, T v) {
    chunk.word[j / 2u] |= (unsigned)v.bits << 16u * (j % 2u);
}

// Element j of a chunk, as f32.
template <class T>
DEVICE float element(const Chunk& chunk, unsigned j) {
    if (sizeof(T) == 4u) return __uint_as_float(chunk.word[j % 4u]);
    return __uint_as_float(j % 2u ? chunk.word[j / 2u] & 0xffff0000u : chunk.word[j / 2u] << 16u);
}

// Elements of a row from `col` on, a multiple of their number; 0 outside the matrix and behind a cleared bit.
template <class T>
DEVICE Chunk chunk_of(const Matrix<T>& m, unsigned row, unsigned col) {
    constexpr unsigned COUNT = 16u / sizeof(T);
    Chunk chunk = {};
    if (row >= m.rows || col >= m.cols) return chunk;
    const T* from = row_of(m.at, row, m.ld) + col;
    if (m.aligned && col + COUNT <= m.cols) {
        chunk = read_chunk(from);
    } else {
#pragma unroll
        for (unsigned j = 0; j < COUNT; j++) {
            if (col + j < m.cols) place(chunk, j, from[j]);
        }
    }
    if (m.mask) {
        unsigned bits = row_of(m.mask, row, m.mask_ld)[col / 32u] >> col % 32u;
#pragma unroll
        for (unsigned j = 0; j < 4u; j++) {
            if (COUNT == 4u) {
                chunk.word[j] &= 0u - (bits >> j & 1u);
            } else {
                unsigned low = bits >> 2u * j & 1u, high = bits >> (2u * j + 1u) & 1u;
                chunk.word[j] &= low * 0xffffu | high * 0xffff0000u;
            }
        }
    }
    return chunk;
}

// The n-th chunk that a thread brings of a step. Where k is inner, a thread asks for those of one n in one row, ascending, so an
// operand may remember where it was.
template <class M>
DEVICE Chunk nth_chunk_of(const M& m, unsigned, unsigned row, unsigned col) {
    return chunk_of(m, row, col);
}

// Where a tile of SIDE (m or n) by STEP (k) comes from: its n-th chunk for this thread, of COUNT. K_INNER: k is the direction
// in which the matrix is stored.
template <class T, int SIDE, int STEP, bool K_INNER>
struct Staging {
    static constexpr unsigned ELEMENTS = 16u / sizeof(T), INNER = K_INNER ? STEP : SIDE;
    static constexpr unsigned COUNT = SIDE * STEP / ELEMENTS / 256u, PER_ROW = INNER / ELEMENTS;
    static_assert(COUNT * ELEMENTS * 256u == SIDE * STEP, "a whole number of chunks for every thread");
    // Place in the tile.
    DEVICE unsigned row(unsigned n) { return (threadIdx.x + 256u * n) / PER_ROW; }
    DEVICE unsigned col(unsigned n) { return (threadIdx.x + 256u * n) % PER_ROW * ELEMENTS; }
    // Place in the matrix of a tile that begins at `first` and `k`.
    DEVICE unsigned from_row(unsigned n, unsigned first, unsigned k) { return (K_INNER ? first : k) + row(n); }
    DEVICE unsigned from_col(unsigned n, unsigned first, unsigned k) { return (K_INNER ? k : first) + col(n); }
    template <class M>
    DEVICE void load(Chunk* held, const M& m, unsigned first, unsigned k) {
#pragma unroll
        for (unsigned n = 0; n < COUNT; n++) {
            held[n] = nth_chunk_of(m, n, from_row(n, first, k), from_col(n, first, k));
        }
    }
};

template <int G>
struct Tiled {
    static constexpr int SIDE = 64 * G, STEP = 16;
    static constexpr unsigned PITCH = SIDE + 4, TILE = STEP * PITCH;

    // To rows of k.
    template <bool K_INNER>
    DEVICE void put(float* tile, const Chunk* held) {
        using From = Staging<float, SIDE, STEP, K_INNER>;
#pragma unroll
        for (unsigned n = 0; n < From::COUNT; n++) {
#pragma unroll
            for (unsigned j = 0; j < 4u; j++) {
                unsigned row = From::row(n), col = From::col(n) + j;
                tile[K_INNER ? col * PITCH + row : row * PITCH + col] = __uint_as_float(held[n].word[j]);
            }
        }
    }

    // The tile of a block. `start` gives the first value of the sums of a column, `finish` takes row, column and sum of an
    // element.
    template <bool LEFT_K, bool RIGHT_K, class L, class R, class Start, class Finish>
    DEVICE void run(uint3 block, const L& left, const R& right, Start start, Finish finish) {
        using Left = Staging<float, SIDE, STEP, LEFT_K>;
        using Right = Staging<float, SIDE, STEP, RIGHT_K>;
        DYN_SHARED(Chunk, shared);
        float* tiles = (float*)shared;
        unsigned m = LEFT_K ? left.rows : left.cols, depth = LEFT_K ? left.cols : left.rows;
        unsigned n = RIGHT_K ? right.rows : right.cols;
        unsigned first_row = block.y * SIDE, first_col = block.x * SIDE;
        // Groups of 4 rows and columns, 64 apart.
        unsigned own_row = threadIdx.x / 16u * 4u, own_col = threadIdx.x % 16u * 4u;
        float sum[4 * G][4 * G];
#pragma unroll
        for (unsigned j = 0; j < 4 * G; j++) {
            unsigned col = first_col + own_col + j / 4u * 64u + j % 4u;
            float from = col < n ? start(col) : 0.0f;
#pragma unroll
            for (unsigned i = 0; i < 4 * G; i++) sum[i][j] = from;
        }
        Chunk held_left[Left::COUNT], held_right[Right::COUNT];
        Left::load(held_left, left, first_row, 0);
        Right::load(held_right, right, first_col, 0);
        put<LEFT_K>(tiles, held_left);
        put<RIGHT_K>(tiles + TILE, held_right);
        unsigned steps = (depth + STEP - 1) / STEP;
        for (unsigned step = 0; step < steps; step++) {
            float *here = tiles + step % 2u * 2u * TILE, *next = tiles + (step + 1u) % 2u * 2u * TILE;
            __syncthreads();
            Left::load(held_left, left, first_row, (step + 1u) * STEP);
            Right::load(held_right, right, first_col, (step + 1u) * STEP);
#pragma unroll
            for (unsigned k = 0; k < STEP; k++) {
                float a[4 * G], b[4 * G];
#pragma unroll
                for (unsigned j = 0; j < 4 * G; j++) {
                    a[j] = here[k * PITCH + own_row + j / 4u * 64u + j % 4u];
                    b[j] = here[TILE + k * PITCH + own_col + j / 4u * 64u + j % 4u];
                }
#pragma unroll
                for (unsigned i = 0; i < 4 * G; i++) {
#pragma unroll
                    for (unsigned j = 0; j < 4 * G; j++) sum[i][j] = __fmaf_rn(a[i], b[j], sum[i][j]);
                }
            }
            put<LEFT_K>(next, held_left);
            put<RIGHT_K>(next + TILE, held_right);
        }
#pragma unroll
        for (unsigned i = 0; i < 4 * G; i++) {
#pragma unroll
            for (unsigned j = 0; j < 4 * G; j++) {
                unsigned row = first_row + own_row + i / 4u * 64u + i % 4u;
                unsigned col = first_col + own_col + j / 4u * 64u + j % 4u;
                if (row < m && col < n) finish(row, col, sum[i][j]);
            }
        }
    }
};

// How many numbers of 16 bits are an element in shared memory, and their type: an f32 is three bf16.
template <class T>
struct Planes {
    static constexpr unsigned COUNT = 1;
    using Part = T;
};
template <>
struct Planes<float> {
    static constexpr unsigned COUNT = 3;
    using Part = bf16;
};

// A chunk of T to shared memory, each of its planes PLANE elements behind the one before.
template <class T, unsigned PLANE>
DEVICE void put_planes(unsigned short* to, const Chunk& chunk) {
#pragma unroll
    for (unsigned j = 0; j < 16u / sizeof(T); j++) {
        if (Planes<T>::COUNT == 1u) {
            to[j] = (unsigned short)(chunk.word[j / 2u] >> 16u * (j % 2u));
            continue;
        }
        float rest = __uint_as_float(chunk.word[j % 4u]);
#pragma unroll
        for (unsigned plane = 0; plane < Planes<T>::COUNT; plane++) {
            bf16 part = to_bf16(rest);
            to[plane * PLANE + j] = part.bits;
            rest -= widened(part);
        }
    }
}

// 16 of m or n by 16 of k of a tile with rows PITCH apart: rows 0 and 8 of the first 8 k, then of the others. As a left operand
// these are the four registers of `mma`; as a right one, registers 0 and 2 are of its first 8 columns, 1 and 3 of the others.
template <bool K_INNER, unsigned PITCH>
DEVICE void fragment(unsigned* to, const unsigned short* plane, unsigned q, unsigned k) {
    unsigned lane = threadIdx.x % 32u, part = lane / 8u;
    if (K_INNER) {
        load_matrices(to, plane + (q + lane % 8u + part % 2u * 8u) * PITCH + k + part / 2u * 8u);
    } else {
        load_transposed(to, plane + (k + lane % 8u + part / 2u * 8u) * PITCH + q + part % 2u * 8u);
    }
}

// A tile of bf16 or f16 in shared memory, stored as its matrix is; rows begin 16 bytes apart modulo 128, so that 8 of them lie in
// different banks. An f32 has three planes.
template <class M, int SIDE, int STEP, bool K_INNER>
struct Fragments {
    using T = typename M::Element;
    using From = Staging<T, SIDE, STEP, K_INNER>;
    static constexpr unsigned PLANES = Planes<T>::COUNT, PITCH = From::INNER + 8u;
    static constexpr unsigned PLANE = (K_INNER ? SIDE : STEP) * PITCH, SIZE = PLANES * PLANE;

    // Whether chunks go to shared memory on their own.
    DEVICE bool copies(const M& m) {
        if constexpr (M::COPIED) return m.aligned && !m.mask;
        return false;
    }

    // Begins to stage a tile: copies, or holds what `end` puts.
    DEVICE void begin(unsigned short* tile, Chunk* held, const M& m, unsigned first, unsigned k) {
        if (!copies(m)) {
            From::load(held, m, first, k);
            return;
        }
        if constexpr (M::COPIED) {
#pragma unroll
            for (unsigned n = 0; n < From::COUNT; n++) {
                unsigned row = From::from_row(n, first, k), col = From::from_col(n, first, k);
                bool inside = row < m.rows && col < m.cols;
                unsigned count = inside ? m.cols - col : 0u;
                const T* from = inside ? row_of(m.at, row, m.ld) + col : m.at;
                copy_chunk(tile + From::row(n) * PITCH + From::col(n), from, count < 8u ? 2u * count : 16u);
            }
        }
    }

    DEVICE void end(unsigned short* tile, const Chunk* held, const M& m) {
        if (copies(m)) return;
#pragma unroll
        for (unsigned n = 0; n < From::COUNT; n++) {
            put_planes<T, PLANE>(tile + From::row(n) * PITCH + From::col(n), held[n]);
        }
    }
};

// Sums of one m16n8 tile of two operands: element e is in row lane / 4 + 8 (e / 2) and column 2 (lane % 4) + e % 2.
// Unless APART, the instruction adds products of 16 k to what was before.
template <class L, class R = L, bool APART = Planes<L>::COUNT + Planes<R>::COUNT != 2u>
struct Sums {
    float sum[4];
    DEVICE void start(Sums& s, unsigned e, float from) { s.sum[e] = from; }
    DEVICE void add(Sums& s, const unsigned (*a)[4], const unsigned (*b)[4], unsigned half) {
        mma(L(), s.sum, a[0], b[0][half], b[0][half + 2u]);
    }
    DEVICE float total(const Sums& s, unsigned e) { return s.sum[e]; }
};
// Of several planes, or long.
template <class L, class R>
struct Sums<L, R, true> {
    using Part = typename Planes<L>::Part;
    float sum[4], small[4];
    DEVICE void start(Sums& s, unsigned e, float from) {
        s.sum[e] = from;
        s.small[e] = 0.0f;
    }
    DEVICE void add(Sums& s, const unsigned (*a)[4], const unsigned (*b)[4], unsigned half) {
        float large[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        mma(Part(), large, a[0], b[0][half], b[0][half + 2u]);
#pragma unroll
        for (unsigned e = 0; e < 4u; e++) s.sum[e] += large[e];
        // The smallest products first.
#pragma unroll
        for (unsigned both = 2; both > 0u; both--) {
#pragma unroll
            for (unsigned of_left = 0; of_left <= both; of_left++) {
                unsigned of_right = both - of_left;
                if (of_left < Planes<L>::COUNT && of_right < Planes<R>::COUNT) {
                    mma(Part(), s.small, a[of_left], b[of_right][half], b[of_right][half + 2u]);
                }
            }
        }
    }
    DEVICE float total(const Sums& s, unsigned e) { return s.sum[e] + s.small[e]; }
};
// Sums of any length. Of bf16 alone less is promised than of f32, so that tensor cores may round towards 0.
template <class L, class R>
struct Long {
    using Of = Sums<L, R, true>;
};
template <>
struct Long<bf16, bf16> {
    using Of = Sums<bf16, bf16, false>;
};

template <int G, int STEP>
struct Mma {
    static constexpr int SIDE = 64 * G;

    // As that of Tiled. Eight warps, two by four, have 32 G x 16 G elements each.
    template <bool LEFT_K, bool RIGHT_K, class L, class R, class Start, class Finish>
    DEVICE void run(uint3 block, const L& left, const R& right, Start start, Finish finish) {
        using Left = Fragments<L, SIDE, STEP, LEFT_K>;
        using Right = Fragments<R, SIDE, STEP, RIGHT_K>;
        constexpr unsigned BUFFER = Left::SIZE + Right::SIZE;
        using Sum = typename Long<typename L::Element, typename R::Element>::Of;
        DYN_SHARED(Chunk, shared);
        unsigned short* tiles = (unsigned short*)shared;
        unsigned m = LEFT_K ? left.rows : left.cols, depth = LEFT_K ? left.cols : left.rows;
        unsigned n = RIGHT_K ? right.rows : right.cols;
        unsigned first_row = block.y * SIDE, first_col = block.x * SIDE;
        unsigned lane = threadIdx.x % 32u, warp = threadIdx.x / 32u;
        unsigned own_row = warp / 4u * 32u * G, own_col = warp % 4u * 16u * G;
        Sum sums[2 * G][2 * G];
#pragma unroll
        for (unsigned j = 0; j < 2 * G; j++) {
#pragma unroll
            for (unsigned e = 0; e < 4u; e++) {
                unsigned col = first_col + own_col + j * 8u + lane % 4u * 2u + e % 2u;
                float from = col < n ? start(col) : 0.0f;
#pragma unroll
                for (unsigned i = 0; i < 2 * G; i++) Sum::start(sums[i][j], e, from);
            }
        }
        Chunk held_left[Left::From::COUNT], held_right[Right::From::COUNT];
        Left::begin(tiles, held_left, left, first_row, 0);
        Right::begin(tiles + Left::SIZE, held_right, right, first_col, 0);
        Left::end(tiles, held_left, left);
        Right::end(tiles + Left::SIZE, held_right, right);
        unsigned steps = (depth + STEP - 1) / STEP;
        for (unsigned step = 0; step < steps; step++) {
            unsigned short *here = tiles + step % 2u * BUFFER, *next = tiles + (step + 1u) % 2u * BUFFER;
            wait_for_copies();
            __syncthreads();
            Left::begin(next, held_left, left, first_row, (step + 1u) * STEP);
            Right::begin(next + Left::SIZE, held_right, right, first_col, (step + 1u) * STEP);
#pragma unroll
            for (unsigned k = 0; k < STEP; k += 16u) {
                unsigned a[2 * G][Left::PLANES][4], b[G][Right::PLANES][4];
#pragma unroll
                for (unsigned plane = 0; plane < Left::PLANES; plane++) {
                    const unsigned short* of_left = here + plane * Left::PLANE;
#pragma unroll
                    for (unsigned i = 0; i < 2 * G; i++) fragment<LEFT_K, Left::PITCH>(a[i][plane], of_left, own_row + 16u * i, k);
                }
#pragma unroll
                for (unsigned plane = 0; plane < Right::PLANES; plane++) {
                    const unsigned short* of_right = here + Left::SIZE + plane * Right::PLANE;
#pragma unroll
                    for (unsigned j = 0; j < G; j++) fragment<RIGHT_K, Right::PITCH>(b[j][plane], of_right, own_col + 16u * j, k);
                }
#pragma unroll
                for (unsigned i = 0; i < 2 * G; i++) {
#pragma unroll
                    for (unsigned j = 0; j < 2 * G; j++) Sum::add(sums[i][j], a[i], b[j / 2u], j % 2u);
                }
            }
            Left::end(next, held_left, left);
            Right::end(next + Left::SIZE, held_right, right);
        }
        wait_for_copies();
#pragma unroll
        for (unsigned i = 0; i < 2 * G; i++) {
#pragma unroll
            for (unsigned j = 0; j < 2 * G; j++) {
#pragma unroll
                for (unsigned e = 0; e < 4u; e++) {
                    unsigned row = first_row + own_row + i * 16u + lane / 4u + e / 2u * 8u;
                    unsigned col = first_col + own_col + j * 8u + lane % 4u * 2u + e % 2u;
                    if (row < m && col < n) finish(row, col, Sum::total(sums[i][j], e));
                }
            }
        }
    }
};

// A weight gradient of many rows and few tiles: a block for every tile and PART rows, whose sums go to `work` part by part,
// and are added by who reads them.
constexpr unsigned PART = 256;

// Rows of a part.
template <class T>
DEVICE Matrix<T> part_of(unsigned part, const T* at, unsigned ld, unsigned rows, unsigned cols) {
    unsigned first = part * PART, left = rows - first;
    return matrix(row_of(at, first, ld), ld, left < PART ? left : PART, cols);
}

// Sum of all parts of an element, ascending.
DEVICE float sum_of_parts(const unsigned* work, unsigned rows, size_t at, size_t count) {
    float sum = 0.0f;
    for (unsigned part = 0; part < (rows + PART - 1u) / PART; part++) sum += __uint_as_float(work[part * count + at]);
    return sum;
}
