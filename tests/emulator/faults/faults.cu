// Kernels with one fault each, which the emulator must find. `n` counts the elements of `y`.
#include "product.h"

struct FaultArgs {
    float* y;
    unsigned n;
};

// Right: every element of a block from its neighbour's, through shared memory.
KERNEL(64) shift(FaultArgs a) {
    __shared__ float shared[64];
    shared[threadIdx.x] = (float)threadIdx.x;
    __syncthreads();
    a.y[threadIdx.x] = shared[(threadIdx.x + 1u) % 64u];
}

// The same without the barrier.
KERNEL(64) no_barrier(FaultArgs a) {
    __shared__ float shared[64];
    shared[threadIdx.x] = (float)threadIdx.x;
    a.y[threadIdx.x] = shared[(threadIdx.x + 1u) % 64u];
}

// From the neighbour but one, without a barrier between what others read and what overwrites it.
KERNEL(64) no_second_barrier(FaultArgs a) {
    __shared__ float shared[64];
    shared[threadIdx.x] = (float)threadIdx.x;
    __syncthreads();
    float v = shared[(threadIdx.x + 1u) % 64u];
    shared[threadIdx.x] = v;
    __syncthreads();
    a.y[threadIdx.x] = shared[(threadIdx.x + 1u) % 64u];
}

// A barrier that half of the threads leave out.
KERNEL(64) divergent_barrier(FaultArgs a) {
    if (threadIdx.x < 32u) __syncthreads();
    a.y[threadIdx.x] = 0.0f;
}

// A shuffle from a lane that its mask leaves out.
KERNEL(64) outside_mask(FaultArgs a) {
    float v = (float)threadIdx.x;
    if (threadIdx.x % 32u < 16u) v = __shfl_sync(0xffffu, v, 20);
    a.y[threadIdx.x] = v;
}

// A warp operation that some lanes of its mask never reach.
KERNEL(64) missing_lanes(FaultArgs a) {
    float v = (float)threadIdx.x;
    if (threadIdx.x % 32u != 7u) v = __shfl_xor_sync(0xffffffffu, v, 1);
    a.y[threadIdx.x] = v;
}

// Dynamic shared memory that nobody wrote.
KERNEL(64) unwritten_shared(FaultArgs a) {
    DYN_SHARED(float, shared);
    a.y[threadIdx.x] = shared[threadIdx.x];
}

// One element too many.
KERNEL(64) behind_the_end(FaultArgs a) { a.y[a.n + threadIdx.x] = 1.0f; }

// The same in shared memory.
KERNEL(64) behind_shared(FaultArgs a) {
    DYN_SHARED(float, shared);
    shared[a.n + threadIdx.x] = 1.0f;
}

// A copy to shared memory that is read before its thread has waited.
KERNEL(64) early_read(FaultArgs a) {
    DYN_SHARED(Chunk, shared);
    if (threadIdx.x < 16u) copy_chunk(&shared[threadIdx.x], a.y + 4u * threadIdx.x, 16);
    __syncthreads();
    float v = ((float*)shared)[threadIdx.x];
    __syncthreads();
    wait_for_copies();
    a.y[threadIdx.x] = v;
}

// The first 8 rows of a product of two 16 x 16 matrices, y[m, n] = sum over k of (m + 3 k) % 7 * ((2 k + n) % 5), by the first
// warp, of bf16 or f16. `mixed` exchanges two fragments of the left operand.
template <class T, class Rounded>
DEVICE void product_of_tiles(FaultArgs a, bool mixed, Rounded rounded) {
    __shared__ Chunk chunks[64];
    unsigned short *left = (unsigned short*)chunks, *right = left + 256;
    for (unsigned at = threadIdx.x; at < 256u; at += 64u) {
        left[at] = rounded((float)((at / 16u + 3u * (at % 16u)) % 7u)).bits;
        right[at] = rounded((float)((2u * (at / 16u) + at % 16u) % 5u)).bits;
    }
    __syncthreads();
    unsigned lane = threadIdx.x % 32u, part = lane / 8u, of_left[4], of_right[4];
    load_matrices(of_left, left + (lane % 8u + part % 2u * 8u) * 16u + part / 2u * 8u);
    load_transposed(of_right, right + (lane % 8u + part / 2u * 8u) * 16u + part % 2u * 8u);
    if (mixed) {
        unsigned other = of_left[1];
        of_left[1] = of_left[2];
        of_left[2] = other;
    }
    float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    mma(T(), sum, of_left, of_right[0], of_right[2]);
    if (threadIdx.x >= 32u) return;
    for (unsigned e = 0; e < 2u; e++) a.y[lane / 4u * 8u + lane % 4u * 2u + e] = sum[e];
}
KERNEL(64) fragments(FaultArgs a) { product_of_tiles<bf16>(a, false, to_bf16); }
KERNEL(64) mixed_fragments(FaultArgs a) { product_of_tiles<bf16>(a, true, to_bf16); }
KERNEL(64) fragments_f16(FaultArgs a) { product_of_tiles<f16>(a, false, to_f16); }
// Elements of the other type.
KERNEL(64) foreign_fragments(FaultArgs a) { product_of_tiles<f16>(a, false, to_bf16); }

// A copy that its thread never waits for.
KERNEL(64) endless_copy(FaultArgs a) {
    DYN_SHARED(Chunk, shared);
    if (threadIdx.x < 16u) copy_chunk(&shared[threadIdx.x], a.y + 4u * threadIdx.x, 16);
}
