// Kernels with one fault each, which the emulator must find. `n` counts the elements of `y`.
#include "device.h"

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
