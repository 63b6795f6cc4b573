// Kernels of ops with one fault each in an operand of a product, which conformance must find.
#include "ends.h"
#include "../../../kernels/src/ops/packed_gemm/packed_gemm.cu"
#include "../../../kernels/src/ops/conv/conv_tiles.cu"
#undef TILE
#undef CHUNK
#undef PITCH
// Behind the others, for its macros.
#include "../../../kernels/src/ops/cosine/cosine_tiled.cu"

// An operand that is another one but for its chunks.
template <class M, class Change>
struct Faulty : M {
    Change change;
};
template <class M, class Change>
DEVICE Chunk chunk_of(const Faulty<M, Change>& m, unsigned row, unsigned col) {
    return m.change(m, row, col);
}

template <class T>
using Images = Windows<ConvArgs<T>>;
template <class T, class Change>
DEVICE void conv(const ConvArgs<T>& a, Change change) {
    Box out = out_size(a);
    auto w = matrix(a.w, a.w_ld, a.o, a.j, a.mask, a.mask_ld);
    auto finish = [&](unsigned o, unsigned col, float sum) {
        Cell cell = cell_of(col, out.count());
        row_of(a.y, cell.row, a.y_ld)[o * out.count() + cell.col] = sum_of_staged<T>(sum) + bias_of(a, o);
    };
    Faulty<Images<T>, Change> x = {windows_of(a, 0u, a.n), change};
    Mma<1, 32>::run<true, true>(blockIdx, w, x, [](unsigned) { return 0.0f; }, finish);
}

// Taps that go on to the right at the end of a row of the kernel.
KERNEL(256) unturned_taps(ConvArgs<float> a) {
    conv(a, [](const Images<float>& m, unsigned row, unsigned col) {
        Chunk chunk = {};
        if (row >= m.rows || col >= m.cols) return chunk;
        Point pixel = point_of(row, m.out), tap = point_of(col, {m.a.kernel_h, m.a.kernel_w});
        const float* window = row_of(m.a.x, pixel.box, m.a.x_ld) + window_at(m.a, pixel.row, pixel.col);
        for (unsigned j = 0; j < 4u && col + j < m.cols; j++) {
            unsigned at = tap_at(m.a, tap) + j, last = tap_at(m.a, point_of(m.cols - 1u, {m.a.kernel_h, m.a.kernel_w}));
            place(chunk, j, window[at < last ? at : last]);
        }
        return chunk;
    });
}

// Pixels of which one plane of three is left: what f32 is promised, bf16 does not hold.
KERNEL(256) one_plane(ConvArgs<float> a) {
    conv(a, [](const Images<float>& m, unsigned row, unsigned col) {
        Chunk chunk = chunk_of(m, row, col);
        for (unsigned j = 0; j < 4u; j++) chunk.word[j] &= 0xffff0000u;
        return chunk;
    });
}

// Half a chunk of u8, which is twice as many pixels as of f32.
KERNEL(256) half_a_chunk(ConvArgs<unsigned char> a) {
    conv(a, [](const Images<unsigned char>& m, unsigned row, unsigned col) {
        Chunk chunk = chunk_of(m, row, col);
        chunk.word[2] = chunk.word[3] = 0u;
        return chunk;
    });
}

// Gradients of the first images in every block of images.
KERNEL(256) first_images(ConvDwArgs<float> a) {
    a.dy -= (size_t)a.n * blockIdx.z / gridDim.z * a.dy_ld;
    conv_dw<Mma<1, 32>>(a);
}

// The taps of the first class for the pixels of every class.
KERNEL(256) first_class(ConvDxArgs<float> a) {
    Class of = class_of(a, blockIdx.z), first = of;
    first.row = first.col = 0u;
    auto finish = [&](unsigned channel, unsigned col, float sum) {
        Point pixel = point_of(col, of.pixels);
        unsigned y = of.row + pixel.row * a.stride, x = of.col + pixel.col * a.stride;
        row_of(a.dx, pixel.box, a.dx_ld)[(channel * a.height + y) * a.width + x] = sum;
    };
    auto dy = gradients_of(a, of, 0u, a.n);
    Mma<1, 32>::run<true, false>(blockIdx, weights_of(a, first), dy, [](unsigned) { return 0.0f; }, finish);
}

// One place for all rows of a thread.
struct Confused : Packed<2> {};
DEVICE Chunk nth_chunk_of(const Confused& m, unsigned, unsigned row, unsigned col) {
    return nth_chunk_of((const Packed<2>&)m, 0u, row, col);
}
KERNEL(256) one_place(PackedGemmArgs a) {
    using From = Staging<float, 64, 32, true>;
    Confused w = {{a, a.o, a.i, {}, {}}};
    for (unsigned n = 0; n < 2u; n++) {
        unsigned row = From::from_row(n, blockIdx.x * 64u, 0u);
        if (row < a.o) w.next[n] = a.row_start[row], w.end[n] = end_of(a, row);
    }
    auto x = matrix(a.x, a.x_ld, a.r, a.i);
    auto finish = [&](unsigned row, unsigned col, float sum) { row_of(a.y, row, a.y_ld)[col] = sum; };
    Mma<1, 32>::run<true, true>(blockIdx, x, w, [&](unsigned col) { return bias_of(a, col); }, finish);
}

// A query with the length of its neighbour.
KERNEL(256) neighbours_lengths(CosineArgs<float> a) {
    __shared__ Products products;
    products.compute(a, blockIdx);
    __syncthreads();
    unsigned row = threadIdx.x % 64u, m = blockIdx.x * 64u + row;
    for (unsigned query = threadIdx.x / 64u; query < 64u; query += 4u) {
        unsigned n = blockIdx.y * 64u + query, other = query ^ 1u;
        float length = products.q_length[other] * products.p_length[row];
        if (n < a.n && m < a.m) row_of(a.y, n, a.y_ld)[m] = products.at[query * 68u + row] / length;
    }
}

// f16 that are multiplied as bf16.
KERNEL(256) other_exponents(GemmArgs<f16> a) {
    auto x = matrix((const bf16*)a.x, a.x_ld, a.r, a.i), w = matrix((const bf16*)a.w, a.w_ld, a.o, a.i);
    auto finish = [&](unsigned row, unsigned col, float sum) { put_y(a, row, col, sum); };
    Mma<1, 32>::run<true, true>(blockIdx, x, w, [&](unsigned col) { return bias_of(a, col); }, finish);
}
