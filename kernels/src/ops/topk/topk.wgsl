// op      topk                   mask = base, plus the k candidates of largest |score|, lower index first on ties (ties
//                                = 1: every candidate not below the k-th)
// args    score f32[o,i]  candidates bits[o,i]?  base bits[o,i]?  k u32[1]  ->  mask bits[o,i]
// layout  row major with pitch `_ld` from unit `_at`; rows of bits are 32-bit words, column j is bit j%32 of word j/32
// launch  clear; for digits of 11, 11 and 9 bits of the key: count (a workgroup of 256 per 8192 entries), choose (one
//         workgroup); ties_of_blocks (256 words to a workgroup), ties_before_blocks (one workgroup), write_words (256
//         words)
// order   counts are integers, so their order does not matter; ties in index order by sums over blocks of words
// tol     exact
// cost    20*o*i + o*i/4 bytes
// source  kernels/src/ops/topk/cpu.rs
struct Params {
    o: u32, i: u32, ties: u32,
    score_at: u32, score_ld: u32, candidates_at: u32, candidates_ld: u32, base_at: u32, base_ld: u32,
    k_at: u32, k_ld: u32, mask_at: u32, mask_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> score: array<f32>;
@group(0) @binding(1) var<storage, read_write> candidates: array<u32>;
@group(0) @binding(2) var<storage, read_write> base: array<u32>;
@group(0) @binding(3) var<storage, read_write> k: array<u32>;
@group(0) @binding(4) var<storage, read_write> mask: array<u32>;
@group(0) @binding(8) var<storage, read_write> work: array<atomic<u32>>;
@group(0) @binding(9) var<uniform> p: Params;

const BINS: u32 = 2048u;
// Words of `work` after the bins: what choosing a digit leaves behind, then ties per block of 256 words.
const PREFIX: u32 = 2048u;
const LEFT: u32 = 2049u;
const MODE: u32 = 2050u;
const TIES: u32 = 2051u;
// Modes: `base` alone, entries by key, all candidates, not chosen yet.
const NONE: u32 = 0u;
const BY_KEY: u32 = 1u;
const ALL: u32 = 2u;
const UNSET: u32 = 3u;

fn has(arg: u32) -> bool {
    return ((p.present >> arg) & 1u) == 1u;
}

// Candidates among the 32 entries of word `word` of a row.
fn open_of(row: u32, word: u32) -> u32 {
    let rest = p.i - 32u * word;
    var bits = select(0xffffffffu, (1u << (rest % 32u)) - 1u, rest < 32u);
    if (has(1u)) { bits &= candidates[p.candidates_at + row * p.candidates_ld + word]; }
    return bits;
}

// Magnitude of a score as an integer; NaN ranks above infinity.
fn key_of(row: u32, col: u32) -> u32 {
    return bitcast<u32>(score[p.score_at + row * p.score_ld + col]) & 0x7fffffffu;
}

var<workgroup> counts_of_group: array<atomic<u32>, 2048>;

// Counts the digit `bits` wide above `shift` of the candidates' keys whose higher digits are known.
fn count_digit(block: u32, lane: u32, shift: u32, bits: u32) {
    for (var bin = lane; bin < BINS; bin += 256u) { atomicStore(&counts_of_group[bin], 0u); }
    workgroupBarrier();
    let first = shift + bits == 31u;
    let by_key = first || atomicLoad(&work[MODE]) == BY_KEY;
    let prefix = select(atomicLoad(&work[PREFIX]), 0u, first);
    for (var i = 0u; i < 32u; i++) {
        let at = block * 8192u + i * 256u + lane;
        if (by_key && at < p.o * p.i) {
            let row = at / p.i;
            let col = at % p.i;
            if (((open_of(row, col / 32u) >> (col % 32u)) & 1u) == 1u) {
                let upper = key_of(row, col) >> shift;
                if ((upper >> bits) == prefix) { atomicAdd(&counts_of_group[upper & ((1u << bits) - 1u)], 1u); }
            }
        }
    }
    workgroupBarrier();
    for (var bin = lane; bin < BINS; bin += 256u) {
        let count = atomicLoad(&counts_of_group[bin]);
        if (count > 0u) { atomicAdd(&work[bin], count); }
    }
}

var<workgroup> eights: array<u32, 256>;

// Finds the bin of the k-th key among 2048, appends it to the prefix, and clears the bins.
fn choose_digit(lane: u32, bits: u32) {
    var mine = 0u;
    for (var j = 0u; j < 8u; j++) { mine += atomicLoad(&work[8u * lane + j]); }
    eights[lane] = mine;
    workgroupBarrier();
    if (lane == 0u) {
        if (atomicLoad(&work[MODE]) == UNSET) {
            var candidates_in_all = 0u;
            for (var j = 0u; j < 256u; j++) { candidates_in_all += eights[j]; }
            let wanted = k[p.k_at];
            var mode = BY_KEY;
            if (wanted == 0u) { mode = NONE; } else if (wanted >= candidates_in_all) { mode = ALL; }
            atomicStore(&work[MODE], mode);
            atomicStore(&work[PREFIX], 0u);
            atomicStore(&work[LEFT], wanted);
        }
        if (atomicLoad(&work[MODE]) == BY_KEY) {
            var left = atomicLoad(&work[LEFT]);
            var eight = 255u;
            while (left > eights[eight]) {
                left -= eights[eight];
                eight -= 1u;
            }
            var bin = 8u * eight + 7u;
            while (left > atomicLoad(&work[bin])) {
                left -= atomicLoad(&work[bin]);
                bin -= 1u;
            }
            atomicStore(&work[PREFIX], (atomicLoad(&work[PREFIX]) << bits) | bin);
            atomicStore(&work[LEFT], left);
        }
    }
    storageBarrier();
    workgroupBarrier();
    for (var j = 0u; j < 8u; j++) { atomicStore(&work[8u * lane + j], 0u); }
}

// Entries of a word above the cut, and those at it.
fn above_and_equal(row: u32, word: u32) -> vec2<u32> {
    let cut = atomicLoad(&work[PREFIX]);
    var found = vec2<u32>();
    let open = open_of(row, word);
    for (var j = 0u; j < 32u; j++) {
        if (((open >> j) & 1u) == 1u) {
            let key = key_of(row, 32u * word + j);
            found |= vec2<u32>(select(0u, 1u, key > cut), select(0u, 1u, key == cut)) << vec2<u32>(j);
        }
    }
    return found;
}

// Exclusive sum over the 256 invocations of a workgroup.
fn sum_before(mine: u32, lane: u32) -> u32 {
    eights[lane] = mine;
    workgroupBarrier();
    for (var step = 1u; step < 256u; step *= 2u) {
        var other = 0u;
        if (lane >= step) { other = eights[lane - step]; }
        workgroupBarrier();
        eights[lane] += other;
        workgroupBarrier();
    }
    return eights[lane] - mine;
}

// The lowest `left` set bits of a word.
fn lowest(bits: u32, left: u32) -> u32 {
    if (countOneBits(bits) <= left) { return bits; }
    var rest = bits;
    for (var n = 0u; n < left; n++) { rest &= rest - 1u; }
    return bits & ~rest;
}

@compute @workgroup_size(256)
fn clear(@builtin(local_invocation_index) lane: u32) {
    for (var bin = lane; bin < BINS; bin += 256u) { atomicStore(&work[bin], 0u); }
    if (lane == 0u) { atomicStore(&work[MODE], UNSET); }
}

@compute @workgroup_size(256)
fn count_high(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    count_digit(group.y * groups.x + group.x, lane, 20u, 11u);
}

@compute @workgroup_size(256)
fn choose_high(@builtin(local_invocation_index) lane: u32) {
    choose_digit(lane, 11u);
}

@compute @workgroup_size(256)
fn count_middle(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    count_digit(group.y * groups.x + group.x, lane, 9u, 11u);
}

@compute @workgroup_size(256)
fn choose_middle(@builtin(local_invocation_index) lane: u32) {
    choose_digit(lane, 11u);
}

@compute @workgroup_size(256)
fn count_low(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    count_digit(group.y * groups.x + group.x, lane, 0u, 9u);
}

@compute @workgroup_size(256)
fn choose_low(@builtin(local_invocation_index) lane: u32) {
    choose_digit(lane, 9u);
}

@compute @workgroup_size(256)
fn ties_of_blocks(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let block = group.y * groups.x + group.x;
    let words = (p.i + 31u) / 32u;
    let at = block * 256u + lane;
    var count = 0u;
    if (at < p.o * words && atomicLoad(&work[MODE]) == BY_KEY) {
        count = countOneBits(above_and_equal(at / words, at % words).y);
    }
    let before = sum_before(count, lane);
    if (lane == 255u && block * 256u < p.o * words) { atomicStore(&work[TIES + block], before + count); }
}

// Turns ties per block into ties before each block; an invocation takes neighbouring blocks.
@compute @workgroup_size(256)
fn ties_before_blocks(@builtin(local_invocation_index) lane: u32) {
    let blocks = (p.o * ((p.i + 31u) / 32u) + 255u) / 256u;
    let each = (blocks + 255u) / 256u;
    let end = min(blocks, (lane + 1u) * each);
    var mine = 0u;
    for (var block = lane * each; block < end; block++) { mine += atomicLoad(&work[TIES + block]); }
    var before = sum_before(mine, lane);
    for (var block = lane * each; block < end; block++) {
        let count = atomicLoad(&work[TIES + block]);
        atomicStore(&work[TIES + block], before);
        before += count;
    }
}

@compute @workgroup_size(256)
fn write_words(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let block = group.y * groups.x + group.x;
    let words = (p.i + 31u) / 32u;
    let at = block * 256u + lane;
    let inside = at < p.o * words;
    let mode = atomicLoad(&work[MODE]);
    var found = vec2<u32>();
    if (inside && mode == BY_KEY) { found = above_and_equal(at / words, at % words); }
    var before = sum_before(countOneBits(found.y), lane);
    if (!inside) { return; }
    let row = at / words;
    let word = at % words;
    var kept = 0u;
    if (mode == ALL) { kept = open_of(row, word); }
    if (mode == BY_KEY) {
        before += atomicLoad(&work[TIES + block]);
        var left = 0xffffffffu;
        if (p.ties != 1u) { left = max(atomicLoad(&work[LEFT]), before) - before; }
        kept = found.x | lowest(found.y, left);
    }
    if (has(2u)) { kept |= base[p.base_at + row * p.base_ld + word]; }
    mask[p.mask_at + row * p.mask_ld + word] = kept;
}
