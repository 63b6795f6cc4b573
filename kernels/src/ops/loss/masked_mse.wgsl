// op      masked_mse             loss = sum over valid rows of (sum_a active (pred - target)^2 / sum active) / max(1,
//                                valid rows)
// args    pred f32[r,a]  target f32[r,a]  valid u8[r]  active f32[a]?  ->  loss f32[1]
// layout  row major with pitch `_ld` from unit `_at`; four u8 to a word, the lowest byte first
// launch  rows: one invocation per row; combine: one workgroup of 256
// order   dimensions ascending; every 256th row ascending, then a tree; sums in two parts
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    3*r*a flop; 8*r*a + r bytes
// source  definition
struct Params {
    r: u32, a: u32,
    pred_at: u32, pred_ld: u32, target_at: u32, target_ld: u32, valid_at: u32, valid_ld: u32,
    active_at: u32, active_ld: u32, loss_at: u32, loss_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> pred: array<f32>;
@group(0) @binding(1) var<storage, read_write> target_: array<f32>;
@group(0) @binding(2) var<storage, read_write> valid: array<u32>;
@group(0) @binding(3) var<storage, read_write> active_: array<f32>;
@group(0) @binding(4) var<storage, read_write> loss: array<f32>;
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

@compute @workgroup_size(64)
fn rows(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let row = id.y * groups.x * 64u + id.x;
    if (row >= p.r) { return; }
    var sum = vec2<f32>();
    if (counts_row(row)) {
        for (var col = 0u; col < p.a; col++) {
            let error = error_of(row, col);
            sum = two_sum(sum, active_of(col) * error * error);
        }
    }
    work[row] = bitcast<u32>(in_one(sum));
}

@compute @workgroup_size(256)
fn combine(@builtin(local_invocation_index) lane: u32) {
    let scale = divisor(lane);
    var sum = vec2<f32>();
    for (var row = lane; row < p.r; row += 256u) { sum = two_sum(sum, bitcast<f32>(work[row])); }
    sum = sum_up(sum, lane);
    if (lane == 0u) { loss[p.loss_at] = in_one(sum) / scale; }
}
