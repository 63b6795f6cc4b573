// op      topk                   mask = base, plus the k candidates of largest |score|, lower index first on ties (ties
//                                = 1: every candidate not below the k-th)
// args    TopkArgs
// layout  row major with pitch `_ld`; rows of bits are 32-bit words, column j is bit j%32 of word j/32
// launch  topk_clear (one block); for digits of 11, 11 and 9 bits of the key: topk_count_* (a block of 256 per 8192
//         entries), topk_choose_* (one block); topk_ties (256 words to a block), topk_ties_before (one block),
//         topk_write (256 words); topk_block: all of these in turn by one block of 512, its workspace in shared memory
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

DEVICE void clear(const TopkArgs& a) {
    for (unsigned bin = threadIdx.x; bin < BINS; bin += blockDim.x) a.work[bin] = 0u;
    if (threadIdx.x == 0u) a.work[MODE] = UNSET;
}
BATCHED(256, topk_clear, TopkArgs) { clear(a); }

// Counts the digit `bits` wide above `shift` of the candidates' keys whose higher digits are known, in one of the blocks of
// entries.
#define ENTRIES 8192u
DEVICE void count_digit(const TopkArgs& a, unsigned block, unsigned shift, unsigned bits) {
    __shared__ unsigned counts[BINS];
    for (unsigned bin = threadIdx.x; bin < BINS; bin += blockDim.x) counts[bin] = 0u;
    __syncthreads();
    bool first = shift + bits == 31u;
    unsigned prefix = first ? 0u : a.work[PREFIX];
    if (first || a.work[MODE] == BY_KEY) {
        size_t from = (size_t)block * ENTRIES, count = (size_t)a.o * a.i;
        for (size_t at = from + threadIdx.x; at < from + ENTRIES && at < count; at += blockDim.x) {
            Cell cell = cell_of(at, a.i);
            if (a.candidates && !bit_of(row_of(a.candidates, cell.row, a.candidates_ld), cell.col)) continue;
            unsigned upper = key_of(a, cell.row, cell.col) >> shift;
            if (upper >> bits == prefix) atomicAdd(&counts[upper & ((1u << bits) - 1u)], 1u);
        }
    }
    __syncthreads();
    for (unsigned bin = threadIdx.x; bin < BINS; bin += blockDim.x) {
        if (counts[bin] > 0u) atomicAdd(&a.work[bin], counts[bin]);
    }
}
BATCHED(256, topk_count_high, TopkArgs) { count_digit(a, block.x, 20u, 11u); }
BATCHED(256, topk_count_middle, TopkArgs) { count_digit(a, block.x, 9u, 11u); }
BATCHED(256, topk_count_low, TopkArgs) { count_digit(a, block.x, 0u, 9u); }

// Finds the bin of the k-th key, appends it to the prefix, and clears the bins. 256 threads have eight of them each.
DEVICE void choose_digit(const TopkArgs& a, unsigned bits) {
    __shared__ unsigned eights[256];
    if (threadIdx.x < 256u) {
        unsigned own = 0u;
        for (unsigned j = 0; j < 8u; j++) own += a.work[8u * threadIdx.x + j];
        eights[threadIdx.x] = own;
    }
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
    for (unsigned bin = threadIdx.x; bin < BINS; bin += blockDim.x) a.work[bin] = 0u;
}
BATCHED(256, topk_choose_high, TopkArgs) { choose_digit(a, 11u); }
BATCHED(256, topk_choose_middle, TopkArgs) { choose_digit(a, 11u); }
BATCHED(256, topk_choose_low, TopkArgs) { choose_digit(a, 9u); }

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
    __shared__ unsigned sums[512];
    sums[threadIdx.x] = own;
    __syncthreads();
    for (unsigned step = 1; step < blockDim.x; step *= 2u) {
        unsigned other = threadIdx.x >= step ? sums[threadIdx.x - step] : 0u;
        __syncthreads();
        sums[threadIdx.x] += other;
        __syncthreads();
    }
    return sums[threadIdx.x] - own;
}

// Counts the entries at the k-th key in one of the blocks of words, a word to a thread.
DEVICE void count_ties(const TopkArgs& a, unsigned block) {
    size_t at = (size_t)block * blockDim.x + threadIdx.x;  // row, then word
    unsigned words = words_of(a), count = 0u;
    if (at < (size_t)a.o * words && a.work[MODE] == BY_KEY) {
        Cell cell = cell_of(at, words);
        count = __popc(found_in(a, cell.row, cell.col).equal);
    }
    unsigned before = sum_before(count);
    if (threadIdx.x == blockDim.x - 1u) a.work[TIES + block] = before + count;
}
BATCHED(256, topk_ties, TopkArgs) { count_ties(a, block.x); }

// Blocks of words, as many as a block has threads.
DEVICE unsigned word_blocks(const TopkArgs& a) {
    return (unsigned)(((size_t)a.o * words_of(a) + blockDim.x - 1u) / blockDim.x);
}

// Turns ties of each block into ties before it; a thread takes neighbouring blocks.
DEVICE void ties_before(const TopkArgs& a) {
    unsigned blocks = word_blocks(a), each = (blocks + blockDim.x - 1u) / blockDim.x;
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
BATCHED(256, topk_ties_before, TopkArgs) { ties_before(a); }

// The lowest `left` set bits of a word.
DEVICE unsigned lowest(unsigned bits, unsigned left) {
    if ((unsigned)__popc(bits) <= left) return bits;
    unsigned rest = bits;
    for (unsigned n = 0; n < left; n++) rest &= rest - 1u;
    return bits & ~rest;
}

// Writes one of the blocks of words.
DEVICE void write_words(const TopkArgs& a, unsigned block) {
    size_t at = (size_t)block * blockDim.x + threadIdx.x;  // row, then word
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
        before += a.work[TIES + block];
        unsigned most = a.work[LEFT];
        unsigned left = a.ties == 1u ? 32u : most > before ? most - before : 0u;
        kept = found.above | lowest(found.equal, left);
    }
    if (a.base) kept |= row_of(a.base, cell.row, a.base_ld)[cell.col];
    row_of(a.mask, cell.row, a.mask_ld)[cell.col] = kept;
}
BATCHED(256, topk_write, TopkArgs) { write_words(a, block.x); }

// Most blocks of words that `topk_block` has.
#define WORD_BLOCKS 128u

BATCHED(512, topk_block, TopkArgs) {
    __shared__ unsigned work[TIES + WORD_BLOCKS];
    TopkArgs own = a;
    own.work = work;
    unsigned blocks = (unsigned)(((size_t)a.o * a.i + ENTRIES - 1u) / ENTRIES);
    clear(own);
    __syncthreads();
    // Digits from the highest on: 11, 11 and 9 bits.
    for (unsigned shift = 20u;; shift = shift > 9u ? shift - 11u : 0u) {
        unsigned bits = shift == 0u ? 9u : 11u;
        for (unsigned nth = 0; nth < blocks; nth++) count_digit(own, nth, shift, bits);
        __syncthreads();
        choose_digit(own, bits);
        __syncthreads();
        if (shift == 0u) break;
    }
    for (unsigned nth = 0; nth < word_blocks(own); nth++) count_ties(own, nth);
    __syncthreads();
    ties_before(own);
    __syncthreads();
    for (unsigned nth = 0; nth < word_blocks(own); nth++) write_words(own, nth);
}
