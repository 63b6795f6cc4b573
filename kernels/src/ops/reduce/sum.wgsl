// op      sum                    y = sum of all entries
// args    x f32[r,c]  ->  y f32[1]
// layout  row major with pitch `_ld` from unit `_at`
// launch  blocks: one workgroup of 256 per 4096 entries; combine: one workgroup
// order   every 256th entry of a block ascending, then a tree; every 256th block ascending, then a tree; sums in two
//         parts
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    r*c flop; 4*r*c bytes
// source  definition; sums in two parts: Knuth, The Art of Computer Programming, volume 2, 4.2.2
struct Params {
    r: u32, c: u32,
    x_at: u32, x_ld: u32, y_at: u32, y_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(8) var<storage, read_write> work: array<u32>;
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
fn blocks(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let block = group.y * groups.x + group.x;
    let count = p.r * p.c;
    var sum = vec2<f32>();
    for (var i = 0u; i < 16u; i++) {
        let at = block * 4096u + i * 256u + lane;
        if (at < count) {
            let row = at / p.c;
            let col = at % p.c;
            sum = two_sum(sum, x[p.x_at + row * p.x_ld + col]);
        }
    }
    sum = sum_up(sum, lane);
    if (lane == 0u && block * 4096u < count) {
        work[2u * block] = bitcast<u32>(sum.x);
        work[2u * block + 1u] = bitcast<u32>(sum.y);
    }
}

@compute @workgroup_size(256)
fn combine(@builtin(local_invocation_index) lane: u32) {
    let count = (p.r * p.c + 4095u) / 4096u;
    var sum = vec2<f32>();
    for (var block = lane; block < count; block += 256u) {
        sum.y += bitcast<f32>(work[2u * block + 1u]);
        sum = two_sum(sum, bitcast<f32>(work[2u * block]));
    }
    sum = sum_up(sum, lane);
    if (lane == 0u) { y[p.y_at] = in_one(sum); }
}
