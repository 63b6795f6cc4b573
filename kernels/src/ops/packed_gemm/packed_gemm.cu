// op      packed_gemm            y = x wᵀ + bias with w as packed rows: row o holds value[row_start[o] .. row_start[o
//         + 1]] at columns col
// args    PackedGemmArgs
// layout  row major with pitch `_ld`
// launch  plain: one thread per y, 256 to a block; by_warps: a warp per column and 16 rows of y, which read every weight once;
//         tiled and mma: 256 threads to 64 x 64 of y, weights spread out in shared memory; dynamic shared memory
// order   plain: kept weights ascending from the bias, one accumulator; by_warps: kept weights ascending by 32 within a
//         lane, lanes as warp_sum, the bias; tiled: as plain; mma: as product.h
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    2*r*n flop; 4*(r*i + r*o + o) + 4*n bytes. by_warps: bound by what it reads of weights, as few rows have nothing else;
//         with more rows by a load of x for every product. tiled and mma: 2*r*i*o flop however few weights are kept (mma six
//         times), bound by those; a row of weights is read by the 4 (mma 8) threads that have its columns, once for 64 rows
// source  definition
#include "product.h"

DEVICE float bias_of(const PackedGemmArgs& a, unsigned col) { return a.bias ? a.bias[col] : 0.0f; }
// Where the weights of a row end. Row starts are data: nothing behind the last weight is read.
DEVICE unsigned end_of(const PackedGemmArgs& a, unsigned row) {
    return a.row_start[row + 1u] < a.n ? a.row_start[row + 1u] : a.n;
}

KERNEL(256) packed_gemm_plain(PackedGemmArgs a) {
    size_t at = thread_of_line();
    if (at >= (size_t)a.r * a.o) return;
    Cell cell = cell_of(at, a.o);
    const float* x = row_of(a.x, cell.row, a.x_ld);
    float sum = bias_of(a, cell.col);
    unsigned end = end_of(a, cell.col);
    for (unsigned k = a.row_start[cell.col]; k < end; k++) {
        // Columns are data: one that x does not have counts nothing, and is not read.
        if (a.col[k] < a.i) sum = __fmaf_rn(x[a.col[k]], widened(a.value[k]), sum);
    }
    row_of(a.y, cell.row, a.y_ld)[cell.col] = sum;
}

KERNEL(256) packed_gemm_by_warps(PackedGemmArgs a) {
    constexpr unsigned ROWS = 16;
    unsigned lane = threadIdx.x % 32u, col = blockIdx.x * 8u + threadIdx.x / 32u, first = blockIdx.y * ROWS;
    if (col >= a.o) return;  // the whole warp
    unsigned rows = a.r - first < ROWS ? a.r - first : ROWS;
    unsigned end = end_of(a, col);
    float sum[ROWS] = {};
    for (unsigned k = a.row_start[col] + lane; k < end; k += 32u) {
        unsigned from = a.col[k];
        if (from >= a.i) continue;
        float value = widened(a.value[k]);
#pragma unroll
        for (unsigned row = 0; row < ROWS; row++) {
            if (row < rows) sum[row] = __fmaf_rn(row_of(a.x, first + row, a.x_ld)[from], value, sum[row]);
        }
    }
    float own = 0.0f;  // lane j keeps the sum of row j
#pragma unroll
    for (unsigned row = 0; row < ROWS; row++) {
        float all = warp_sum(sum[row]);
        own = lane == row ? all : own;
    }
    if (lane < rows) row_of(a.y, first + lane, a.y_ld)[col] = own + bias_of(a, col);
}

// The packed rows as a matrix [o, i] whose chunks a thread asks for with columns ascending: for each of its rows it keeps the
// next weight and the end.
template <unsigned COUNT>
struct Packed {
    using Element = float;
    static constexpr bool COPIED = false;
    const PackedGemmArgs& a;
    unsigned rows, cols;
    mutable unsigned next[COUNT], end[COUNT];
};
template <unsigned COUNT>
DEVICE Chunk nth_chunk_of(const Packed<COUNT>& m, unsigned n, unsigned, unsigned col) {
    Chunk chunk = {};
    unsigned at = m.next[n], end = m.end[n];
    // Those before are of other threads.
    while (at < end && m.a.col[at] < col) at++;
#pragma unroll
    for (unsigned j = 0; j < 4u; j++) {
        if (at < end && col + j < m.cols && m.a.col[at] == col + j) place(chunk, j, widened(m.a.value[at++]));
    }
    m.next[n] = at;
    return chunk;
}

template <class How, int STEP>
DEVICE void packed_gemm(const PackedGemmArgs& a) {
    using From = Staging<float, How::SIDE, STEP, true>;
    Packed<From::COUNT> w = {a, a.o, a.i, {}, {}};
#pragma unroll
    for (unsigned n = 0; n < From::COUNT; n++) {
        unsigned row = From::from_row(n, blockIdx.x * How::SIDE, 0u);
        if (row >= a.o) continue;
        w.next[n] = a.row_start[row];
        w.end[n] = end_of(a, row);
    }
    auto x = matrix(a.x, a.x_ld, a.r, a.i);
    auto start = [&](unsigned col) { return bias_of(a, col); };
    auto finish = [&](unsigned row, unsigned col, float sum) { row_of(a.y, row, a.y_ld)[col] = sum; };
    How::template run<true, true>(blockIdx, x, w, start, finish);
}
KERNEL(256) packed_gemm_tiled(PackedGemmArgs a) { packed_gemm<Tiled<1>, 16>(a); }
KERNEL(256) packed_gemm_mma(PackedGemmArgs a) { packed_gemm<Mma<1, 32>, 32>(a); }
