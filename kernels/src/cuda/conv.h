// Convolutions: where things lie, and the operands of their products, which exist nowhere as a whole. Their chunks are gathered
// while a tile is staged (product.h).
//
//   Windows    x: a row for every output pixel of every image, a column for every tap
//   Gradients  dy: a row for every output and tap of a class, a column for every pixel of it; what no window saw is 0
//   Weights    w ⊙ mask: a row for every channel, a column for every output and tap of a class
//
// A class is what lies apart by whole strides, among the pixels of an image and among the taps of a kernel: the gradient of a
// pixel comes through the taps of its own class alone. So conv_dx is one product for every class, without the zeros between
// strides.
#pragma once
#include "product.h"

// A pixel between 0 and 1, or as it is.
DEVICE float pixel_of(float v) { return v; }
DEVICE float pixel_of(f16 v) { return widened(v); }
DEVICE float pixel_of(unsigned char v) { return (float)v / 255.0f; }

// Pixels in products: those of u8 are whole numbers, which bf16 holds exactly, and what they are divided by comes at the end.
DEVICE float staged(float v) { return v; }
DEVICE bf16 staged(unsigned char v) {
    bf16 whole = {(unsigned short)(__float_as_uint((float)v) >> 16)};
    return whole;
}
template <class T>
DEVICE float sum_of_staged(float sum) {
    return sizeof(T) == 1u ? sum / 255.0f : sum;
}

// Places that are numbered: boxes of rows x cols, one after the other.
struct Box {
    unsigned rows, cols;
    DEVICE_MEMBER unsigned count() const { return rows * cols; }
};
struct Point {
    unsigned box, row, col;
};
DEVICE Point point_of(unsigned at, Box size) {
    unsigned line = at / size.cols;
    return {line / size.rows, line % size.rows, at % size.cols};
}
DEVICE void advance(Point& at, Box size) {
    if (++at.col < size.cols) return;
    at.col = 0u;
    if (++at.row < size.rows) return;
    at.row = 0u;
    at.box++;
}

// Rows and columns of an output image.
template <class A>
DEVICE Box out_size(const A& a) {
    return {(a.height - a.kernel_h) / a.stride + 1u, (a.width - a.kernel_w) / a.stride + 1u};
}

// Offset in an image of a tap, seen from a window's upper left corner.
template <class A>
DEVICE unsigned tap_at(const A& a, Point tap) {
    return (tap.box * a.height + tap.row) * a.width + tap.col;
}
template <class A>
DEVICE unsigned tap_at(const A& a, unsigned j) {
    return tap_at(a, point_of(j, {a.kernel_h, a.kernel_w}));
}

// Offset in a channel of the upper left corner of the window of an output pixel.
template <class A>
DEVICE unsigned window_at(const A& a, unsigned row, unsigned col) {
    return (row * a.width + col) * a.stride;
}
template <class A>
DEVICE unsigned window_at(const A& a, unsigned pixel, Box out) {
    return window_at(a, pixel / out.cols, pixel % out.cols);
}

// A tap of w ⊙ mask; an absent mask keeps all, and behind a cleared bit nothing is read.
template <class A>
DEVICE float tap_of(const A& a, unsigned o, unsigned j) {
    if (a.mask && !bit_of(row_of(a.mask, o, a.mask_ld), j)) return 0.0f;
    return widened(row_of(a.w, o, a.w_ld)[j]);
}

template <class T>
DEVICE float bias_of(const ConvArgs<T>& a, unsigned o) {
    return a.bias && (!a.bias_mask || bit_of(a.bias_mask, o)) ? a.bias[o] : 0.0f;
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
        to_score = sum * widened(row_of(a.w, cell.row, a.w_ld)[cell.col]) * sign;
    }
    row_of(a.ds, cell.row, a.ds_ld)[cell.col] = to_score;
}

// Images from `first` on, `count` of them.
template <class A>
struct Windows {
    using Element = decltype(staged(*A().x));
    static constexpr bool COPIED = false;
    const A& a;
    Box out;
    size_t first;
    unsigned rows, cols;
};
template <class A>
DEVICE Windows<A> windows_of(const A& a, size_t first, unsigned count) {
    Box out = out_size(a);
    return {a, out, first, count * out.count(), a.j};
}
template <class A>
DEVICE Chunk chunk_of(const Windows<A>& m, unsigned row, unsigned col) {
    constexpr unsigned COUNT = 16u / sizeof(typename Windows<A>::Element);
    Chunk chunk = {};
    if (row >= m.rows || col >= m.cols) return chunk;
    Box kernel = {m.a.kernel_h, m.a.kernel_w};
    Point pixel = point_of(row, m.out), tap = point_of(col, kernel);
    auto window = row_of(m.a.x, m.first + pixel.box, m.a.x_ld) + window_at(m.a, pixel.row, pixel.col);
#pragma unroll
    for (unsigned j = 0; j < COUNT; j++) {
        if (col + j < m.cols) place(chunk, j, staged(window[tap_at(m.a, tap)]));
        advance(tap, kernel);
    }
    return chunk;
}

// Pixels and taps of a class; outputs themselves are a class with one tap.
struct Class {
    Box pixels, taps;
    unsigned row, col;  // its first pixel, and its first tap
};
DEVICE unsigned count_of_class(unsigned first, unsigned end, unsigned stride) {
    return first < end ? (end - first - 1u) / stride + 1u : 0u;
}
DEVICE Class class_of(const ConvDxArgs<float>& a, unsigned number) {
    unsigned across = a.stride < a.width ? a.stride : a.width, row = number / across, col = number % across;
    return {{count_of_class(row, a.height, a.stride), count_of_class(col, a.width, a.stride)},
            {count_of_class(row, a.kernel_h, a.stride), count_of_class(col, a.kernel_w, a.stride)},
            row,
            col};
}

template <class A>
struct Gradients {
    using Element = float;
    static constexpr bool COPIED = false;
    const A& a;
    Class of;
    Box out;
    size_t first;
    unsigned rows, cols;
};
template <class A>
DEVICE Gradients<A> gradients_of(const A& a, const Class& of, size_t first, unsigned count) {
    return {a, of, out_size(a), first, a.o * of.taps.count(), count * of.pixels.count()};
}
template <class A>
DEVICE Chunk chunk_of(const Gradients<A>& m, unsigned row, unsigned col) {
    Chunk chunk = {};
    if (row >= m.rows || col >= m.cols) return chunk;
    Point tap = point_of(row, m.of.taps), pixel = point_of(col, m.of.pixels);
    const float* dy = m.a.dy + tap.box * m.out.count();
#pragma unroll
    for (unsigned j = 0; j < 4u; j++) {
        // Before the first they are more than any size.
        unsigned y = pixel.row - tap.row, x = pixel.col - tap.col;
        bool seen = col + j < m.cols && y < m.out.rows && x < m.out.cols;
        if (seen) place(chunk, j, row_of(dy, m.first + pixel.box, m.a.dy_ld)[y * m.out.cols + x]);
        advance(pixel, m.of.pixels);
    }
    return chunk;
}

struct Weights {
    using Element = float;
    static constexpr bool COPIED = false;
    const ConvDxArgs<float>& a;
    Class of;
    unsigned rows, cols;
};
DEVICE Weights weights_of(const ConvDxArgs<float>& a, const Class& of) {
    return {a, of, a.channels, a.o * of.taps.count()};
}
DEVICE Chunk chunk_of(const Weights& m, unsigned row, unsigned col) {
    Chunk chunk = {};
    if (row >= m.rows || col >= m.cols) return chunk;
    Point tap = point_of(col, m.of.taps);
#pragma unroll
    for (unsigned j = 0; j < 4u; j++) {
        unsigned ky = m.of.row + tap.row * m.a.stride, kx = m.of.col + tap.col * m.a.stride;
        if (col + j < m.cols) place(chunk, j, tap_of(m.a, tap.box, (row * m.a.kernel_h + ky) * m.a.kernel_w + kx));
        advance(tap, m.of.taps);
    }
    return chunk;
}
