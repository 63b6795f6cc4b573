// op      conv                   valid cross-correlation of NCHW rows with w ⊙ mask, plus bias ⊙ bias_mask; u8 images are
//                                divided by 255
//         conv_dx                gradient of conv with respect to x
//         conv_dw                g = gradient of conv with respect to w ⊙ mask; dw = g ⊙ mask; ds = g ⊙ w ⊙
//                                sign(score), zero outside the candidates
// args    ConvArgs  ConvDxArgs  ConvDwArgs
// layout  row major with pitch `_ld`; bits in 32-bit words, column j is bit j%32 of word j/32; images are (channel, y, x),
//         rows of y (output, y, x), taps (channel, y, x)
// launch  *_plain: one thread per element of the output, 256 to a block; conv_tiled: one block of 256 per 64 outputs and 64
//         pixels of any images; conv_dw_tiled: one per 64 outputs, 64 taps and block of images, then conv_dw_finish: one
//         thread per element
// order   conv: taps j ascending from the bias; conv_dx: outputs, then taps, ascending; conv_dw_plain: one sum per image,
//         pixels ascending, then images; conv_dw_tiled: one sum per block of images, pixels ascending, then blocks
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    2*n*e*j flop; 4*(n*a + o*j + n*e) + o*j/8 bytes, u8 images n*a
// source  definition
#include "device.h"

// A pixel between 0 and 1, or as it is.
DEVICE float pixel_of(float v) { return v; }
DEVICE float pixel_of(unsigned char v) { return (float)v / 255.0f; }

// Rows and columns of an output image.
struct Size {
    unsigned rows, cols;
};
template <class A>
DEVICE Size out_size(const A& a) {
    Size size;
    size.rows = (a.height - a.kernel_h) / a.stride + 1u;
    size.cols = (a.width - a.kernel_w) / a.stride + 1u;
    return size;
}

// Offset in an image of tap `j`, seen from a window's upper left corner.
template <class A>
DEVICE unsigned tap_at(const A& a, unsigned j) {
    unsigned row = j / a.kernel_w;  // (channel, ky)
    return (row / a.kernel_h * a.height + row % a.kernel_h) * a.width + j % a.kernel_w;
}

// Offset in a channel of the upper left corner of the window of output `pixel`.
template <class A>
DEVICE unsigned window_at(const A& a, unsigned pixel, unsigned cols) {
    return (pixel / cols * a.width + pixel % cols) * a.stride;
}

// A tap of w ⊙ mask; an absent mask keeps all, and behind a cleared bit nothing is read.
template <class A>
DEVICE float tap_of(const A& a, unsigned o, unsigned j) {
    if (a.mask && !bit_of(row_of(a.mask, o, a.mask_ld), j)) return 0.0f;
    return row_of(a.w, o, a.w_ld)[j];
}

template <class T>
DEVICE void conv(ConvArgs<T> a) {
    size_t at = thread_of_line();
    if (at >= (size_t)a.n * a.e) return;
    Cell cell = cell_of(at, a.e);
    Size out = out_size(a);
    unsigned o = cell.col / (out.rows * out.cols), pixel = cell.col % (out.rows * out.cols);
    const T* x = row_of(a.x, cell.row, a.x_ld) + window_at(a, pixel, out.cols);
    bool biased = a.bias && (!a.bias_mask || bit_of(a.bias_mask, o));
    float sum = biased ? a.bias[o] : 0.0f;
    for (unsigned j = 0; j < a.j; j++) sum = __fmaf_rn(pixel_of(x[tap_at(a, j)]), tap_of(a, o, j), sum);
    row_of(a.y, cell.row, a.y_ld)[cell.col] = sum;
}
KERNEL(256) conv_plain(ConvArgs<float> a) { conv(a); }
KERNEL(256) conv_plain_u8(ConvArgs<unsigned char> a) { conv(a); }

KERNEL(256) conv_dx_plain(ConvDxArgs a) {
    size_t at = thread_of_line();
    if (at >= (size_t)a.n * a.a) return;
    Cell cell = cell_of(at, a.a);
    unsigned channel = cell.col / (a.height * a.width), y = cell.col / a.width % a.height, x = cell.col % a.width;
    Size out = out_size(a);
    float sum = 0.0f;
    for (unsigned o = 0; o < a.o; o++) {
        const float* dy = row_of(a.dy, cell.row, a.dy_ld) + (size_t)o * out.rows * out.cols;
        for (unsigned ky = 0; ky < a.kernel_h && ky <= y; ky++) {
            unsigned oy = (y - ky) / a.stride;
            if ((y - ky) % a.stride != 0u || oy >= out.rows) continue;
            for (unsigned kx = 0; kx < a.kernel_w && kx <= x; kx++) {
                unsigned ox = (x - kx) / a.stride;
                if ((x - kx) % a.stride != 0u || ox >= out.cols) continue;
                float tap = tap_of(a, o, (channel * a.kernel_h + ky) * a.kernel_w + kx);
                sum = __fmaf_rn(dy[oy * out.cols + ox], tap, sum);
            }
        }
    }
    row_of(a.dx, cell.row, a.dx_ld)[cell.col] = sum;
}

// Writes the gradients of a weight and of its score from that of w ⊙ mask.
template <class T>
DEVICE void put_dw(const ConvDwArgs<T>& a, Cell cell, float sum) {
    bool kept = !a.mask || bit_of(row_of(a.mask, cell.row, a.mask_ld), cell.col);
    row_of(a.dw, cell.row, a.dw_ld)[cell.col] = kept ? sum : 0.0f;
    if (!a.ds) return;
    float to_score = 0.0f;
    // Without a score there is nothing to pass a gradient to.
    if (a.score && (!a.candidates || bit_of(row_of(a.candidates, cell.row, a.candidates_ld), cell.col))) {
        float sign = sign_of(row_of(a.score, cell.row, a.score_ld)[cell.col]);
        to_score = sum * row_of(a.w, cell.row, a.w_ld)[cell.col] * sign;
    }
    row_of(a.ds, cell.row, a.ds_ld)[cell.col] = to_score;
}

template <class T>
DEVICE void conv_dw(ConvDwArgs<T> a) {
    size_t at = thread_of_line();
    if (at >= (size_t)a.o * a.j) return;
    Cell cell = cell_of(at, a.j);  // output, tap
    Size out = out_size(a);
    unsigned pixels = out.rows * out.cols;
    float sum = 0.0f;
    for (unsigned image = 0; image < a.n; image++) {
        const T* x = row_of(a.x, image, a.x_ld) + tap_at(a, cell.col);
        const float* dy = row_of(a.dy, image, a.dy_ld) + cell.row * pixels;
        float own = 0.0f;
        for (unsigned pixel = 0; pixel < pixels; pixel++) {
            own = __fmaf_rn(dy[pixel], pixel_of(x[window_at(a, pixel, out.cols)]), own);
        }
        sum += own;
    }
    put_dw(a, cell, sum);
}
KERNEL(256) conv_dw_plain(ConvDwArgs<float> a) { conv_dw(a); }
KERNEL(256) conv_dw_plain_u8(ConvDwArgs<unsigned char> a) { conv_dw(a); }

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
    const Size out = out_size(a);
    const unsigned pixels = out.rows * out.cols, first_o = blockIdx.y * TILE;
    const size_t first = (size_t)blockIdx.x * TILE, end = (size_t)a.n * pixels;
    // What this thread brings: every fourth tap of one pixel, four taps of one output.
    const unsigned own = threadIdx.x % TILE, own_o = threadIdx.x / 4u;
    const bool inside = first + own < end, inside_o = first_o + own_o < a.o;
    Cell place = cell_of(inside ? first + own : 0u, pixels);
    const T* x = row_of(a.x, place.row, a.x_ld) + window_at(a, place.col, out.cols);
    float4 sum[4];
    UNROLL for (unsigned y = 0; y < 4u; y++) {
        unsigned o = first_o + threadIdx.x / 16u * 4u + y;
        bool biased = o < a.o && a.bias && (!a.bias_mask || bit_of(a.bias_mask, o));
        float bias = biased ? a.bias[o] : 0.0f;
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
DEVICE Pixel pixel_at(const ConvDwArgs<T>& a, Size out, size_t at, size_t end) {
    Pixel pixel = {NO_PIXEL, 0u};
    if (at < end) {
        Cell cell = cell_of(at, out.rows * out.cols);
        pixel.dy = cell.row * a.dy_ld + cell.col;
        pixel.x = cell.row * a.x_ld + window_at(a, cell.col, out.cols);
    }
    return pixel;
}

// Rows are outputs, columns taps, terms the pixels of some images.
template <class T>
DEVICE void conv_dw_tile(const ConvDwArgs<T>& a) {
    __shared__ float4 grads[CHUNK * PITCH / 4u], patches[CHUNK * PITCH / 4u];
    __shared__ Pixel places[2][CHUNK];  // of this chunk and of the next
    const Size out = out_size(a);
    const unsigned pixels = out.rows * out.cols, first_o = blockIdx.y * TILE, first_j = blockIdx.x * TILE;
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
