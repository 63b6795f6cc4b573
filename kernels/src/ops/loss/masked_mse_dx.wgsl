// op      masked_mse_dx          dpred = dloss 2 active (pred - target) / (sum active max(1, valid rows)) at valid
//                                rows, else 0
// args    pred f32[r,a]  target f32[r,a]  valid u8[r]  active f32[a]?  dloss f32[1]  ->  dpred f32[r,a]
// layout  row major with pitch `_ld` from unit `_at`; four u8 to a word, the lowest byte first
// launch  scale: one workgroup of 256; plain: one invocation per element, 64 to a workgroup
// order   sum of active: every 256th ascending, then a tree
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    3*r*a flop; 12*r*a + r bytes
// source  definition
struct Params {
    r: u32, a: u32,
    pred_at: u32, pred_ld: u32, target_at: u32, target_ld: u32, valid_at: u32, valid_ld: u32,
    active_at: u32, active_ld: u32, dloss_at: u32, dloss_ld: u32, dpred_at: u32, dpred_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> pred: array<f32>;
@group(0) @binding(1) var<storage, read_write> target_: array<f32>;
@group(0) @binding(2) var<storage, read_write> valid: array<u32>;
@group(0) @binding(3) var<storage, read_write> active_: array<f32>;
@group(0) @binding(4) var<storage, read_write> dloss: array<f32>;
@group(0) @binding(5) var<storage, read_write> dpred: array<f32>;
@group(0) @binding(8) var<storage, read_write> work: array<u32>;
@group(0) @binding(9) var<uniform> p: Params;

fn has(arg: u32) -> bool {
    return ((p.present >> arg) & 1u) == 1u;
}

// Byte `at % 4` of a word.
fn byte_of(word: u32, at: u32) -> u32 {
    return (word >> (8u * (at % 4u))) & 0xffu;
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

// True if a row counts.
fn counts_row(row: u32) -> bool {
    return byte_of(valid[(p.valid_at + row) / 4u], p.valid_at + row) != 0u;
}

fn active_of(col: u32) -> f32 {
    if (!has(3u)) { return 1.0; }
    return active_[p.active_at + col];
}

// pred - target, or 0 where the dimension has no weight: padding there is not read.
fn error_of(row: u32, col: u32) -> f32 {
    if (active_of(col) == 0.0) { return 0.0; }
    return pred[p.pred_at + row * p.pred_ld + col] - target_[p.target_at + row * p.target_ld + col];
}

// sum active * max(1, valid rows), by one workgroup; no active dimension counts as one. Invocation 0 gets it.
fn divisor(lane: u32) -> f32 {
    var weight = vec2<f32>();
    for (var col = lane; col < p.a; col += 256u) { weight = two_sum(weight, active_of(col)); }
    let per_row = in_one(sum_up(weight, lane));
    workgroupBarrier();
    var rows = vec2<f32>();
    for (var row = lane; row < p.r; row += 256u) { rows.x += select(0.0, 1.0, counts_row(row)); }
    rows = sum_up(rows, lane);
    workgroupBarrier();
    return select(per_row, 1.0, per_row == 0.0) * max(in_one(rows), 1.0);
}

@compute @workgroup_size(256)
fn scale(@builtin(local_invocation_index) lane: u32) {
    let under = divisor(lane);
    if (lane == 0u) { work[0] = bitcast<u32>(2.0 * dloss[p.dloss_at] / under); }
}

@compute @workgroup_size(64)
fn plain(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = id.y * groups.x * 64u + id.x;
    if (at >= p.r * p.a) { return; }
    let row = at / p.a;
    let col = at % p.a;
    var v = 0.0;
    if (counts_row(row)) { v = bitcast<f32>(work[0]) * active_of(col) * error_of(row, col); }
    dpred[p.dpred_at + row * p.dpred_ld + col] = v;
}
