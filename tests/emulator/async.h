// What runs beside the threads of a block on capability 9.0: barriers of arrivals and bytes, bulk copies, products of
// warpgroups. Each is as late as it may be and leaves NaN until then.
//
//   views      products and copies work on a second copy of dynamic shared memory, which begins as NaN; what a thread stores
//              with `store_chunk` is NaN there until the thread's `fence_async`
//   copies     the target is NaN in both views; a copy arrives when a thread waits for its barrier and no thread can go on
//   products   operands are read when a product begins and must be the same when its group is waited for, or the sums are
//              NaN; sums are NaN in the registers of all threads until then; a left operand may be in registers, too
#pragma once
#include <cstdint>

namespace hc {

struct Block;
struct Fiber;

// An address in shared memory, and the bytes there; the window does not begin at a multiple of what tiles need.
unsigned shared_address(const void* at);

void begin_barrier(void* at, unsigned arrivals);
void expect(void* at, unsigned bytes);
void arrive(void* at);
void wait(void* at, unsigned parity);
void copy_panel(void* to, const void* map, unsigned row, unsigned col, void* barrier);
void store_chunk(void* to, const void* chunk);
void fence_async();
void order_sums();
// Where the operands of a product lie, and what their elements are. The left one is in four registers of each thread, unless
// `held` is null.
struct Operands {
    uint64_t left, right;
    bool left_turned, right_turned;
    const unsigned* held;
    float (*widened)(uint16_t);
};
void begin_product(float* sum, unsigned n, const Operands& operands);
void end_group();
void wait_for_groups(unsigned pending);

// A tensor map as the launcher of the emulator writes it; the rest of its 128 bytes is 0.
struct Map {
    uint64_t kind, address, rows, cols, pitch;
};
inline constexpr uint64_t MAP = 0x70616d2d646e6168;

// What a block has of all that.
struct Async;
Async* begin_async(unsigned threads, unsigned shared_bytes);
void end_async(Async* async);
void begin_block(Async& async);
// What is left undone at the end of a block, or null.
const char* undone(const Async& async);
// Whether the phase that a fiber waits for has ended.
bool ended(const Async& async, const Fiber& fiber);
// Lets copies arrive at barriers that fibers wait for; whether any did.
bool deliver(Block& block);

}  // namespace hc
