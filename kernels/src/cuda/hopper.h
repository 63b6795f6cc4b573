// Instructions of capability 9.0: barriers in shared memory that count arrivals and bytes, bulk copies that arrive at them, and
// products of warpgroups of 128 threads, which read shared memory through descriptors.
//
// Shared memory has two views. Copies and products work on the asynchronous one, and what a thread stores is seen there after
// the thread's `fence_async`.
#pragma once
#include "product.h"

// A barrier: a phase ends with its last arrival and its last byte.
struct alignas(8) Barrier {
    unsigned long long word;
};

// How a bulk copy finds a matrix of 16-bit elements; made by the host.
struct alignas(64) TensorMap {
    unsigned long long word[16];
};

// The second argument of a kernel that copies in bulk: the maps that its launch lists. They are read where they were passed.
template <unsigned COUNT>
struct Maps {
    TensorMap of[COUNT];
};
#define MAPS(count, name) const __grid_constant__ Maps<count> name

// A bulk copy moves a panel: 64 rows of 128 bytes, the 16-byte chunks of a row exchanged by its number modulo 8.
constexpr unsigned PANEL = 64, PANEL_BYTES = 8192;

// Whether elements are f16 and not bf16.
template <class T>
constexpr bool HALF = false;
template <>
constexpr bool HALF<f16> = true;

#ifdef HOST_CUDA
DEVICE unsigned in_shared(const void* at) { return hc::shared_address(at); }
DEVICE void begin_barrier(Barrier* barrier, unsigned arrivals) { hc::begin_barrier(barrier, arrivals); }
// The phase ends no earlier than so many more bytes have arrived.
DEVICE void expect(Barrier* barrier, unsigned bytes) { hc::expect(barrier, bytes); }
DEVICE void arrive(Barrier* barrier) { hc::arrive(barrier); }
// Waits until a phase of this parity has ended; the first has parity 0, and one before it counts as ended.
DEVICE void wait(Barrier* barrier, unsigned parity) { hc::wait(barrier, parity); }
// Begins to copy the panel at a row and a column of a matrix, 0 outside of it.
DEVICE void copy_panel(void* to, const TensorMap* from, unsigned row, unsigned col, Barrier* barrier) {
    hc::copy_panel(to, from, row, col, barrier);
}
// A store that the asynchronous view will see.
DEVICE void store_chunk(void* to, Chunk chunk) { hc::store_chunk(to, &chunk); }
DEVICE void fence_async() { hc::fence_async(); }
// Registers of sums are as the thread left them. Comes before the products of a group.
DEVICE void order_sums() { hc::order_sums(); }
// sum[64, N] += left[64, 16] right[16, N], by a warpgroup: element e of a lane is in row 16 (warp) + lane / 4 + 8 (e / 2 % 2) and
// column 8 (e / 4) + 2 (lane % 4) + e % 2. An operand lies with k inner, or turned.
template <class T, int N, bool LEFT_TURNED, bool RIGHT_TURNED>
DEVICE void begin_product(float (&sum)[N / 2], unsigned long long left, unsigned long long right) {
    hc::begin_product(sum, N, {left, right, LEFT_TURNED, RIGHT_TURNED, nullptr, HALF<T> ? hc::of_f16 : hc::of_bf16});
}
// The same with the left operand in registers, where a warp has 16 rows as `mma` has them.
template <class T, int N, bool RIGHT_TURNED>
DEVICE void begin_product(float (&sum)[N / 2], const unsigned (&left)[4], unsigned long long right) {
    hc::begin_product(sum, N, {0, right, false, RIGHT_TURNED, left, HALF<T> ? hc::of_f16 : hc::of_bf16});
}
DEVICE void end_group() { hc::end_group(); }
// Waits until at most so many groups are under way.
template <int PENDING>
DEVICE void wait_for_groups() {
    hc::wait_for_groups(PENDING);
}
#else
DEVICE void begin_barrier(Barrier* barrier, unsigned arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(in_shared(barrier)), "r"(arrivals) : "memory");
}
DEVICE void expect(Barrier* barrier, unsigned bytes) {
    asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(in_shared(barrier)), "r"(bytes) : "memory");
}
DEVICE void arrive(Barrier* barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(in_shared(barrier)) : "memory");
}
DEVICE void wait(Barrier* barrier, unsigned parity) {
    unsigned done = 0u;
    while (done == 0u) {
        asm volatile("{.reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p;}"
                     : "=r"(done)
                     : "r"(in_shared(barrier)), "r"(parity)
                     : "memory");
    }
}
DEVICE void copy_panel(void* to, const TensorMap* from, unsigned row, unsigned col, Barrier* barrier) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(
            in_shared(to)),
        "l"(from), "r"(col), "r"(row), "r"(in_shared(barrier))
        : "memory");
}
DEVICE void store_chunk(void* to, Chunk chunk) { *(Chunk*)to = chunk; }
DEVICE void fence_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
DEVICE void order_sums() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void end_group() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int PENDING>
DEVICE void wait_for_groups() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}
// Registers of sums as operands of an instruction, and their numbers there.
#define SUMS_8(s) \
    "+f"((s)[0]), "+f"((s)[1]), "+f"((s)[2]), "+f"((s)[3]), "+f"((s)[4]), "+f"((s)[5]), "+f"((s)[6]), "+f"((s)[7])
#define SUMS_16(s) SUMS_8(s), SUMS_8((s) + 8)
#define SUMS_32(s) SUMS_16(s), SUMS_16((s) + 16)
#define SUMS_64(s) SUMS_32(s), SUMS_32((s) + 32)
#define SUMS_128(s) SUMS_64(s), SUMS_64((s) + 64)
#define LIST_8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define LIST_16 LIST_8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define LIST_32 LIST_16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define LIST_64                                                                                                              \
    LIST_32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, " \
            "%54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define LIST_128                                                                                                               \
    LIST_64 ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, " \
            "%86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, " \
            "%107, %108, %109, %110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, "    \
            "%125, %126, %127"
#define WGMMA(n, type, sums, rest)                                                                                       \
    "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." #type "." #type " {" LIST_##sums "}, " rest ";" : SUMS_##sums(sum)
template <class T, int N, bool LEFT_TURNED, bool RIGHT_TURNED>
DEVICE void begin_product(float (&sum)[N / 2], unsigned long long left, unsigned long long right) {
    static_assert(N == 256 ? !HALF<T> : N == 64 && HALF<T>, "the widths that are written out");
    if constexpr (N == 256) {
        asm volatile(WGMMA(256, bf16, 128, "%128, %129, 1, 1, 1, %130, %131")
                     : "l"(left), "l"(right), "n"(LEFT_TURNED ? 1 : 0), "n"(RIGHT_TURNED ? 1 : 0));
    } else {
        asm volatile(WGMMA(64, f16, 32, "%32, %33, 1, 1, 1, %34, %35")
                     : "l"(left), "l"(right), "n"(LEFT_TURNED ? 1 : 0), "n"(RIGHT_TURNED ? 1 : 0));
    }
}
#define LEFT "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "l"(right), "n"(RIGHT_TURNED ? 1 : 0)
template <class T, int N, bool RIGHT_TURNED>
DEVICE void begin_product(float (&sum)[N / 2], const unsigned (&left)[4], unsigned long long right) {
    static_assert(HALF<T> && (N == 16 || N == 32 || N == 64 || N == 128), "the widths that are written out");
    if constexpr (N == 16) {
        asm volatile(WGMMA(16, f16, 8, "{%8, %9, %10, %11}, %12, 1, 1, 1, %13") : LEFT);
    } else if constexpr (N == 32) {
        asm volatile(WGMMA(32, f16, 16, "{%16, %17, %18, %19}, %20, 1, 1, 1, %21") : LEFT);
    } else if constexpr (N == 64) {
        asm volatile(WGMMA(64, f16, 32, "{%32, %33, %34, %35}, %36, 1, 1, 1, %37") : LEFT);
    } else {
        asm volatile(WGMMA(128, f16, 64, "{%64, %65, %66, %67}, %68, 1, 1, 1, %69") : LEFT);
    }
}
#endif
