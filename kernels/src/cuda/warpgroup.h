// A product of matrices of bf16 as product.h's, for capability 9.0: a block of three warpgroups and a tile of 128 x 256.
//
// The first warpgroup fills a ring of stages, each with 64 of k. Of an operand without a mask its first thread copies panels in
// bulk. One with a mask goes through registers, where bits are applied, the next step's chunks on their way while those of this
// one are stored. Rows that are not aligned are gathered by elements, into the same places. The other two have 64 rows each and
// multiply what is full. A stage is full when every thread of the first has arrived and all bytes have; it is empty when every
// other warp is done with it.
//
// Order: k ascending in steps of 16, which the instruction sums, from 0.
#pragma once
#include "hopper.h"

// Eight elements on their way to a tile, and the word with their bits, the first at bit 8 (thread % 4).
struct Held {
    Chunk chunk;
    unsigned word;
};

// An operand: tiles of SIDE (m or n) by 64 (k) in panels, stored as the matrix is. K_INNER: k is the direction in which the
// matrix is stored. A tile begins at a multiple of 1024 bytes. One with a mask has no map.
template <int SIDE, bool K_INNER, bool MASKED>
struct Operand {
    static constexpr unsigned PANELS = SIDE / PANEL, BYTES = PANELS * PANEL_BYTES;
    static constexpr unsigned CHUNKS = BYTES / 16u / 128u;  // of a thread
    const Matrix<bf16>& m;
    const TensorMap* map;
    unsigned first;  // of m or n

    DEVICE_MEMBER bool in_bulk() const { return !MASKED && m.aligned; }
    DEVICE_MEMBER bool held() const { return MASKED && m.aligned; }
    DEVICE_MEMBER unsigned depth() const { return K_INNER ? m.cols : m.rows; }
    // Where a panel begins in the matrix.
    DEVICE_MEMBER unsigned row(unsigned panel, unsigned k) const { return K_INNER ? first + PANEL * panel : k; }
    DEVICE_MEMBER unsigned col(unsigned panel, unsigned k) const { return K_INNER ? k : first + PANEL * panel; }

    DEVICE_MEMBER void copy(char* tile, unsigned k, Barrier* full) const {
        for (unsigned panel = 0; panel < PANELS; panel++) {
            copy_panel(tile + panel * PANEL_BYTES, map, row(panel, k), col(panel, k), full);
        }
    }

    // Where the n-th chunk of this thread of 128 comes from, whether that is in the matrix, and the word with its bits.
    DEVICE_MEMBER unsigned from_row(unsigned n, unsigned k) const {
        return row(n / 4u, k) + threadIdx.x / 8u + 16u * (n % 4u);
    }
    DEVICE_MEMBER unsigned from_col(unsigned n, unsigned k) const { return col(n / 4u, k) + threadIdx.x % 8u * 8u; }
    DEVICE_MEMBER bool inside(unsigned n, unsigned k) const { return from_row(n, k) < m.rows && from_col(n, k) < m.cols; }
    DEVICE_MEMBER const bf16* from(unsigned n, unsigned k) const {
        return row_of(m.at, from_row(n, k), m.ld) + from_col(n, k);
    }
    DEVICE_MEMBER unsigned word(unsigned n, unsigned k) const {
        return MASKED ? row_of(m.mask, from_row(n, k), m.mask_ld)[from_col(n, k) / 32u] : 0xffffffffu;
    }

    // A chunk of aligned rows. Behind the last column it lies in memory all the same, which is given out by more than 16 bytes,
    // and its bits are 0. Nothing here waits for what is loaded.
    DEVICE_MEMBER void load(Held& held, unsigned n, unsigned k) const {
        held = {};
        if (inside(n, k)) {
            held.chunk = read_chunk(from(n, k));
            held.word = word(n, k);
        }
    }
    DEVICE_MEMBER void put(char* tile, unsigned n, Held held) const {
        unsigned bits = held.word >> threadIdx.x % 4u * 8u;
#pragma unroll
        for (unsigned j = 0; j < 4u; j++) {
            unsigned low = bits >> 2u * j & 1u, high = bits >> (2u * j + 1u) & 1u;
            held.chunk.word[j] &= low * 0xffffu | high * 0xffff0000u;
        }
        unsigned in_panel = threadIdx.x / 8u + 16u * (n % 4u), chunk = threadIdx.x % 8u ^ in_panel % 8u;
        store_chunk(tile + n / 4u * PANEL_BYTES + in_panel * 128u + chunk * 16u, held.chunk);
    }
    // All chunks of this thread, element by element.
    DEVICE_MEMBER void gather(char* tile, unsigned k) const {
        ROLLED for (unsigned n = 0; n < CHUNKS; n++) {
            Held one = {};
            if (inside(n, k)) {
                one.word = word(n, k);
#pragma unroll
                for (unsigned j = 0; j < 8u; j++) {
                    unsigned col = from_col(n, k) + j;
                    if (col < m.cols && one.word >> col % 32u & 1u) place(one.chunk, j, from(n, k)[j]);
                }
            }
            put(tile, n, one);
        }
    }

    // Describes 16 of k from a row or column of a tile on: its address; 8192 bytes from one panel to the next, if k is not
    // inner; 1024 from 8 rows to the next; chunks exchanged. All in units of 16 bytes.
    DEVICE unsigned long long descriptor(unsigned tile, unsigned q, unsigned k) {
        unsigned at = tile + (K_INNER ? q * 128u + k * 2u : q / PANEL * PANEL_BYTES + k * 128u);
        return (at & 0x3ffffu) >> 4 | (unsigned long long)(PANEL_BYTES / 16u) << 16 | 64ull << 32 | 1ull << 62;
    }
};

constexpr int GROUP_ROWS = 128, GROUP_COLS = 256;

// The tile of a block of 384 threads. MASKED: the right operand has a mask and no map. `finish` takes row, column and sum of an
// element.
template <bool LEFT_K, bool RIGHT_K, bool MASKED, class Finish>
DEVICE void product_of_groups(const Matrix<bf16>& of_left, const TensorMap* left_map, const Matrix<bf16>& of_right,
                              const TensorMap* right_map, Finish finish) {
    using Left = Operand<GROUP_ROWS, LEFT_K, false>;
    using Right = Operand<GROUP_COLS, RIGHT_K, MASKED>;
    constexpr unsigned STAGES = 4, STEP = PANEL, STAGE_BYTES = Left::BYTES + Right::BYTES, PITCH = GROUP_COLS + 8;
    DYN_SHARED(Chunk, shared);
    char* tiles = (char*)shared + (0u - in_shared(shared)) % 1024u;
    Barrier *full = (Barrier*)(tiles + STAGES * STAGE_BYTES), *empty = full + STAGES;
    float* sums = (float*)tiles;  // when all is multiplied
    Left left = {of_left, left_map, blockIdx.y * GROUP_ROWS};
    Right right = {of_right, right_map, blockIdx.x * GROUP_COLS};
    unsigned steps = (left.depth() + STEP - 1u) / STEP, group = threadIdx.x / 128u, lane = threadIdx.x % 32u;
    if (threadIdx.x == 0u) {
        for (unsigned stage = 0; stage < STAGES; stage++) {
            begin_barrier(full + stage, 128u);
            begin_barrier(empty + stage, 8u);
        }
        fence_async();
    }
    __syncthreads();
    if (group == 0u) {
        unsigned bytes = (left.in_bulk() ? Left::BYTES : 0u) + (right.in_bulk() ? Right::BYTES : 0u);
        Held held[Right::CHUNKS];
        if (right.held()) {
#pragma unroll
            for (unsigned n = 0; n < Right::CHUNKS; n++) right.load(held[n], n, 0u);
        }
        ROLLED for (unsigned step = 0; step < steps; step++) {
            unsigned stage = step % STAGES, k = step * STEP;
            char* tile = tiles + stage * STAGE_BYTES;
            wait(empty + stage, (step / STAGES + 1u) % 2u);
            if (threadIdx.x == 0u && bytes != 0u) {
                expect(full + stage, bytes);
                if (left.in_bulk()) left.copy(tile, k, full + stage);
                if (right.in_bulk()) right.copy(tile + Left::BYTES, k, full + stage);
            }
            if (!left.in_bulk()) left.gather(tile, k);
            if (right.held()) {
#pragma unroll
                for (unsigned n = 0; n < Right::CHUNKS; n++) {
                    right.put(tile + Left::BYTES, n, held[n]);
                    right.load(held[n], n, k + STEP);
                }
            } else if (!right.in_bulk()) {
                right.gather(tile + Left::BYTES, k);
            }
            fence_async();
            arrive(full + stage);
        }
        __syncthreads();
    } else {
        unsigned own = (group - 1u) * 64u;
        float sum[GROUP_COLS / 2];
#pragma unroll
        for (unsigned e = 0; e < GROUP_COLS / 2; e++) sum[e] = 0.0f;
        ROLLED for (unsigned step = 0; step < steps; step++) {
            unsigned stage = step % STAGES, tile = in_shared(tiles) + stage * STAGE_BYTES;
            wait(full + stage, step / STAGES % 2u);
            order_sums();
#pragma unroll
            for (unsigned k = 0; k < STEP; k += 16u) {
                begin_product<bf16, GROUP_COLS, !LEFT_K, !RIGHT_K>(sum, Left::descriptor(tile, own, k),
                                                             Right::descriptor(tile + Left::BYTES, 0u, k));
            }
            end_group();
            // The step before is done.
            wait_for_groups<1>();
            if (step > 0u && lane == 0u) arrive(empty + (step - 1u) % STAGES);
        }
        wait_for_groups<0>();
        __syncthreads();
#pragma unroll
        for (unsigned e = 0; e < GROUP_COLS / 2; e++) {
            unsigned row = own + threadIdx.x % 128u / 32u * 16u + lane / 4u + e / 2u % 2u * 8u;
            sums[row * PITCH + e / 4u * 8u + lane % 4u * 2u + e % 2u] = sum[e];
        }
    }
    __syncthreads();
    unsigned rows = LEFT_K ? of_left.rows : of_left.cols, cols = RIGHT_K ? of_right.rows : of_right.cols;
    ROLLED for (unsigned at = threadIdx.x; at < GROUP_ROWS * GROUP_COLS; at += 384u) {
        unsigned row = left.first + at / GROUP_COLS, col = right.first + at % GROUP_COLS;
        if (row < rows && col < cols) finish(row, col, sums[at / GROUP_COLS * PITCH + at % GROUP_COLS]);
    }
}
