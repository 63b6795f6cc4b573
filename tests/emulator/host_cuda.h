// Runs CUDA kernels on the CPU: one fiber per thread, one OS thread per running block. Included before a source, which then
// compiles as C++; what it lacks (memory model, banks, registers) no test here can see.
#pragma once
#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif
#include "async.h"

// The emulator itself is not under test.
#define HC_RUNTIME __attribute__((noinline, no_sanitize("thread")))
#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __shared__ static thread_local
#define DYN_SHARED(T, name) T* name = reinterpret_cast<T*>(hc::running->dynamic)

struct uint3 {
    unsigned x, y, z;
};
struct alignas(8) ushort4 {
    unsigned short x, y, z, w;
};
struct alignas(16) float4 {
    float x, y, z, w;
};

namespace hc {

enum State { RUNS, AT_BLOCK, AT_WARP, AT_GROUP, AT_MBARRIER, DONE };

// A copy to shared memory that no thread has waited for yet.
struct Copy {
    unsigned char* to;
    const unsigned char* from;
    unsigned bytes;
};
inline constexpr unsigned COPIES = 64;

struct Fiber {
    void* sp;
    uint3 thread;
    unsigned number;
    State state;
    unsigned mask;  // lanes that a warp operation waits for
    unsigned barriers, whole_warps;  // that it has waited for
    unsigned turns;                  // that it has taken
    void* sanitizer;
    unsigned copies;
    Copy* copy;                // COPIES of them
    unsigned barrier, parity;  // that it waits for
    bool ordered;              // its registers of sums
};

// What the lanes of a whole warp bring to an operation. There are two, taken in turn: nobody takes the first again before all
// lanes have come to the second, so that one barrier an operation is enough.
struct Turn {
    uint64_t slot[32];
    uint32_t fragment[32][6];
};

struct Warp {
    uint64_t slot[32];  // of operations of a part of a warp
    Turn turn[2];
};

struct Block {
    const char* kernel;
    uint3 grid, size, at;
    Fiber* fibers;
    Warp* warps;
    char* dynamic;
    Async* async;
    unsigned count, current, order;
    unsigned in[DONE + 1];  // fibers in each state but RUNS
    void* main_sp;
    void* main_sanitizer;
    void (*entry)(void*);
    void* argument;
};

extern thread_local Block* running;
inline constexpr size_t STACK_BYTES = 64 << 10;

__attribute__((no_sanitize("thread"))) inline Fiber& self() { return running->fibers[running->current]; }
inline Turn& next_turn(Fiber& fiber) { return running->warps[fiber.number / 32].turn[fiber.turns++ % 2]; }
// Lets others run until the state ends.
void pause(State state);
void block_wait();
void warp_wait(unsigned mask);
[[noreturn]] void die(const char* what);
// Runs blocks [first, first + count) of a grid; `entry` runs one thread.
struct Launch {
    const char* kernel;
    uint3 grid;
    unsigned threads, shared_bytes, order;
    uint64_t first, count;
};
void run(const Launch& launch, void (*entry)(void*), void* argument);

// What every lane of the mask gets from lane `from`; all warp operations are made of this.
template <class T>
inline T exchange(unsigned mask, T value, unsigned from) {
    static_assert(sizeof(T) <= 8);
    const bool whole = mask == 0xffffffffu;
    Fiber& fiber = self();
    uint64_t* slot = whole ? next_turn(fiber).slot : running->warps[fiber.number / 32].slot;
    uint64_t word = 0;
    std::memcpy(&word, &value, sizeof value);
    slot[fiber.number % 32] = word;
    warp_wait(mask);
    if (!(mask >> from & 1)) die("a shuffle reads a lane outside its mask");
    word = slot[from];
    if (!whole) warp_wait(mask);
    std::memcpy(&value, &word, sizeof value);
    return value;
}

// cp.async of 16 bytes: the target is NaN until its thread waits, and the source is read no earlier.
inline void begin_copy(void* to, const void* from, unsigned bytes) {
    Fiber& fiber = self();
    if (fiber.copies == COPIES) die("too many copies are under way");
    if (uintptr_t(to) % 16 != 0 || uintptr_t(from) % 16 != 0 || bytes > 16) die("a copy is not of aligned 16 bytes");
    fiber.copy[fiber.copies++] = {static_cast<unsigned char*>(to), static_cast<const unsigned char*>(from), bytes};
    for (unsigned n = 0; n < 16; n++) static_cast<unsigned char*>(to)[n] = 0xff;
}
inline void end_copies() {
    Fiber& fiber = self();
    for (unsigned at = 0; at < fiber.copies; at++) {
        const Copy copy = fiber.copy[at];
        for (unsigned n = 0; n < 16; n++) copy.to[n] = n < copy.bytes ? copy.from[n] : 0;
    }
    fiber.copies = 0;
}

// ldmatrix.x4: rows of 8 elements lie where the lanes say, matrix by matrix; a lane gets two neighbours of each.
inline void load_matrices(unsigned* to, const unsigned short* row, bool transposed) {
    if (uintptr_t(row) % 16 != 0) die("a row of a matrix is not aligned");
    Fiber& fiber = self();
    Turn& turn = next_turn(fiber);
    unsigned lane = fiber.number % 32, high = lane / 4, low = lane % 4 * 2;
    turn.slot[lane] = reinterpret_cast<uintptr_t>(row);
    warp_wait(0xffffffffu);
    for (unsigned part = 0; part < 4; part++) {
        auto at = [&](unsigned row, unsigned col) -> unsigned {
            return reinterpret_cast<const unsigned short*>(turn.slot[8 * part + row])[col];
        };
        to[part] = transposed ? at(low, high) | at(low + 1, high) << 16 : at(high, low) | at(high, low + 1) << 16;
    }
}

// A number of 16 bits, widened.
using Decode = float (*)(uint16_t);
inline float of_bf16(uint16_t bits) {
    uint32_t word = uint32_t(bits) << 16;
    float v;
    std::memcpy(&v, &word, 4);
    return v;
}
inline float of_f16(uint16_t bits) { return _cvtsh_ss(bits); }
inline uint16_t to_f16(float v) { return _cvtss_sh(v, _MM_FROUND_TO_NEAREST_INT); }

// mma.sync.m16n8k16. A(m, k) is in lane m % 8 * 4 + k % 8 / 2, register m / 8 + 2 (k / 8), half k % 2; B(k, n) in lane
// n * 4 + k % 8 / 2, register k / 8, half k % 2; sum e in row lane / 4 + 8 (e / 2), column lane % 4 * 2 + e % 2.
template <Decode DECODE>
inline void mma_m16n8k16(float* sum, const unsigned* a, unsigned b0, unsigned b1) {
    Fiber& fiber = self();
    Turn& turn = next_turn(fiber);
    unsigned lane = fiber.number % 32;
    uint32_t* own = turn.fragment[lane];
    for (unsigned n = 0; n < 4; n++) own[n] = a[n];
    own[4] = b0;
    own[5] = b1;
    warp_wait(0xffffffffu);
    float all[4] = {};
    for (unsigned k = 0; k < 16; k++) {
        float left[2], right[2];  // of two rows and two columns
        for (unsigned n = 0; n < 2; n++) {
            uint32_t of_row = turn.fragment[lane / 4 * 4 + k % 8 / 2][n + k / 8 * 2];
            uint32_t of_col = turn.fragment[(lane % 4 * 2 + n) * 4 + k % 8 / 2][4 + k / 8];
            left[n] = DECODE(uint16_t(of_row >> k % 2 * 16));
            right[n] = DECODE(uint16_t(of_col >> k % 2 * 16));
        }
        for (unsigned e = 0; e < 4; e++) all[e] = std::fma(left[e / 2], right[e % 2], all[e]);
    }
    for (unsigned e = 0; e < 4; e++) sum[e] += all[e];
}

// Where a value may lie behind so many bytes.
template <class B>
constexpr size_t behind(size_t bytes) {
    return (bytes + alignof(B) - 1) / alignof(B) * alignof(B);
}

template <class A>
void launch(void (*kernel)(A), const Launch& launch, const void* argument) {
    struct Call {
        void (*kernel)(A);
        A argument;
    } call;
    call.kernel = kernel;
    std::memcpy(&call.argument, argument, sizeof(A));
    run(launch, [](void* call) { static_cast<Call*>(call)->kernel(static_cast<Call*>(call)->argument); }, &call);
}

// The same with a second argument, which lies behind the first as a member of a struct would.
template <class A, class B>
void launch(void (*kernel)(A, B), const Launch& launch, const void* arguments) {
    struct Call {
        void (*kernel)(A, B);
        A first;
        B second;
    } call;
    call.kernel = kernel;
    std::memcpy(&call.first, arguments, sizeof(A));
    std::memcpy(&call.second, static_cast<const char*>(arguments) + behind<B>(sizeof(A)), sizeof(B));
    auto entry = [](void* at) { static_cast<Call*>(at)->kernel(static_cast<Call*>(at)->first, static_cast<Call*>(at)->second); };
    run(launch, entry, &call);
}

// Size of a kernel's arguments.
template <class A>
constexpr size_t argument_bytes(void (*)(A)) {
    return sizeof(A);
}
template <class A, class B>
constexpr size_t argument_bytes(void (*)(A, B)) {
    return behind<B>(sizeof(A)) + sizeof(B);
}

}  // namespace hc

#define threadIdx (hc::self().thread)
#define blockIdx (hc::running->at)
#define blockDim (hc::running->size)
#define gridDim (hc::running->grid)

inline void __syncthreads() { hc::block_wait(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { hc::warp_wait(mask); }
template <class T>
inline T __shfl_sync(unsigned mask, T value, int lane, int width = 32) {
    unsigned own = hc::self().number & 31;
    return hc::exchange(mask, value, (own & ~(width - 1)) | (lane & (width - 1)));
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int = 32) {
    return hc::exchange(mask, value, (hc::self().number & 31) ^ lanes);
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32) {
    unsigned own = hc::self().number & 31;
    return hc::exchange(mask, value, (own & (width - 1)) + by < unsigned(width) ? own + by : own);
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32) {
    unsigned own = hc::self().number & 31;
    return hc::exchange(mask, value, (own & (width - 1)) >= by ? own - by : own);
}
inline unsigned __ballot_sync(unsigned mask, int yes) {
    const bool whole = mask == 0xffffffffu;
    hc::Fiber& fiber = hc::self();
    uint64_t* slot = whole ? hc::next_turn(fiber).slot : hc::running->warps[fiber.number / 32].slot;
    slot[fiber.number % 32] = yes != 0;
    hc::warp_wait(mask);
    unsigned all = 0;
    for (unsigned lane = 0; lane < 32; lane++)
        if (mask >> lane & 1) all |= unsigned(slot[lane]) << lane;
    if (!whole) hc::warp_wait(mask);
    return all;
}
inline int __any_sync(unsigned mask, int yes) { return __ballot_sync(mask, yes) != 0; }
inline int __all_sync(unsigned mask, int yes) { return __ballot_sync(mask, yes) == mask; }

inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline unsigned __float_as_uint(float v) {
    unsigned bits;
    std::memcpy(&bits, &v, 4);
    return bits;
}
inline float __uint_as_float(unsigned bits) {
    float v;
    std::memcpy(&v, &bits, 4);
    return v;
}
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __clz(int v) { return v == 0 ? 32 : __builtin_clz(unsigned(v)); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
inline unsigned atomicAdd(unsigned* at, unsigned v) { return __atomic_fetch_add(at, v, __ATOMIC_RELAXED); }
inline unsigned atomicMax(unsigned* at, unsigned v) {
    unsigned old = __atomic_load_n(at, __ATOMIC_RELAXED);
    while (old < v && !__atomic_compare_exchange_n(at, &old, v, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return old;
}
inline unsigned atomicOr(unsigned* at, unsigned v) { return __atomic_fetch_or(at, v, __ATOMIC_RELAXED); }
