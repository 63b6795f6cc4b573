// op      clip                   norm = sqrt(sum of s); factor = min(1, max_norm / (norm + 1e-6))
// args    s f32[n]  ->  norm f32[1]  factor f32[1]
// layout  row major with pitch `_ld` from unit `_at`
// launch  plain: one workgroup of 256
// order   every 256th element ascending, then a tree; sums in two parts
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    n flop; 4*n bytes
// source  definition
struct Params {
    n: u32, max_norm: f32,
    s_at: u32, s_ld: u32, norm_at: u32, norm_ld: u32, factor_at: u32, factor_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> s: array<f32>;
@group(0) @binding(1) var<storage, read_write> norm: array<f32>;
@group(0) @binding(2) var<storage, read_write> factor: array<f32>;
@group(0) @binding(9) var<uniform> p: Params;

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

@compute @workgroup_size(256)
fn plain(@builtin(local_invocation_index) lane: u32) {
    var sum = vec2<f32>();
    for (var j = lane; j < p.n; j += 256u) {
        sum = two_sum(sum, s[p.s_at + j]);
    }
    sum = sum_up(sum, lane);
    if (lane == 0u) {
        let length = sqrt(in_one(sum));
        let limit = bitcast<u32>(p.max_norm);
        // By bits: neither infinity nor NaN can be compared. Every other value turns clipping off.
        let on = limit > 0u && limit < 0x7f800000u;
        norm[p.norm_at] = length;
        factor[p.factor_at] = select(1.0, min(1.0, p.max_norm / (length + 1e-6)), on);
    }
}
