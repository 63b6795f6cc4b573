// op      conv                   valid cross-correlation of NCHW rows with w ⊙ mask, plus bias ⊙ bias_mask; u8 images are
//                                divided by 255
//         conv_dx                gradient of conv with respect to x
//         conv_dw                g = gradient of conv with respect to w ⊙ mask; dw = g ⊙ mask; ds = g ⊙ w ⊙
//                                sign(score), zero outside the candidates
// args    ConvArgs  ConvDxArgs  ConvDwArgs
// layout  row major with pitch `_ld`; bits in 32-bit words, column j is bit j%32 of word j/32; images are (channel, y, x),
//         rows of y (output, y, x), taps (channel, y, x); x, w and dy f32 or f16, or images u8, sums f32
// launch  plain: one thread per element of the output, 256 to a block
// order   conv: taps j ascending from the bias; conv_dx: outputs, then taps, ascending; conv_dw: one sum per image, pixels
//         ascending, then images
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    2*n*e*j flop; 4*(n*a + o*j + n*e) + o*j/8 bytes, u8 images n*a; with f16 2 for each element that is read
// source  definition
#include "conv.h"

template <class T>
DEVICE void conv(ConvArgs<T> a) {
    size_t at = thread_of_line();
    if (at >= (size_t)a.n * a.e) return;
    Cell cell = cell_of(at, a.e);
    Box out = out_size(a);
    unsigned o = cell.col / out.count(), pixel = cell.col % out.count();
    const T* x = row_of(a.x, cell.row, a.x_ld) + window_at(a, pixel, out);
    float sum = bias_of(a, o);
    for (unsigned j = 0; j < a.j; j++) sum = __fmaf_rn(pixel_of(x[tap_at(a, j)]), tap_of(a, o, j), sum);
    row_of(a.y, cell.row, a.y_ld)[cell.col] = sum;
}
KERNEL(256) conv_plain(ConvArgs<float> a) { conv(a); }
KERNEL(256) conv_plain_u8(ConvArgs<unsigned char> a) { conv(a); }
KERNEL(256) conv_plain_f16(ConvArgs<f16> a) { conv(a); }

template <class T>
DEVICE void conv_dx(ConvDxArgs<T> a) {
    size_t at = thread_of_line();
    if (at >= (size_t)a.n * a.a) return;
    Cell cell = cell_of(at, a.a);
    unsigned channel = cell.col / (a.height * a.width), y = cell.col / a.width % a.height, x = cell.col % a.width;
    Box out = out_size(a);
    float sum = 0.0f;
    for (unsigned o = 0; o < a.o; o++) {
        const T* dy = row_of(a.dy, cell.row, a.dy_ld) + (size_t)o * out.count();
        for (unsigned ky = 0; ky < a.kernel_h && ky <= y; ky++) {
            unsigned oy = (y - ky) / a.stride;
            if ((y - ky) % a.stride != 0u || oy >= out.rows) continue;
            for (unsigned kx = 0; kx < a.kernel_w && kx <= x; kx++) {
                unsigned ox = (x - kx) / a.stride;
                if ((x - kx) % a.stride != 0u || ox >= out.cols) continue;
                float tap = tap_of(a, o, (channel * a.kernel_h + ky) * a.kernel_w + kx);
                sum = __fmaf_rn(widened(dy[oy * out.cols + ox]), tap, sum);
            }
        }
    }
    row_of(a.dx, cell.row, a.dx_ld)[cell.col] = sum;
}
KERNEL(256) conv_dx_plain(ConvDxArgs<float> a) { conv_dx(a); }
KERNEL(256) conv_dx_plain_f16(ConvDxArgs<f16> a) { conv_dx(a); }

template <class T>
DEVICE void conv_dw(ConvDwArgs<T> a) {
    size_t at = thread_of_line();
    if (at >= (size_t)a.o * a.j) return;
    Cell cell = cell_of(at, a.j);  // output, tap
    Box out = out_size(a);
    unsigned pixels = out.count();
    float sum = 0.0f;
    for (unsigned image = 0; image < a.n; image++) {
        const T* x = row_of(a.x, image, a.x_ld) + tap_at(a, cell.col);
        const Beside<T>* dy = row_of(a.dy, image, a.dy_ld) + cell.row * pixels;
        float own = 0.0f;
        for (unsigned pixel = 0; pixel < pixels; pixel++) {
            own = __fmaf_rn(widened(dy[pixel]), pixel_of(x[window_at(a, pixel, out)]), own);
        }
        sum += own;
    }
    put_dw(a, cell, sum);
}
KERNEL(256) conv_dw_plain(ConvDwArgs<float> a) { conv_dw(a); }
KERNEL(256) conv_dw_plain_u8(ConvDwArgs<unsigned char> a) { conv_dw(a); }
KERNEL(256) conv_dw_plain_f16(ConvDwArgs<f16> a) { conv_dw(a); }
