// op      conv                   valid cross-correlation of NCHW rows with w ⊙ mask, plus bias ⊙ bias_mask; u8 images are
//                                divided by 255
//         conv_dx                gradient of conv with respect to x
//         conv_dw                g = gradient of conv with respect to w ⊙ mask; dw = g ⊙ mask; ds = g ⊙ w ⊙
//                                sign(score), zero outside the candidates
// args    ConvArgs  ConvDxArgs  ConvDwArgs
// layout  row major with pitch `_ld`; bits in 32-bit words, column j is bit j%32 of word j/32; images are (channel, y, x),
//         rows of y (output, y, x), taps (channel, y, x)
// launch  one thread per element of the output, 256 to a block
// order   conv: taps j ascending from the bias; conv_dx: outputs, then taps, ascending; conv_dw: one sum per image, pixels
//         ascending, then images
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
KERNEL(256) conv_dw_plain(ConvDwArgs<float> a) { conv_dw(a); }
KERNEL(256) conv_dw_plain_u8(ConvDwArgs<unsigned char> a) { conv_dw(a); }
