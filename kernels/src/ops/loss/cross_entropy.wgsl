// op      cross_entropy          loss = mean over rows with target != 2^32 - 1 of -log softmax(logits over allowed
//                                actions)[target]; 0 if there is none
// args    logits f32[r,a]  target u32[r]  allowed bits[a]?  ->  loss f32[1]  logprob f32[r,a]?
// layout  row major with pitch `_ld` from unit `_at`; rows of bits are 32-bit words, column j is bit j%32 of word j/32
// launch  rows: one invocation per row; combine: one workgroup of 256
// order   actions ascending; every 256th row ascending, then a tree; sums in two parts
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    4*r*a flop; 8*r*a + 8*r bytes
// source  definition; ln(1 + u) as in FreeBSD, msun/src/s_log1pf.c
struct Params {
    r: u32, a: u32,
    logits_at: u32, logits_ld: u32, target_at: u32, target_ld: u32, allowed_at: u32, allowed_ld: u32,
    loss_at: u32, loss_ld: u32, logprob_at: u32, logprob_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> logits: array<f32>;
@group(0) @binding(1) var<storage, read_write> target_: array<u32>;
@group(0) @binding(2) var<storage, read_write> allowed: array<u32>;
@group(0) @binding(3) var<storage, read_write> loss: array<f32>;
@group(0) @binding(4) var<storage, read_write> logprob: array<f32>;
@group(0) @binding(8) var<storage, read_write> work: array<u32>;
@group(0) @binding(9) var<uniform> p: Params;

fn has(arg: u32) -> bool {
    return ((p.present >> arg) & 1u) == 1u;
}

// Bit of column `at` in the word that holds it.
fn bit_of(word: u32, at: u32) -> bool {
    return ((word >> (at % 32u)) & 1u) == 1u;
}

// The value itself, which no compiler may cancel against another: bit 31 of `present` is never set.
fn as_is(v: f32) -> f32 {
    return bitcast<f32>(bitcast<u32>(v) ^ (p.present & 0x80000000u));
}

// Adds to a sum in two parts: its value, and what rounding left over (Knuth).
fn two_sum(sum: vec2<f32>, v: f32) -> vec2<f32> {
    let total = as_is(sum.x + v);
    let part = as_is(total - sum.x);
    return vec2<f32>(total, sum.y + ((sum.x - as_is(total - part)) + (v - part)));
}

// The two parts in one; an infinite sum has no second part.
fn in_one(sum: vec2<f32>) -> f32 {
    let finite = (bitcast<u32>(sum.y) & 0x7f800000u) != 0x7f800000u;
    return select(sum.x, sum.x + sum.y, finite);
}

var<workgroup> parts: array<vec2<f32>, 256>;

// Sum over the 256 invocations of a workgroup, in a fixed tree; invocation 0 gets it.
fn sum_up(mine: vec2<f32>, lane: u32) -> vec2<f32> {
    parts[lane] = mine;
    workgroupBarrier();
    for (var half = 128u; half > 0u; half /= 2u) {
        if (lane < half) {
            let other = parts[lane + half];
            parts[lane] = two_sum(parts[lane] + vec2<f32>(0.0, other.y), other.x);
        }
        workgroupBarrier();
    }
    return parts[0];
}

fn allows(action: u32) -> bool {
    return !has(2u) || bit_of(allowed[p.allowed_at + action / 32u], action);
}

// True if the target of a row is an existing, allowed action.
fn counts(row: u32) -> bool {
    let action = target_[p.target_at + row];
    return action < p.a && allows(action);
}

fn logit_of(row: u32, action: u32) -> f32 {
    return logits[p.logits_at + row * p.logits_ld + action];
}

// The first of the largest allowed logits of a row; `a` if there is none.
fn top_of(row: u32) -> u32 {
    var top = p.a;
    for (var j = 0u; j < p.a; j++) {
        if (allows(j) && (top == p.a || logit_of(row, j) > logit_of(row, top))) { top = j; }
    }
    return top;
}

// ln(1 + u) for u >= 0, within 2 ulp.
fn ln_1p(u: f32) -> f32 {
    var f = u;
    var k = 0.0;
    if (u >= 0.41421354) {
        // 1 + u = 2^k (1 + f), with 1 + f between sqrt(1/2) and sqrt(2).
        let bits = bitcast<u32>(1.0 + u) + (0x3f800000u - 0x3f3504f3u);
        k = f32(i32(bits >> 23u) - 127);
        f = bitcast<f32>((bits & 0x007fffffu) + 0x3f3504f3u) - 1.0;
    }
    let s = f / (2.0 + f);
    let z = s * s;
    let square = 0.5 * f * f;
    let series = z * (0.6666666 + z * (0.40000972 + z * (0.28498787 + z * 0.24279079)));
    return s * (square + series) + k * 9.058001e-6 - square + f + k * 0.6931381;
}

@compute @workgroup_size(64)
fn rows(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let row = id.y * groups.x * 64u + id.x;
    if (row >= p.r) { return; }
    let top = top_of(row);
    // Exponents beside the largest, so that a loss near zero keeps its digits.
    var others = 0.0;
    var largest = 0.0;
    if (top < p.a) { largest = logit_of(row, top); }
    for (var j = 0u; j < p.a; j++) {
        if (allows(j) && j != top) { others += exp(logit_of(row, j) - largest); }
    }
    let norm = ln_1p(others);
    var loss_of_row = 0.0;
    if (counts(row)) { loss_of_row = norm - (logit_of(row, target_[p.target_at + row]) - largest); }
    work[row] = bitcast<u32>(loss_of_row);
    if (!has(4u)) { return; }
    for (var j = 0u; j < p.a; j++) {
        var v = -1e30;
        if (allows(j)) { v = (logit_of(row, j) - largest) - norm; }
        logprob[p.logprob_at + row * p.logprob_ld + j] = v;
    }
}

@compute @workgroup_size(256)
fn combine(@builtin(local_invocation_index) lane: u32) {
    var sum = vec2<f32>();
    var counted = vec2<f32>();
    for (var row = lane; row < p.r; row += 256u) {
        if (counts(row)) {
            sum = two_sum(sum, bitcast<f32>(work[row]));
            counted.x += 1.0;
        }
    }
    sum = sum_up(sum, lane);
    workgroupBarrier();
    counted = sum_up(counted, lane);
    if (lane == 0u) { loss[p.loss_at] = in_one(sum) / max(in_one(counted), 1.0); }
}
