// A product by a warpgroup, and the same with one fault each, which the emulator must find.
#include "warpgroup.h"

struct FaultArgs {
    float* y;
    const bf16* x;
};

enum Fault {
    NONE,
    UNFENCED_STORES,
    UNFENCED_BARRIER,
    UNORDERED_SUMS,
    EARLY_PRODUCT,
    EARLY_SUMS,
    OVERWRITTEN_TILE,
    PLAIN_STORES,
    CHUNKS_IN_ORDER,
    OTHER_STRIDE,
    TURNED_TILE,
    UNALIGNED_TILE,
    MORE_BYTES,
    FEWER_BYTES,
    MISSING_ARRIVAL,
    ONE_ARRIVAL_MORE,
    MISSING_WARP,
    ENDLESS_COPY,
    ENDLESS_PRODUCT,
    NO_MAP,
    LEFT_IN_REGISTERS,
    OVERWRITTEN_REGISTERS,
};

// y[c] = sum over k of x[5, k] x[c, k], for x of 64 x 64: row 5 of a product whose left tile is copied in bulk and whose right
// tile goes through registers.
template <Fault FAULT>
DEVICE void square(const FaultArgs& a, const TensorMap* map) {
    using Tile = Operand<64, true, false>;
    DYN_SHARED(Chunk, shared);
    char* left = (char*)shared + (0u - in_shared(shared)) % 1024u + (FAULT == UNALIGNED_TILE ? 256u : 0u);
    char* right = left + PANEL_BYTES;
    Barrier* full = (Barrier*)(right + PANEL_BYTES);
    if (threadIdx.x == 0u) {
        begin_barrier(full, 128u);
        if (FAULT != UNFENCED_BARRIER) fence_async();
    }
    __syncthreads();
    if (threadIdx.x == 0u) {
        expect(full, FAULT == MORE_BYTES ? 2u * PANEL_BYTES : FAULT == FEWER_BYTES ? PANEL_BYTES / 2u : PANEL_BYTES);
        copy_panel(left, FAULT == NO_MAP ? (const TensorMap*)a.x : map, 0u, 0u, full);
    }
    for (unsigned at = threadIdx.x; at < 512u; at += 128u) {
        unsigned row = at / 8u, chunk = FAULT == CHUNKS_IN_ORDER ? at % 8u : at % 8u ^ row % 8u;
        char* to = right + row * 128u + chunk * 16u;
        if (FAULT == PLAIN_STORES) {
            *(Chunk*)to = read_chunk(a.x + 8u * at);
        } else {
            store_chunk(to, read_chunk(a.x + 8u * at));
        }
    }
    if (FAULT != UNFENCED_STORES) fence_async();
    if (FAULT != MISSING_ARRIVAL || threadIdx.x != 77u) arrive(full);
    if (FAULT == ENDLESS_COPY) return;
    if (FAULT == ONE_ARRIVAL_MORE && threadIdx.x == 0u) {
        for (unsigned n = 0; n < 128u; n++) arrive(full);
    }
    // One before the first phase has ended.
    wait(full, FAULT == EARLY_PRODUCT ? 1u : 0u);
    if (FAULT == MISSING_WARP && threadIdx.x / 32u == 3u) return;
    float sum[32] = {};
    // Of the left tile, 16 rows a warp.
    constexpr bool HELD = FAULT == LEFT_IN_REGISTERS || FAULT == OVERWRITTEN_REGISTERS;
    unsigned lane = threadIdx.x % 32u, held[4][4];
    for (unsigned n = 0; n < 16u; n++) {
        unsigned row = threadIdx.x / 32u * 16u + lane / 4u + n % 2u * 8u, col = n / 4u * 16u + lane % 4u * 2u + n % 4u / 2u * 8u;
        held[n / 4u][n % 4u] = a.x[row * 64u + col].bits | (unsigned)a.x[row * 64u + col + 1u].bits << 16;
    }
    if (FAULT != UNORDERED_SUMS) order_sums();
    for (unsigned k = 0; k < 64u; k += 16u) {
        unsigned long long tiles[2] = {Tile::descriptor(in_shared(left), 0u, k), Tile::descriptor(in_shared(right), 0u, k)};
        if (FAULT == OTHER_STRIDE) tiles[1] -= 32ull << 32;
        if (HELD) {
            begin_product<bf16, 64, false>(sum, held[k / 16u], tiles[1]);
        } else {
            begin_product<bf16, 64, false, FAULT == TURNED_TILE>(sum, tiles[0], tiles[1]);
        }
    }
    end_group();
    if (FAULT == ENDLESS_PRODUCT) return;
    if (FAULT == OVERWRITTEN_TILE && threadIdx.x == 0u) {
        store_chunk(right, read_chunk(a.x + 8u));
        fence_async();
    }
    if (FAULT == OVERWRITTEN_REGISTERS) held[3][0] ^= 0x00400000u;
    float early[32];
    for (unsigned e = 0; e < 32u; e++) early[e] = sum[e];
    wait_for_groups<0>();
    wait(full, 0u);
    for (unsigned e = 0; e < 32u; e++) {
        unsigned row = threadIdx.x / 32u * 16u + threadIdx.x % 32u / 4u + e / 2u % 2u * 8u;
        if (row == 5u) a.y[e / 4u * 8u + threadIdx.x % 4u * 2u + e % 2u] = FAULT == EARLY_SUMS ? early[e] : sum[e];
    }
}

#define SQUARE(name, fault) \
    KERNEL(128) name(FaultArgs a, MAPS(1, map)) { square<fault>(a, &map.of[0]); }
SQUARE(square_right, NONE)
SQUARE(unfenced_stores, UNFENCED_STORES)
SQUARE(unfenced_barrier, UNFENCED_BARRIER)
SQUARE(unordered_sums, UNORDERED_SUMS)
SQUARE(early_product, EARLY_PRODUCT)
SQUARE(early_sums, EARLY_SUMS)
SQUARE(overwritten_tile, OVERWRITTEN_TILE)
SQUARE(plain_stores, PLAIN_STORES)
SQUARE(chunks_in_order, CHUNKS_IN_ORDER)
SQUARE(other_stride, OTHER_STRIDE)
SQUARE(turned_tile, TURNED_TILE)
SQUARE(unaligned_tile, UNALIGNED_TILE)
SQUARE(more_bytes, MORE_BYTES)
SQUARE(fewer_bytes, FEWER_BYTES)
SQUARE(missing_arrival, MISSING_ARRIVAL)
SQUARE(one_arrival_more, ONE_ARRIVAL_MORE)
SQUARE(missing_warp, MISSING_WARP)
SQUARE(endless_bulk_copy, ENDLESS_COPY)
SQUARE(endless_product, ENDLESS_PRODUCT)
SQUARE(no_map, NO_MAP)
SQUARE(left_in_registers, LEFT_IN_REGISTERS)
SQUARE(overwritten_registers, OVERWRITTEN_REGISTERS)
