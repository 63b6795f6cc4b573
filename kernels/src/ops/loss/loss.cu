// op      cross_entropy          loss = mean over rows with target != 2^32 - 1 of -log softmax(logits over allowed
//                                actions)[target]; 0 if there is none
//         cross_entropy_dx       dlogits = dloss (softmax - onehot) / count at counted rows, else 0
//         masked_mse             loss = sum over valid rows of (sum_a active (pred - target)^2 / sum active) / max(1,
//                                valid rows)
//         masked_mse_dx          dpred = dloss 2 active (pred - target) / (sum active max(1, valid rows)) at valid
//                                rows, else 0
// args    CrossEntropyArgs  CrossEntropyDxArgs  MaskedMseArgs  MaskedMseDxArgs
// layout  row major with pitch `_ld`; rows of bits are 32-bit words, column j is bit j%32 of word j/32
// launch  rows: one thread per row, 128 to a block; masked_mse_dx_plain: one thread per element; combine, count, scale: one
//         block of 256
// order   actions ascending; then every 256th row ascending, lanes of a warp by halves, warps ascending, in f64
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    cross entropy 4*r*a flop; 8*r*a + 8*r bytes; masked_mse 3*r*a flop; 8*r*a + r bytes; dx 4*r*a bytes more
// source  definition; ln(1 + u) as in FreeBSD, msun/src/s_log1pf.c
#include "device.h"

// What both passes of cross entropy ask of a row.
template <class A>
DEVICE bool allows(const A& a, unsigned action) {
    return !a.allowed || bit_of(a.allowed, action);
}

// True if the target of a row is an existing, allowed action.
template <class A>
DEVICE bool counts(const A& a, size_t row) {
    return a.target[row] < a.a && allows(a, a.target[row]);
}

// The first of the largest allowed logits of a row; `a` if there is none.
template <class A>
DEVICE unsigned top_of(const A& a, const float* logits) {
    unsigned top = a.a;
    for (unsigned j = 0; j < a.a; j++) {
        if (allows(a, j) && (top == a.a || logits[j] > logits[top])) top = j;
    }
    return top;
}

KERNEL(128) cross_entropy_rows(CrossEntropyArgs a) {
    size_t row = thread_of_line();
    if (row >= a.r) return;
    const float* logits = row_of(a.logits, row, a.logits_ld);
    unsigned top = top_of(a, logits);
    float largest = top < a.a ? logits[top] : 0.0f;
    // Exponents beside the largest, so that a loss near zero keeps its digits.
    float others = 0.0f;
    for (unsigned j = 0; j < a.a; j++) {
        if (allows(a, j) && j != top) others += exp_nonpos(logits[j] - largest);
    }
    float norm = ln_1p(others);
    a.work[row] = __float_as_uint(counts(a, row) ? norm - (logits[a.target[row]] - largest) : 0.0f);
    if (!a.logprob) return;
    float* logprob = row_of(a.logprob, row, a.logprob_ld);
    for (unsigned j = 0; j < a.a; j++) logprob[j] = allows(a, j) ? (logits[j] - largest) - norm : -1e30f;
}

KERNEL(256) cross_entropy_combine(CrossEntropyArgs a) {
    __shared__ double shared[32];
    double sum = 0.0, counted = 0.0;
    for (size_t row = threadIdx.x; row < a.r; row += 256u) {
        if (!counts(a, row)) continue;
        sum += __uint_as_float(a.work[row]);
        counted += 1.0;
    }
    sum = block_sum(sum, shared);
    counted = block_sum(counted, shared);
    if (threadIdx.x == 0u) a.loss[0] = (float)(sum / (counted > 1.0 ? counted : 1.0));
}

KERNEL(256) cross_entropy_dx_count(CrossEntropyDxArgs a) {
    __shared__ double shared[32];
    double counted = 0.0;
    for (size_t row = threadIdx.x; row < a.r; row += 256u) counted += counts(a, row) ? 1.0 : 0.0;
    counted = block_sum(counted, shared);
    if (threadIdx.x == 0u) a.work[0] = __float_as_uint((float)(a.dloss[0] / (counted > 1.0 ? counted : 1.0)));
}

KERNEL(128) cross_entropy_dx_rows(CrossEntropyDxArgs a) {
    size_t row = thread_of_line();
    if (row >= a.r) return;
    const float* logits = row_of(a.logits, row, a.logits_ld);
    float* dlogits = row_of(a.dlogits, row, a.dlogits_ld);
    if (!counts(a, row)) {
        for (unsigned j = 0; j < a.a; j++) dlogits[j] = 0.0f;
        return;
    }
    unsigned hit = a.target[row];
    float largest = logits[top_of(a, logits)];
    // softmax - 1 of the target is the share of the others, without cancellation.
    float others = 0.0f;
    for (unsigned j = 0; j < a.a; j++) {
        if (allows(a, j) && j != hit) others += exp_nonpos(logits[j] - largest);
    }
    float total = others + exp_nonpos(logits[hit] - largest);
    float scale = __uint_as_float(a.work[0]);
    for (unsigned j = 0; j < a.a; j++) {
        float v = 0.0f;
        if (j == hit) {
            v = -scale * (others / total);
        } else if (allows(a, j)) {
            v = scale * (exp_nonpos(logits[j] - largest) / total);
        }
        dlogits[j] = v;
    }
}

template <class A>
DEVICE float active_of(const A& a, unsigned col) {
    return a.active ? a.active[col] : 1.0f;
}

// pred - target, or 0 where the dimension has no weight: padding there is not read.
template <class A>
DEVICE float error_of(const A& a, size_t row, unsigned col) {
    if (active_of(a, col) == 0.0f) return 0.0f;
    return row_of(a.pred, row, a.pred_ld)[col] - row_of(a.target, row, a.target_ld)[col];
}

// sum active * max(1, valid rows), by one block of 256; no active dimension counts as one. All threads get it.
template <class A>
DEVICE double divisor(const A& a, double* shared) {
    double weight = 0.0, rows = 0.0;
    for (unsigned col = threadIdx.x; col < a.a; col += 256u) weight += active_of(a, col);
    for (size_t row = threadIdx.x; row < a.r; row += 256u) rows += a.valid[row] != 0u ? 1.0 : 0.0;
    weight = block_sum(weight, shared);
    rows = block_sum(rows, shared);
    return (weight == 0.0 ? 1.0 : weight) * (rows > 1.0 ? rows : 1.0);
}

KERNEL(128) masked_mse_rows(MaskedMseArgs a) {
    size_t row = thread_of_line();
    if (row >= a.r) return;
    double sum = 0.0;
    if (a.valid[row] != 0u) {
        for (unsigned col = 0; col < a.a; col++) {
            double error = error_of(a, row, col);
            sum += active_of(a, col) * error * error;
        }
    }
    a.work[row] = __float_as_uint((float)sum);
}

KERNEL(256) masked_mse_combine(MaskedMseArgs a) {
    __shared__ double shared[32];
    double under = divisor(a, shared), sum = 0.0;
    for (size_t row = threadIdx.x; row < a.r; row += 256u) sum += __uint_as_float(a.work[row]);
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0u) a.loss[0] = (float)(sum / under);
}

KERNEL(256) masked_mse_dx_scale(MaskedMseDxArgs a) {
    __shared__ double shared[32];
    double under = divisor(a, shared);
    if (threadIdx.x == 0u) a.work[0] = __float_as_uint((float)(2.0 * a.dloss[0] / under));
}

KERNEL(256) masked_mse_dx_plain(MaskedMseDxArgs a) {
    size_t at = thread_of_line();
    if (at >= (size_t)a.r * a.a) return;
    Cell cell = cell_of(at, a.a);
    float v = 0.0f;
    if (a.valid[cell.row] != 0u) {
        v = __uint_as_float(a.work[0]) * active_of(a, cell.col) * error_of(a, cell.row, cell.col);
    }
    row_of(a.dpred, cell.row, a.dpred_ld)[cell.col] = v;
}
