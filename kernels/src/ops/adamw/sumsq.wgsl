// op      sumsq                  s = sum of g² over trainable entries
// args    g f32[o,i]  trainable bits[o,i]?  ->  s f32[1]
// layout  row major with pitch `_ld` from unit `_at`; rows of bits are 32-bit words, column j is bit j%32 of word j/32
// launch  blocks: one workgroup of 256 per 4096 entries; combine: one workgroup
// order   every 256th entry of a block ascending, then a tree; every 256th block ascending, then a tree; sums in two
//         parts
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    2*o*i flop; 4*o*i + o*i/8 bytes
// source  definition; sums in two parts: Knuth, The Art of Computer Programming, volume 2, 4.2.2
struct Params {
    o: u32, i: u32,
    g_at: u32, g_ld: u32, trainable_at: u32, trainable_ld: u32, s_at: u32, s_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> g: array<f32>;
@group(0) @binding(1) var<storage, read_write> trainable: array<u32>;
@group(0) @binding(2) var<storage, read_write> s: array<f32>;
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

@compute @workgroup_size(256)
fn blocks(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let block = group.y * groups.x + group.x;
    let count = p.o * p.i;
    var sum = vec2<f32>();
    for (var i = 0u; i < 16u; i++) {
        let at = block * 4096u + i * 256u + lane;
        if (at < count) {
            let row = at / p.i;
            let col = at % p.i;
            if (!has(1u) || bit_of(trainable[p.trainable_at + row * p.trainable_ld + col / 32u], col)) {
                let v = g[p.g_at + row * p.g_ld + col];
                sum = two_sum(sum, v * v);
            }
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
    let count = (p.o * p.i + 4095u) / 4096u;
    var sum = vec2<f32>();
    for (var block = lane; block < count; block += 256u) {
        sum.y += bitcast<f32>(work[2u * block + 1u]);
        sum = two_sum(sum, bitcast<f32>(work[2u * block]));
    }
    sum = sum_up(sum, lane);
    if (lane == 0u) { s[p.s_at] = in_one(sum); }
}
