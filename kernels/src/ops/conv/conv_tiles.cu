// op      conv : see conv.cu
//         conv_dx
//         conv_dw
// args    ConvArgs  ConvDxArgs  ConvDwArgs
// layout  row major with pitch `_ld`; bits in 32-bit words, column j is bit j%32 of word j/32; images are (channel, y, x),
//         rows of y (output, y, x), taps (channel, y, x)
// launch  one block of 256 for 64 x 64 of a product: conv outputs by the pixels of all images; conv_dx channels by the pixels
//         of a class, for every class (conv.h); conv_dw outputs by taps for a block of images, then conv_dw_finish: one thread
//         per element; conv_dx and mma have dynamic shared memory
// order   conv_tiled: taps j ascending from the bias; conv_dx_tiled: outputs, then taps, ascending; conv_dw: one sum per block
//         of images, pixels ascending, then blocks; mma: as product.h, the bias at the end
// tol     twice the error of the plain f32 loop against f64, plus 1e-6; pixels of u8 are whole numbers in one plane, which no
//         f32 rounds, and the sum is divided by 255
// cost    2*n*e*j flop, on tensor cores six times as many, three times for u8; 4*(n*a + o*j + n*e) + o*j/8 bytes, u8 images
//         n*a; conv_dx writes a class at a time, so a line of dx in as many parts as the stride
// source  definition; splitting an f32 as in kernels/src/ops/gemm/amx
#include "conv.h"

// Rows are outputs, columns the pixels of all images, terms taps.
template <class How, class T>
DEVICE void conv(const ConvArgs<T>& a) {
    Box out = out_size(a);
    auto w = matrix(a.w, a.w_ld, a.o, a.j, a.mask, a.mask_ld);
    auto finish = [&](unsigned o, unsigned col, float sum) {
        Cell cell = cell_of(col, out.count());
        row_of(a.y, cell.row, a.y_ld)[o * out.count() + cell.col] = sum_of_staged<T>(sum) + bias_of(a, o);
    };
    How::template run<true, true>(blockIdx, w, windows_of(a, 0u, a.n), [](unsigned) { return 0.0f; }, finish);
}
KERNEL(256) conv_mma(ConvArgs<float> a) { conv<Mma<1, 32>>(a); }
KERNEL(256) conv_mma_u8(ConvArgs<unsigned char> a) { conv<Mma<1, 32>>(a); }

// Rows are channels, columns the pixels of a class of all images, terms outputs and the taps of the class.
template <class How>
DEVICE void conv_dx(const ConvDxArgs<float>& a) {
    Class of = class_of(a, blockIdx.z);
    auto finish = [&](unsigned channel, unsigned col, float sum) {
        Point pixel = point_of(col, of.pixels);
        unsigned y = of.row + pixel.row * a.stride, x = of.col + pixel.col * a.stride;
        row_of(a.dx, pixel.box, a.dx_ld)[(channel * a.height + y) * a.width + x] = sum;
    };
    auto dy = gradients_of(a, of, 0u, a.n);
    How::template run<true, false>(blockIdx, weights_of(a, of), dy, [](unsigned) { return 0.0f; }, finish);
}
KERNEL(256) conv_dx_tiled(ConvDxArgs<float> a) { conv_dx<Tiled<1>>(a); }
KERNEL(256) conv_dx_mma(ConvDxArgs<float> a) { conv_dx<Mma<1, 32>>(a); }

// Rows are outputs, columns taps, terms the pixels of some images. The workspace has the number of blocks of images first.
template <class How, class T>
DEVICE void conv_dw(const ConvDwArgs<T>& a) {
    size_t first = (size_t)a.n * blockIdx.z / gridDim.z;
    unsigned count = (unsigned)((size_t)a.n * (blockIdx.z + 1u) / gridDim.z - first);
    if ((blockIdx.x | blockIdx.y | blockIdx.z | threadIdx.x) == 0u) a.work[0] = gridDim.z;
    auto finish = [&](unsigned o, unsigned j, float sum) {
        a.work[1u + ((size_t)blockIdx.z * a.o + o) * a.j + j] = __float_as_uint(sum_of_staged<T>(sum));
    };
    Class all = {out_size(a), {1u, 1u}, 0u, 0u};
    auto dy = gradients_of(a, all, first, count);
    How::template run<true, false>(blockIdx, dy, windows_of(a, first, count), [](unsigned) { return 0.0f; }, finish);
}
KERNEL(256) conv_dw_mma(ConvDwArgs<float> a) { conv_dw<Mma<1, 32>>(a); }
KERNEL(256) conv_dw_mma_u8(ConvDwArgs<unsigned char> a) { conv_dw<Mma<1, 32>>(a); }

// conv_tiled and conv_dw_tiled have a loop of their own: a table in shared memory says where taps and pixels lie, so that no thread
// divides to find them. Whether `Tiled` is as fast has to be measured first.

// Tiles of 64 rows by 64 columns, of which 16 terms at a time lie in shared memory: a row of 64 for each, padded.
#define TILE 64u
#define CHUNK 16u
#define PITCH 68u

// Thread t of 256 has rows 4 (t / 16) .. and columns 4 (t % 16) .. of a tile.
DEVICE void add_products(float4 (&sum)[4], const float4* rows, const float4* cols) {
    UNROLL for (unsigned k = 0; k < CHUNK; k++) {
        float4 row = rows[k * PITCH / 4u + threadIdx.x / 16u], col = cols[k * PITCH / 4u + threadIdx.x % 16u];
        sum[0] = add_four(row.x, col, sum[0]);
        sum[1] = add_four(row.y, col, sum[1]);
        sum[2] = add_four(row.z, col, sum[2]);
        sum[3] = add_four(row.w, col, sum[3]);
    }
}

// Rows are outputs, columns the pixels of all images, terms taps.
template <class T>
DEVICE void conv_tile(const ConvArgs<T>& a) {
    __shared__ float4 weights[CHUNK * PITCH / 4u], patches[CHUNK * PITCH / 4u];
    __shared__ unsigned taps[2][CHUNK];  // of this chunk and of the next
    const Box out = out_size(a);
    const unsigned pixels = out.count(), first_o = blockIdx.y * TILE;
    const size_t first = (size_t)blockIdx.x * TILE, end = (size_t)a.n * pixels;
    // What this thread brings: every fourth tap of one pixel, four taps of one output.
    const unsigned own = threadIdx.x % TILE, own_o = threadIdx.x / 4u;
    const bool inside = first + own < end, inside_o = first_o + own_o < a.o;
    Cell place = cell_of(inside ? first + own : 0u, pixels);
    const T* x = row_of(a.x, place.row, a.x_ld) + window_at(a, place.col, out);
    float4 sum[4];
    UNROLL for (unsigned y = 0; y < 4u; y++) {
        unsigned o = first_o + threadIdx.x / 16u * 4u + y;
        float bias = o < a.o ? bias_of(a, o) : 0.0f;
        sum[y].x = sum[y].y = sum[y].z = sum[y].w = bias;
    }
    if (threadIdx.x < CHUNK) taps[0][threadIdx.x] = tap_at(a, threadIdx.x);
    for (unsigned j = 0, turn = 0; j < a.j; j += CHUNK, turn ^= 1u) {
        __syncthreads();
        for (unsigned k = threadIdx.x / TILE; k < CHUNK; k += 4u) {
            ((float*)patches)[k * PITCH + own] = inside && j + k < a.j ? pixel_of(x[taps[turn][k]]) : 0.0f;
        }
        for (unsigned k = threadIdx.x % 4u * 4u, last = k + 4u; k < last; k++) {
            ((float*)weights)[k * PITCH + own_o] = inside_o && j + k < a.j ? tap_of(a, first_o + own_o, j + k) : 0.0f;
        }
        if (threadIdx.x < CHUNK) taps[turn ^ 1u][threadIdx.x] = tap_at(a, j + CHUNK + threadIdx.x);
        __syncthreads();
        add_products(sum, weights, patches);
    }
    for (unsigned x4 = 0; x4 < 4u; x4++) {
        size_t at = first + threadIdx.x % 16u * 4u + x4;
        if (at >= end) break;
        Cell cell = cell_of(at, pixels);
        for (unsigned y = 0; y < 4u; y++) {
            unsigned o = first_o + threadIdx.x / 16u * 4u + y;
            float value = x4 == 0u ? sum[y].x : x4 == 1u ? sum[y].y : x4 == 2u ? sum[y].z : sum[y].w;
            if (o < a.o) row_of(a.y, cell.row, a.y_ld)[(size_t)o * pixels + cell.col] = value;
        }
    }
}
KERNEL(256) conv_tiled(ConvArgs<float> a) { conv_tile(a); }
KERNEL(256) conv_tiled_u8(ConvArgs<unsigned char> a) { conv_tile(a); }

// Where a pixel's outputs and its window begin; the workspace of conv_dw has its number of blocks first.
struct Pixel {
    size_t dy, x;
};
#define NO_PIXEL ((size_t)-1)
template <class T>
DEVICE Pixel pixel_at(const ConvDwArgs<T>& a, Box out, size_t at, size_t end) {
    Pixel pixel = {NO_PIXEL, 0u};
    if (at < end) {
        Cell cell = cell_of(at, out.count());
        pixel.dy = cell.row * a.dy_ld + cell.col;
        pixel.x = cell.row * a.x_ld + window_at(a, cell.col, out);
    }
    return pixel;
}

// Rows are outputs, columns taps, terms the pixels of some images.
template <class T>
DEVICE void conv_dw_tile(const ConvDwArgs<T>& a) {
    __shared__ float4 grads[CHUNK * PITCH / 4u], patches[CHUNK * PITCH / 4u];
    __shared__ Pixel places[2][CHUNK];  // of this chunk and of the next
    const Box out = out_size(a);
    const unsigned pixels = out.count(), first_o = blockIdx.y * TILE, first_j = blockIdx.x * TILE;
    const size_t begin = (size_t)a.n * blockIdx.z / gridDim.z * pixels;
    const size_t end = (size_t)a.n * (blockIdx.z + 1u) / gridDim.z * pixels;
    // What this thread brings: one pixel of every sixteenth output and tap.
    const unsigned own = threadIdx.x % CHUNK, line = threadIdx.x / CHUNK;
    unsigned taps[4];
    UNROLL for (unsigned n = 0; n < 4u; n++) taps[n] = tap_at(a, first_j + line + 16u * n);
    float4 sum[4];
    UNROLL for (unsigned y = 0; y < 4u; y++) sum[y] = zeros();
    if (threadIdx.x < CHUNK) places[0][threadIdx.x] = pixel_at(a, out, begin + threadIdx.x, end);
    unsigned turn = 0u;
    for (size_t at = begin; at < end; at += CHUNK, turn ^= 1u) {
        __syncthreads();
        Pixel place = places[turn][own];
        UNROLL for (unsigned n = 0; n < 4u; n++) {
            unsigned row = line + 16u * n;
            bool there = place.dy != NO_PIXEL;
            float dy = there && first_o + row < a.o ? a.dy[place.dy + (size_t)(first_o + row) * pixels] : 0.0f;
            float x = there && first_j + row < a.j ? pixel_of(a.x[place.x + taps[n]]) : 0.0f;
            ((float*)grads)[own * PITCH + row] = dy;
            ((float*)patches)[own * PITCH + row] = x;
        }
        if (threadIdx.x < CHUNK) places[turn ^ 1u][threadIdx.x] = pixel_at(a, out, at + CHUNK + threadIdx.x, end);
        __syncthreads();
        add_products(sum, grads, patches);
    }
    if ((blockIdx.x | blockIdx.y | blockIdx.z | threadIdx.x) == 0u) a.work[0] = gridDim.z;
    UNROLL for (unsigned y = 0; y < 4u; y++) {
        unsigned o = first_o + threadIdx.x / 16u * 4u + y, j = first_j + threadIdx.x % 16u * 4u;
        float* to = (float*)(a.work + 1u) + ((size_t)blockIdx.z * a.o + o) * a.j;
        if (o < a.o) store_four(to, j, a.j, false, sum[y]);
    }
}
KERNEL(256) conv_dw_tiled(ConvDwArgs<float> a) { conv_dw_tile(a); }
KERNEL(256) conv_dw_tiled_u8(ConvDwArgs<unsigned char> a) { conv_dw_tile(a); }

template <class T>
DEVICE void conv_dw_finish(const ConvDwArgs<T>& a) {
    size_t at = thread_of_line(), count = (size_t)a.o * a.j;
    if (at >= count) return;
    const float* sums = (const float*)(a.work + 1u);
    float sum = 0.0f;
    for (size_t block = 0; block < a.work[0]; block++) sum += sums[block * count + at];
    put_dw(a, cell_of(at, a.j), sum);
}
KERNEL(256) conv_dw_finish_f32(ConvDwArgs<float> a) { conv_dw_finish(a); }
KERNEL(256) conv_dw_finish_u8(ConvDwArgs<unsigned char> a) { conv_dw_finish(a); }
