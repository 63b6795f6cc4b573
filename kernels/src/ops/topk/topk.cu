// op      topk                   mask = base, plus the k candidates of largest |score|, lower index first on ties (ties
//                                = 1: every candidate not below the k-th)
// args    TopkArgs
// layout  row major with pitch `_ld`; rows of bits are 32-bit words, column j is bit j%32 of word j/32
// launch  topk_clear (one block); for digits of 11, 11 and 9 bits of the key: topk_count_* (a block of 256 per 8192
//         entries), topk_choose_* (one block); topk_ties (256 words to a block), topk_ties_before (one block),
//         topk_write (256 words)
// order   counts are integers, so their order does not matter; ties in index order by sums over blocks of words
// tol     exact
// cost    20*o*i + o*i/4 bytes
// source  kernels/src/ops/topk/cpu.rs
#include "device.h"

#define BINS 2048u
// Words of the workspace behind the bins: what choosing a digit leaves, then ties per block of 256 words.
#define PREFIX 2048u
#define LEFT 2049u
#define MODE 2050u
#define TIES 2051u
// Modes: `base` alone, entries by key, all candidates, not chosen yet.
enum { NONE, BY_KEY, ALL, UNSET };

// Words of a row.
DEVICE unsigned words_of(const TopkArgs& a) { return (a.i + 31u) / 32u; }

// Candidates among the 32 entries of a word of a row.
DEVICE unsigned open_of(const TopkArgs& a, size_t row, unsigned word) {
    unsigned rest = a.i - 32u * word;
    unsigned bits = rest < 32u ? (1u << rest) - 1u : 0xffffffffu;
    return a.candidates ? bits & row_of(a.candidates, row, a.candidates_ld)[word] : bits;
}

// Magnitude of a score as an integer; NaN ranks above infinity.
DEVICE unsigned key_of(const TopkArgs& a, size_t row, unsigned col) {
    return __float_as_uint(row_of(a.score, row, a.score_ld)[col]) & 0x7fffffffu;
}

KERNEL(256) topk_clear(TopkArgs a) {
    for (unsigned bin = threadIdx.x; bin < BINS; bin += 256u) a.work[bin] = 0u;
    if (threadIdx.x == 0u) a.work[MODE] = UNSET;
}

// Counts the digit `bits` wide above `shift` of the candidates' keys whose higher digits are known.
DEVICE void count_digit(const TopkArgs& a, unsigned shift, unsigned bits) {
    __shared__ unsigned counts[BINS];
    for (unsigned bin = threadIdx.x; bin < BINS; bin += 256u) counts[bin] = 0u;
    __syncthreads();
    bool first = shift + bits == 31u;
    unsigned prefix = first ? 0u : a.work[PREFIX];
    if (first || a.work[MODE] == BY_KEY) {
        size_t from = (size_t)blockIdx.x * 8192u + threadIdx.x, count = (size_t)a.o * a.i;
        for (size_t at = from; at < from + 8192u && at < count; at += 256u) {
            Cell cell = cell_of(at, a.i);
            if (a.candidates && !bit_of(row_of(a.candidates, cell.row, a.candidates_ld), cell.col)) continue;
            unsigned upper = key_of(a, cell.row, cell.col) >> shift;
            if (upper >> bits == prefix) atomicAdd(&counts[upper & ((1u << bits) - 1u)], 1u);
        }
    }
    __syncthreads();
    for (unsigned bin = threadIdx.x; bin < BINS; bin += 256u) {
        if (counts[bin] > 0u) atomicAdd(&a.work[bin], counts[bin]);
    }
}
KERNEL(256) topk_count_high(TopkArgs a) { count_digit(a, 20u, 11u); }
KERNEL(256) topk_count_middle(TopkArgs a) { count_digit(a, 9u, 11u); }
KERNEL(256) topk_count_low(TopkArgs a) { count_digit(a, 0u, 9u); }

// Finds the bin of the k-th key, appends it to the prefix, and clears the bins.
DEVICE void choose_digit(const TopkArgs& a, unsigned bits) {
    __shared__ unsigned eights[256];
    unsigned own = 0u;
    for (unsigned j = 0; j < 8u; j++) own += a.work[8u * threadIdx.x + j];
    eights[threadIdx.x] = own;
    __syncthreads();
    if (threadIdx.x == 0u) {
        if (a.work[MODE] == UNSET) {
            unsigned candidates = 0u, wanted = a.k[0];
            for (unsigned j = 0; j < 256u; j++) candidates += eights[j];
            a.work[MODE] = wanted == 0u ? NONE : wanted >= candidates ? ALL : BY_KEY;
            a.work[PREFIX] = 0u;
            a.work[LEFT] = wanted;
        }
        if (a.work[MODE] == BY_KEY) {
            unsigned left = a.work[LEFT], eight = 255u;
            for (; left > eights[eight]; eight--) left -= eights[eight];
            unsigned bin = 8u * eight + 7u;
            for (; left > a.work[bin]; bin--) left -= a.work[bin];
            a.work[PREFIX] = a.work[PREFIX] << bits | bin;
            a.work[LEFT] = left;
        }
    }
    __syncthreads();
    for (unsigned j = 0; j < 8u; j++) a.work[8u * threadIdx.x + j] = 0u;
}
KERNEL(256) topk_choose_high(TopkArgs a) { choose_digit(a, 11u); }
KERNEL(256) topk_choose_middle(TopkArgs a) { choose_digit(a, 11u); }
KERNEL(256) topk_choose_low(TopkArgs a) { choose_digit(a, 9u); }

// Entries of a word above the k-th key, and those at it.
struct Found {
    unsigned above, equal;
};
DEVICE Found found_in(const TopkArgs& a, size_t row, unsigned word) {
    unsigned cut = a.work[PREFIX], open = open_of(a, row, word);
    Found found = {0u, 0u};
    for (unsigned j = 0; j < 32u; j++) {
        if (!(open >> j & 1u)) continue;
        unsigned key = key_of(a, row, 32u * word + j);
        found.above |= (key > cut ? 1u : 0u) << j;
        found.equal |= (key == cut ? 1u : 0u) << j;
    }
    return found;
}

// Sum over the threads before this one.
DEVICE unsigned sum_before(unsigned own) {
    __shared__ unsigned sums[256];
    sums[threadIdx.x] = own;
    __syncthreads();
    for (unsigned step = 1; step < 256u; step *= 2u) {
        unsigned other = threadIdx.x >= step ? sums[threadIdx.x - step] : 0u;
        __syncthreads();
        sums[threadIdx.x] += other;
        __syncthreads();
    }
    return sums[threadIdx.x] - own;
}

KERNEL(256) topk_ties(TopkArgs a) {
    size_t at = thread_of_line();  // row, then word
    unsigned words = words_of(a), count = 0u;
    if (at < (size_t)a.o * words && a.work[MODE] == BY_KEY) {
        Cell cell = cell_of(at, words);
        count = __popc(found_in(a, cell.row, cell.col).equal);
    }
    unsigned before = sum_before(count);
    if (threadIdx.x == 255u) a.work[TIES + blockIdx.x] = before + count;
}

// Turns ties of each block into ties before it; a thread takes neighbouring blocks.
KERNEL(256) topk_ties_before(TopkArgs a) {
    unsigned blocks = (unsigned)(((size_t)a.o * words_of(a) + 255u) / 256u), each = (blocks + 255u) / 256u;
    unsigned first = threadIdx.x * each < blocks ? threadIdx.x * each : blocks;
    unsigned end = first + each < blocks ? first + each : blocks;
    unsigned own = 0u;
    for (unsigned block = first; block < end; block++) own += a.work[TIES + block];
    unsigned before = sum_before(own);
    for (unsigned block = first; block < end; block++) {
        unsigned count = a.work[TIES + block];
        a.work[TIES + block] = before;
        before += count;
    }
}

// The lowest `left` set bits of a word.
DEVICE unsigned lowest(unsigned bits, unsigned left) {
    if ((unsigned)__popc(bits) <= left) return bits;
    unsigned rest = bits;
    for (unsigned n = 0; n < left; n++) rest &= rest - 1u;
    return bits & ~rest;
}

KERNEL(256) topk_write(TopkArgs a) {
    size_t at = thread_of_line();  // row, then word
    unsigned words = words_of(a), mode = a.work[MODE];
    bool inside = at < (size_t)a.o * words;
    Cell cell = {0, 0u};
    Found found = {0u, 0u};
    if (inside) cell = cell_of(at, words);
    if (inside && mode == BY_KEY) found = found_in(a, cell.row, cell.col);
    unsigned before = sum_before(__popc(found.equal));
    if (!inside) return;
    unsigned kept = 0u;
    if (mode == ALL) kept = open_of(a, cell.row, cell.col);
    if (mode == BY_KEY) {
        before += a.work[TIES + blockIdx.x];
        unsigned most = a.work[LEFT];
        unsigned left = a.ties == 1u ? 32u : most > before ? most - before : 0u;
        kept = found.above | lowest(found.equal, left);
    }
    if (a.base) kept |= row_of(a.base, cell.row, a.base_ld)[cell.col];
    row_of(a.mask, cell.row, a.mask_ld)[cell.col] = kept;
}
