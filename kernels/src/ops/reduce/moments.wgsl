// op      moments                mean and population variance of every column, variance at least floor
// args    x f32[r,c]  ->  mean f32[c]  var f32[c]
// layout  row major with pitch `_ld` from unit `_at`
// launch  plain: one workgroup of 16 columns by 16 invocations
// order   two passes: every 16th row ascending, then a tree; sums and means in two parts
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    4*r*c flop; 8*r*c bytes
// source  definition
struct Params {
    r: u32, c: u32, floor: f32,
    x_at: u32, x_ld: u32, mean_at: u32, mean_ld: u32, var_at: u32, var_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> mean: array<f32>;
@group(0) @binding(2) var<storage, read_write> var_: array<f32>;
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

// Sum over the 16 invocations of a column, in a fixed tree; all of them get it.
fn sum_of_column(mine: vec2<f32>, local: vec3<u32>) -> vec2<f32> {
    parts[local.y * 16u + local.x] = mine;
    workgroupBarrier();
    for (var half = 8u; half > 0u; half /= 2u) {
        if (local.y < half) {
            let other = parts[(local.y + half) * 16u + local.x];
            let at = local.y * 16u + local.x;
            parts[at] = two_sum(parts[at] + vec2<f32>(0.0, other.y), other.x);
        }
        workgroupBarrier();
    }
    let sum = parts[local.x];
    workgroupBarrier();
    return sum;
}

@compute @workgroup_size(16, 16)
fn plain(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    let col = (group.y * groups.x + group.x) * 16u + local.x;
    let count = f32(max(p.r, 1u));
    let rows = select(0u, p.r, col < p.c);
    var sum = vec2<f32>();
    for (var row = local.y; row < rows; row += 16u) { sum = two_sum(sum, x[p.x_at + row * p.x_ld + col]); }
    sum = sum_of_column(sum, local);
    // What the division leaves over keeps a large mean from eating a small variance.
    let centre = in_one(sum) / count;
    let rest = (fma(-centre, count, sum.x) + sum.y) / count;
    var spread = vec2<f32>();
    for (var row = local.y; row < rows; row += 16u) {
        let apart = as_is(x[p.x_at + row * p.x_ld + col] - centre) - rest;
        spread = two_sum(spread, apart * apart);
    }
    spread = sum_of_column(spread, local);
    if (col < p.c && local.y == 0u) {
        mean[p.mean_at + col] = centre;
        var_[p.var_at + col] = max(in_one(spread) / count, p.floor);
    }
}
