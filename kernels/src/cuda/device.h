// What kernels share: places of threads, reductions in a written order, numbers of 16 bits, random bits, and functions of
// f32 in plain arithmetic, so that a GPU and the emulator give the same bits. No toolkit header is included; compiled with
// --fmad=false, so a fused product is written __fmaf_rn.
#pragma once

#ifdef HOST_CUDA  // the emulator compiles this as C++ and has included its own header
#define KERNEL(...) static void
#define UNROLL
#define UNROLL_4
#define ROLLED
#else
// Threads of a block; a 1 behind them says that registers matter more than a second block beside it.
#define KERNEL(...) extern "C" __global__ void __launch_bounds__(__VA_ARGS__)
#define DYN_SHARED(T, name) extern __shared__ T name[]
#define UNROLL _Pragma("unroll")  // arrays in registers need constant indices
#define UNROLL_4 _Pragma("unroll 4")
#define ROLLED _Pragma("unroll 1")
#endif

// Storage only: sums and products are f32.
struct bf16 {
    unsigned short bits;
};
struct f16 {
    unsigned short bits;
};

// Type of an argument that goes with one of type T: the same, but f32 with small integers.
template <class T>
struct TypeBeside {
    using Type = T;
};
template <>
struct TypeBeside<unsigned char> {
    using Type = float;
};
template <class T>
using Beside = typename TypeBeside<T>::Type;

#include "args.h"

#define DEVICE static __device__ __forceinline__
#define DEVICE_MEMBER __device__ __forceinline__

// Calls of one op in one launch: their arguments, and the part of each, ascending.
struct Part {
    unsigned first, x, y;  // its first block; blocks of its own grid in x and y
};
template <class Args>
struct Batch {
    const Args* calls;
    const Part* parts;
    unsigned count;
};
// The call that this block works on: the last one that begins no later.
DEVICE unsigned call_of_block(const Part* parts, unsigned count) {
    unsigned begun = 0u;
    for (unsigned from = 0; from < count; from += 32u) {
        unsigned at = from + threadIdx.x % 32u;
        begun += (unsigned)__popc(__ballot_sync(0xffffffffu, at < count && parts[at].first <= blockIdx.x));
    }
    return begun - 1u;
}
DEVICE uint3 block_in(const Part& part) {
    unsigned at = blockIdx.x - part.first;
    uint3 block = {at % part.x, at / part.x % part.y, at / part.x / part.y};
    return block;
}

// A kernel, and one that runs many calls in one launch. The body that follows has the arguments of a call as `a` and its place
// in the call's grid as `block`.
#define BATCHED(threads, name, Args)                                    \
    DEVICE void name##_of(const Args& a, [[maybe_unused]] uint3 block); \
    KERNEL(threads) name(Args a) { name##_of(a, blockIdx); }            \
    KERNEL(threads) name##_batch(Batch<Args> all) {                     \
        unsigned call = call_of_block(all.parts, all.count);            \
        Args a = all.calls[call];                                       \
        name##_of(a, block_in(all.parts[call]));                        \
    }                                                                   \
    DEVICE void name##_of(const Args& a, [[maybe_unused]] uint3 block)

// An element as f32.
DEVICE float widened(float v) { return v; }
DEVICE float widened(bf16 v) { return __uint_as_float((unsigned)v.bits << 16); }
DEVICE float widened(f16 v) {
    unsigned sign = (v.bits & 0x8000u) << 16, exponent = v.bits >> 10 & 31u, fraction = v.bits & 1023u;
    if (exponent == 31u) return __uint_as_float(sign | 0x7f800000u | fraction << 13);
    if (exponent > 0u) return __uint_as_float(sign | (exponent + 112u) << 23 | fraction << 13);
    float small = (float)fraction * 5.9604644775390625e-8f;  // 2^-24, exact
    return sign ? -small : small;
}
DEVICE float widened(unsigned char v) { return (float)v; }

// The nearest bf16, ties to even; NaN stays NaN.
DEVICE bf16 to_bf16(float v) {
    unsigned bits = __float_as_uint(v);
    bf16 out;
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        out.bits = (unsigned short)(bits >> 16 | 0x40u);
    } else {
        out.bits = (unsigned short)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
    }
    return out;
}

// Number of this thread in a line of blocks.
DEVICE size_t thread_of_line(uint3 block) { return (size_t)block.x * blockDim.x + threadIdx.x; }
DEVICE size_t thread_of_line() { return thread_of_line(blockIdx); }

// Row and column of an element of a matrix with c columns.
struct Cell {
    size_t row;
    unsigned col;
};
DEVICE Cell cell_of(size_t at, unsigned c) {
    Cell cell;
    if (at >> 32) {
        cell.row = at / c;
        cell.col = (unsigned)(at % c);
    } else {  // a division of 32 bits is several times cheaper
        cell.row = (unsigned)at / c;
        cell.col = (unsigned)at % c;
    }
    return cell;
}

// First element of a row.
template <class T>
DEVICE T* row_of(T* from, size_t row, unsigned ld) {
    return from + row * ld;
}

// Four floats at a time.
DEVICE float4 zeros() {
    float4 v = {0.0f, 0.0f, 0.0f, 0.0f};
    return v;
}
// c + <a, b>, ascending.
DEVICE float dot_four(float4 a, float4 b, float c) {
    return __fmaf_rn(a.w, b.w, __fmaf_rn(a.z, b.z, __fmaf_rn(a.y, b.y, __fmaf_rn(a.x, b.x, c))));
}
// c + a b.
DEVICE float4 add_four(float a, float4 b, float4 c) {
    float4 v = {__fmaf_rn(a, b.x, c.x), __fmaf_rn(a, b.y, c.y), __fmaf_rn(a, b.z, c.z), __fmaf_rn(a, b.w, c.w)};
    return v;
}
DEVICE float4 times_four(float a, float4 b) {
    float4 v = {a * b.x, a * b.y, a * b.z, a * b.w};
    return v;
}
// Whether rows may be read in fours.
template <class T>
DEVICE bool in_fours(const T* from, unsigned ld) {
    return ((size_t)from | (size_t)ld * sizeof(T)) % (4u * sizeof(T)) == 0u;
}
DEVICE float4 four_at(const float* at) { return *(const float4*)at; }
DEVICE float4 four_at(const f16* at) {
    ushort4 bits = *(const ushort4*)at;
    float4 v = {widened(f16{bits.x}), widened(f16{bits.y}), widened(f16{bits.z}), widened(f16{bits.w})};
    return v;
}
// Columns col .. col + 4 of a row with c columns, 0 behind the last; `fours` says that c and the row allow fours.
template <class T>
DEVICE float4 load_four(const T* row, unsigned col, unsigned c, bool fours) {
    if (fours && col < c) return four_at(row + col);
    float4 v = zeros();
    if (col < c) v.x = widened(row[col]);
    if (col + 1u < c) v.y = widened(row[col + 1u]);
    if (col + 2u < c) v.z = widened(row[col + 2u]);
    if (col + 3u < c) v.w = widened(row[col + 3u]);
    return v;
}
DEVICE void store_four(float* row, unsigned col, unsigned c, bool fours, float4 v) {
    if (fours && col + 3u < c) {
        *(float4*)(row + col) = v;
        return;
    }
    if (col < c) row[col] = v.x;
    if (col + 1u < c) row[col + 1u] = v.y;
    if (col + 2u < c) row[col + 2u] = v.z;
    if (col + 3u < c) row[col + 3u] = v.w;
}

// Bit `col` of a row of words.
DEVICE bool bit_of(const unsigned* words, unsigned col) { return words[col / 32u] >> (col % 32u) & 1u; }

// Sum over the 32 lanes of a warp, of f32 or f64: lane l adds lane l ^ 16, then 8, 4, 2, 1. All lanes get it.
template <class T>
DEVICE T warp_sum(T v) {
    for (int lanes = 16; lanes > 0; lanes /= 2) v += __shfl_xor_sync(0xffffffffu, v, lanes);
    return v;
}

// Largest of the 32 lanes of a warp, none of them NaN. All lanes get it.
DEVICE float warp_max(float v) {
    for (int lanes = 16; lanes > 0; lanes /= 2) {
        float other = __shfl_xor_sync(0xffffffffu, v, lanes);
        v = other > v ? other : v;
    }
    return v;
}

// Sum over a block of at most 1024 threads, a multiple of 32: warps as above, then their sums ascending. All threads get
// it; `shared` has 32 elements and may be used again at once.
template <class T>
DEVICE T block_sum(T v, T* shared) {
    unsigned warps = blockDim.x / 32u;
    v = warp_sum(v);
    if (threadIdx.x % 32u == 0u) shared[threadIdx.x / 32u] = v;
    __syncthreads();
    T sum = shared[0];
    for (unsigned warp = 1; warp < warps; warp++) sum += shared[warp];
    __syncthreads();
    return sum;
}

// Sum over a block of 256 of f64 that other blocks left: every 256th ascending, then as above.
DEVICE double sum_of_parts(const unsigned* work, size_t count, double* shared) {
    double sum = 0.0;
    for (size_t part = threadIdx.x; part < count; part += 256u) sum += ((const double*)work)[part];
    return block_sum(sum, shared);
}

// Largest over a block, as block_sum.
DEVICE float block_max(float v, float* shared) {
    unsigned warps = blockDim.x / 32u;
    v = warp_max(v);
    if (threadIdx.x % 32u == 0u) shared[threadIdx.x / 32u] = v;
    __syncthreads();
    float most = shared[0];
    for (unsigned warp = 1; warp < warps; warp++) most = shared[warp] > most ? shared[warp] : most;
    __syncthreads();
    return most;
}

// Bits that are in the order of the numbers, of which none is NaN; 0 and -0 have the same.
DEVICE unsigned ordered(float v) {
    unsigned bits = v == 0.0f ? 0u : __float_as_uint(v);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}
DEVICE float number_of(unsigned ordered) { return __uint_as_float(ordered >> 31 ? ordered & 0x7fffffffu : ~ordered); }

// Four random words for a counter and a key: Philox 4x32-10, as kernels/src/philox.rs.
struct Words {
    unsigned at[4];
};
DEVICE Words philox(unsigned c0, unsigned c1, unsigned c2, unsigned c3, unsigned k0, unsigned k1) {
    for (int round = 0; round < 10; round++) {
        unsigned long long p0 = (unsigned long long)0xd2511f53u * c0;
        unsigned long long p1 = (unsigned long long)0xcd9e8d57u * c2;
        c0 = (unsigned)(p1 >> 32) ^ c1 ^ k0;
        c1 = (unsigned)p1;
        c2 = (unsigned)(p0 >> 32) ^ c3 ^ k1;
        c3 = (unsigned)p0;
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    Words words;
    words.at[0] = c0;
    words.at[1] = c1;
    words.at[2] = c2;
    words.at[3] = c3;
    return words;
}

// The random decisions of a call, as kernels/src/ops/dropout/draw.rs: which elements are kept, and their factor.
struct Draw {
    unsigned k0, k1, call, step, threshold;
    float scale;
};
DEVICE Draw draw_of(const unsigned* rng, unsigned drop, unsigned call) {
    Draw draw;
    draw.k0 = rng[0];
    draw.k1 = rng[1];
    draw.step = rng[2];
    draw.call = call;
    // The share of 65536, halves up.
    float share = __uint_as_float(drop) * 65536.0f;
    draw.threshold = (unsigned)share + (share - floorf(share) >= 0.5f ? 1u : 0u);
    draw.scale = draw.threshold < 65536u ? 1.0f / (1.0f - (float)draw.threshold / 65536.0f) : 0.0f;
    return draw;
}
// The same; without random bits every element is kept.
DEVICE Draw draw_if(const unsigned* rng, unsigned drop, unsigned call) {
    if (rng) return draw_of(rng, drop, call);
    Draw draw = {0u, 0u, 0u, 0u, 0u, 1.0f};
    return draw;
}
// An element is kept if its 16 bits of the Philox block of eight elements are not below the threshold.
DEVICE bool keeps(const Draw& draw, size_t element) {
    if (draw.threshold == 0u) return true;
    size_t block = element / 8u;
    Words words = philox((unsigned)block, (unsigned)(block >> 32), draw.call, draw.step, draw.k0, draw.k1);
    unsigned half = element % 8u;
    return (words.at[half / 2u] >> (16u * (half % 2u)) & 0xffffu) >= draw.threshold;
}

// The same for the eight elements of a block, the first in bit 0.
DEVICE unsigned char kept_of_block(const Draw& draw, size_t block) {
    Words words = philox((unsigned)block, (unsigned)(block >> 32), draw.call, draw.step, draw.k0, draw.k1);
    unsigned kept = 0u;
    UNROLL for (unsigned half = 0; half < 8u; half++) {
        kept |= ((words.at[half / 2u] >> (16u * (half % 2u)) & 0xffffu) >= draw.threshold ? 1u : 0u) << half;
    }
    return (unsigned char)kept;
}

// Sign of a score: 0 for 0.
DEVICE float sign_of(float score) { return (score > 0.0f ? 1.0f : 0.0f) - (score < 0.0f ? 1.0f : 0.0f); }

// exp(high + low) for high <= 0 and a tiny low, as kernels/src/ops/vmath.rs: below the smallest normal number it is 0.
DEVICE float exp_nonpos(float high, float low) {
    const float round = 12582912.0f;  // 1.5 * 2^23: the sum's last bits are the nearest integer
    if (high < -87.3f) return 0.0f;
    float biased = __fmaf_rn(high, 1.44269502f, round);
    float n = biased - round;
    float r = __fmaf_rn(-n, 0.693359375f, high);
    r = __fmaf_rn(-n, -2.12194440e-4f, r) + low;
    float p = 1.9907516e-4f;
    p = __fmaf_rn(p, r, 1.3948532e-3f);
    p = __fmaf_rn(p, r, 8.333294e-3f);
    p = __fmaf_rn(p, r, 4.166631e-2f);
    p = __fmaf_rn(p, r, 0.16666667f);
    p = __fmaf_rn(p, r, 0.5f);
    float e = __fmaf_rn(r * r, p, r) + 1.0f;
    return __uint_as_float(__float_as_uint(e) + (__float_as_uint(biased) << 23));
}
DEVICE float exp_nonpos(float v) { return exp_nonpos(v, 0.0f); }

// Score of a key that a query does not see: less than any other by far, its exponent is 0.
#define UNSEEN (-1e30f)

// ln(1 + u) for u >= 0, within 2 ulp.
DEVICE float ln_1p(float u) {
    float f = u, k = 0.0f;
    if (u >= 0.41421354f) {
        // 1 + u = 2^k (1 + f), with 1 + f between sqrt(1/2) and sqrt(2).
        unsigned bits = __float_as_uint(1.0f + u) + (0x3f800000u - 0x3f3504f3u);
        k = (float)((int)(bits >> 23) - 127);
        f = __uint_as_float((bits & 0x007fffffu) + 0x3f3504f3u) - 1.0f;
    }
    float s = f / (2.0f + f);
    float z = s * s;
    float square = 0.5f * f * f;
    float series = z * (0.6666666f + z * (0.40000972f + z * (0.28498787f + z * 0.24279079f)));
    return s * (square + series) + k * 9.058001e-6f - square + f + k * 0.6931381f;
}

// Distribution of the standard normal at v, and exp(-v^2 / 2), as kernels/src/ops/vmath.rs; both NaN for NaN.
struct Normal {
    float cdf, e;
};
DEVICE Normal normal_cdf(float v) {
    float a = v < 0.0f ? -v : v;
    a = 14.0f < a ? 14.0f : a;
    float high = a * a;
    float low = __fmaf_rn(a, a, -high);
    Normal out;
    out.e = exp_nonpos(-0.5f * high, -0.5f * low);
    float t = 1.0f / (a + 4.0f);
    float u = (a - 4.0f) * t;
    float p = -1.2298315e-4f;
    p = __fmaf_rn(p, u, 1.9480185e-4f);
    p = __fmaf_rn(p, u, 1.5693137e-3f);
    p = __fmaf_rn(p, u, -3.523574e-3f);
    p = __fmaf_rn(p, u, -7.527213e-3f);
    p = __fmaf_rn(p, u, 6.040647e-2f);
    p = __fmaf_rn(p, u, -0.186523f);
    p = __fmaf_rn(p, u, 0.38713667f);
    p = __fmaf_rn(p, u, -0.6078966f);
    p = __fmaf_rn(p, u, 0.75528514f);
    float tail = p * t * out.e;
    out.cdf = 0.0f < v ? 1.0f - tail : tail;
    return out;
}

// Density of the standard normal at 0.
#define DENSITY_0 0.3989423f

// Derivative of GELU.
DEVICE float gelu_slope(float v) {
    Normal normal = normal_cdf(v);
    return __fmaf_rn(v * normal.e, DENSITY_0, normal.cdf);
}
