// What is done to one row that a warp holds in registers, and kernels that do several things to it while they hold it.
//
// A stage takes the row as the stage before left it, computes what a kernel of its own op computes, in the same order, stores
// all that this one stores, and leaves its output. What it reads besides was written by an earlier launch. A head is a kernel
// that computes rows and goes on with stages: WholeRows is that of products whose rows are short enough to be one tile.
#pragma once
#include "ends.h"
#include "product.h"

// A row of at most 128 * FOURS columns, lane l with columns 4 l, 4 l + 128, ..; 0 behind the last.
template <int FOURS>
struct Row {
    float4 at[FOURS];

    DEVICE_MEMBER void load(const float* row, unsigned ld, unsigned c) {
        bool fours = in_fours(row, ld) && c % 4u == 0u;
        UNROLL for (int n = 0; n < FOURS; n++) at[n] = load_four(row, column(n), c, fours);
    }
    DEVICE_MEMBER void store(float* row, unsigned ld, unsigned c) const {
        bool fours = in_fours(row, ld);
        UNROLL for (int n = 0; n < FOURS; n++) store_four(row, column(n), c, fours, at[n]);
    }
    DEVICE_MEMBER static unsigned column(int n) { return threadIdx.x % 32u * 4u + 128u * n; }
};

// f of every column below c, and of its place.
template <int FOURS, class F>
DEVICE void each(unsigned c, F f) {
    UNROLL for (int n = 0; n < FOURS; n++) {
        UNROLL for (int j = 0; j < 4; j++) {
            if (Row<FOURS>::column(n) + j < c) f(n, j);
        }
    }
}
DEVICE float& part(float4& v, int j) { return j == 0 ? v.x : j == 1 ? v.y : j == 2 ? v.z : v.w; }

// x becomes y. Lanes take four columns in turn, ascending, then lanes by halves.
template <int FOURS>
DEVICE void layernorm(const LayernormArgs<float>& a, size_t row, Row<FOURS>& x) {
    Row<FOURS> w, b = {};
    w.load(a.w, 4u, a.c);
    if (a.b) b.load(a.b, 4u, a.c);
    float own = 0.0f;
    each<FOURS>(a.c, [&](int n, int j) { own += part(x.at[n], j); });
    float mean = warp_sum(own) / (float)a.c;
    own = 0.0f;
    each<FOURS>(a.c, [&](int n, int j) {
        float apart = part(x.at[n], j) - mean;
        own = __fmaf_rn(apart, apart, own);
    });
    float rstd = 1.0f / sqrtf(warp_sum(own) / (float)a.c + __uint_as_float(a.eps));
    each<FOURS>(a.c, [&](int n, int j) {
        float& v = part(x.at[n], j);
        v = (v - mean) * rstd * part(w.at[n], j);
        if (a.b) v += part(b.at[n], j);
    });
    x.store(row_of(a.y, row, a.y_ld), a.y_ld, a.c);
    if (threadIdx.x % 32u == 0u) {
        float* stats = row_of(a.stats, row, a.stats_ld);
        stats[0] = mean;
        stats[1] = rstd;
    }
}

// g is dy and becomes dx; sums of dw and db are formed elsewhere.
template <int FOURS>
DEVICE void layernorm_dx(const LayernormDxArgs<float>& a, size_t row, Row<FOURS>& g) {
    Row<FOURS> x, w;
    x.load(row_of(a.x, row, a.x_ld), a.x_ld, a.c);
    w.load(a.w, 4u, a.c);
    const float* stats = row_of(a.stats, row, a.stats_ld);
    float mean = stats[0], rstd = stats[1], own = 0.0f, own_xhat = 0.0f;
    each<FOURS>(a.c, [&](int n, int j) {
        part(x.at[n], j) = (part(x.at[n], j) - mean) * rstd;
        part(g.at[n], j) *= part(w.at[n], j);
        own += part(g.at[n], j);
        own_xhat = __fmaf_rn(part(g.at[n], j), part(x.at[n], j), own_xhat);
    });
    float mean_g = warp_sum(own) / (float)a.c, mean_xhat = warp_sum(own_xhat) / (float)a.c;
    if (a.add) w.load(row_of(a.add, row, a.add_ld), a.add_ld, a.c);
    each<FOURS>(a.c, [&](int n, int j) {
        float value = rstd * (part(g.at[n], j) - mean_g - part(x.at[n], j) * mean_xhat);
        part(g.at[n], j) = a.add ? value + part(w.at[n], j) : value;
    });
    g.store(row_of(a.dx, row, a.dx_ld), a.dx_ld, a.c);
}

// A row of a stage.
using Held = Row<1>;

// What dropout leaves of a row of c elements.
DEVICE void drop(const Draw& draw, size_t row, unsigned c, Held& v) {
    size_t at = row * c + Held::column(0);
    unsigned first = at % 8u, kept = kept_of_block(draw, at / 8u);
    if (first > 4u) kept |= (unsigned)kept_of_block(draw, at / 8u + 1u) << 8u;
    each<1>(c, [&](int, int j) {
        float& own = part(v.at[0], j);
        own = kept >> (first + j) & 1u ? own * draw.scale : 0.0f;
    });
}

// The stages of a launch: for each its op and the struct of its call.
struct Stage {
    RowOp op;
    const void* call;
};
struct Stages {
    const Stage* at;
    unsigned long long count;
};
// The argument of a head: that of its own call, and what follows.
template <class Args>
struct Followed {
    Args call;
    Stages stages;
};

template <class Args>
DEVICE Args args_of(const Stage& stage) {
    return *(const Args*)stage.call;
}
DEVICE void read(Held& v, const float* from, size_t row, unsigned ld, unsigned c) { v.load(row_of(from, row, ld), ld, c); }
DEVICE void write(const Held& v, float* to, size_t row, unsigned ld, unsigned c) { v.store(row_of(to, row, ld), ld, c); }

// One stage of a row. Unless `held`, v is read.
DEVICE void run_stage(const Stage& stage, size_t row, bool held, Held& v) {
    Held other;
    switch (stage.op) {
        case RowOp::add: {
            auto a = args_of<AddArgs>(stage);
            if (!held) read(v, a.a, row, a.a_ld, a.c);
            read(other, a.b, row, a.b_ld, a.c);
            each<1>(a.c, [&](int, int j) { part(v.at[0], j) += part(other.at[0], j); });
            write(v, a.y, row, a.y_ld, a.c);
            break;
        }
        case RowOp::gelu: {
            auto a = args_of<GeluArgs>(stage);
            if (!held) read(v, a.x, row, a.x_ld, a.c);
            each<1>(a.c, [&](int, int j) { part(v.at[0], j) *= normal_cdf(part(v.at[0], j)).cdf; });
            write(v, a.y, row, a.y_ld, a.c);
            break;
        }
        case RowOp::gelu_dx: {
            auto a = args_of<GeluDxArgs>(stage);
            if (!held) read(v, a.dy, row, a.dy_ld, a.c);
            read(other, a.x, row, a.x_ld, a.c);
            each<1>(a.c, [&](int, int j) { part(v.at[0], j) *= gelu_slope(part(other.at[0], j)); });
            write(v, a.dx, row, a.dx_ld, a.c);
            break;
        }
        case RowOp::dropout: {
            auto a = args_of<DropoutArgs>(stage);
            if (!held) read(v, a.x, row, a.x_ld, a.c);
            drop(draw_of(a.rng, a.drop, a.call), row, a.c, v);
            if (a.add) {
                read(other, a.add, row, a.add_ld, a.c);
                each<1>(a.c, [&](int, int j) { part(v.at[0], j) = part(other.at[0], j) + part(v.at[0], j); });
            }
            write(v, a.y, row, a.y_ld, a.c);
            break;
        }
        case RowOp::dropout_dx: {
            auto a = args_of<DropoutDxArgs>(stage);
            if (!held) read(v, a.dy, row, a.dy_ld, a.c);
            drop(draw_of(a.rng, a.drop, a.call), row, a.c, v);
            write(v, a.dx, row, a.dx_ld, a.c);
            break;
        }
        case RowOp::layernorm: {
            auto a = args_of<LayernormArgs<float>>(stage);
            if (!held) read(v, a.x, row, a.x_ld, a.c);
            layernorm(a, row, v);
            break;
        }
        case RowOp::layernorm_dx: {
            auto a = args_of<LayernormDxArgs<float>>(stage);
            if (!held) read(v, a.dy, row, a.dy_ld, a.c);
            layernorm_dx(a, row, v);
            break;
        }
        case RowOp::interleave: {
            auto a = args_of<InterleaveArgs>(stage);
            size_t from = row / 3u;
            unsigned nth = row % 3u;
            read(v, nth == 0u ? a.x0 : nth == 1u ? a.x1 : a.x2, from, nth == 0u ? a.x0_ld : nth == 1u ? a.x1_ld : a.x2_ld, a.c);
            if (a.time) {
                read(other, a.time, from, a.time_ld, a.c);
                each<1>(a.c, [&](int, int j) { part(v.at[0], j) += part(other.at[0], j); });
            }
            write(v, a.y, row, a.y_ld, a.c);
            break;
        }
        case RowOp::select: {
            auto a = args_of<SelectArgs>(stage);
            read(v, a.x, row * a.stride + a.offset, a.x_ld, a.c);
            write(v, a.y, row, a.y_ld, a.c);
            break;
        }
        case RowOp::select_dx: {
            auto a = args_of<SelectDxArgs>(stage);
            v.at[0] = zeros();
            if (row % a.stride == a.offset) read(v, a.dy, row / a.stride, a.dy_ld, a.c);
            write(v, a.dx, row, a.dx_ld, a.c);
            break;
        }
    }
}

// All stages of a row; unless `held`, the first reads it.
DEVICE void run_stages(const Stages& stages, size_t row, bool held, Held& v) {
    ROLLED for (unsigned n = 0; n < stages.count; n++) run_stage(stages.at[n], row, held || n > 0u, v);
}

// The end of a row of a product, and what follows.
template <class A>
DEVICE void finish_y(const Followed<A>& all, unsigned row, Held& v) {
    const A& a = all.call;
    each<1>(a.o, [&](int, int j) { part(v.at[0], j) = activated(a, row, Held::column(0) + j, part(v.at[0], j)); });
    write(v, a.y, row, a.y_ld, a.o);
    run_stages(all.stages, row, true, v);
}
template <class A>
DEVICE void finish_dx(const Followed<A>& all, unsigned row, Held& v) {
    const A& a = all.call;
    if (a.slope) {
        Held slope;
        read(slope, a.slope, row, a.slope_ld, a.i);
        each<1>(a.i, [&](int, int j) { part(v.at[0], j) *= part(slope.at[0], j); });
    }
    write(v, a.dx, row, a.dx_ld, a.i);
    run_stages(all.stages, row, true, v);
}

// A product of f32 of at most 128 columns in tiles of 32 rows: warp w has rows 4 w .. 4 w + 3 of a tile, whole, lane l their
// columns 4 l .. 4 l + 3. Order of a sum as in Tiled: k ascending in steps of 16, one accumulator.
struct WholeRows {
    static constexpr unsigned ROWS = 32, STEP = 16, LEFT = ROWS + 4, RIGHT = 128 + 4, BUFFER = STEP * (LEFT + RIGHT);
    template <bool K_INNER>
    using Right = Staging<float, 128, STEP, K_INNER>;

    // The left tile is a chunk for each of 128 threads.
    DEVICE unsigned left_row() { return threadIdx.x / 4u; }
    DEVICE unsigned left_k() { return threadIdx.x % 4u * 4u; }

    // Both tiles, to rows of k.
    template <bool RIGHT_K>
    DEVICE void put(float* tile, const Chunk& left, const Chunk* right) {
        UNROLL for (unsigned j = 0; j < 4u; j++) {
            if (left_row() < ROWS) tile[(left_k() + j) * LEFT + left_row()] = __uint_as_float(left.word[j]);
        }
        tile += STEP * LEFT;
        UNROLL for (unsigned n = 0; n < Right<RIGHT_K>::COUNT; n++) {
            unsigned row = Right<RIGHT_K>::row(n), col = Right<RIGHT_K>::col(n);
            UNROLL for (unsigned j = 0; j < 4u; j++) {
                tile[RIGHT_K ? (col + j) * RIGHT + row : row * RIGHT + col + j] = __uint_as_float(right[n].word[j]);
            }
        }
    }

    // `start` gives the first value of the sums of a column; `finish` takes a row, its sums and all.
    template <bool RIGHT_K, class Start, class Finish>
    DEVICE void run(const Matrix<float>& left, const Matrix<float>& right, Start start, Finish finish) {
        DYN_SHARED(Chunk, shared);
        float* tiles = (float*)shared;
        unsigned depth = left.cols, n = RIGHT_K ? right.rows : right.cols, first = blockIdx.x * ROWS;
        unsigned own_row = threadIdx.x / 32u * 4u, own_col = Held::column(0);
        float4 from = zeros(), sum[4];
        UNROLL for (int j = 0; j < 4; j++) part(from, j) = own_col + j < n ? start(own_col + j) : 0.0f;
        UNROLL for (unsigned i = 0; i < 4u; i++) sum[i] = from;
        Chunk held_left = {}, held_right[Right<RIGHT_K>::COUNT];
        if (left_row() < ROWS) held_left = chunk_of(left, first + left_row(), left_k());
        Right<RIGHT_K>::load(held_right, right, 0, 0);
        put<RIGHT_K>(tiles, held_left, held_right);
        unsigned steps = (depth + STEP - 1) / STEP;
        for (unsigned step = 0; step < steps; step++) {
            const float* here = tiles + step % 2u * BUFFER;
            __syncthreads();
            unsigned next = (step + 1u) * STEP;
            if (left_row() < ROWS) held_left = chunk_of(left, first + left_row(), next + left_k());
            Right<RIGHT_K>::load(held_right, right, 0, next);
            UNROLL for (unsigned k = 0; k < STEP; k++) {
                float4 a = *(const float4*)(here + k * LEFT + own_row);
                float4 b = *(const float4*)(here + STEP * LEFT + k * RIGHT + own_col);
                UNROLL for (int i = 0; i < 4; i++) sum[i] = add_four(part(a, i), b, sum[i]);
            }
            put<RIGHT_K>(tiles + (step + 1u) % 2u * BUFFER, held_left, held_right);
        }
        // Rows one after the other, so that stages are in the kernel once; a thread reads again what it wrote.
        __syncthreads();
        float4* own = (float4*)shared + threadIdx.x;
        UNROLL for (unsigned i = 0; i < 4u; i++) own[256u * i] = sum[i];
        ROLLED for (unsigned i = 0; i < 4u; i++) {
            unsigned row = first + own_row + i;
            if (row >= left.rows) break;
            Held v;
            v.at[0] = own[256u * i];
            finish(row, v);
        }
    }
};
