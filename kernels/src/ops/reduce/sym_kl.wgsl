// op      sym_kl                 kl = ½ (KL(p‖q) + KL(q‖p)) of diagonal Gaussians, in nats
// args    mean_p f32[d]  var_p f32[d]  mean_q f32[d]  var_q f32[d]  ->  kl f32[1]
// layout  row major with pitch `_ld` from unit `_at`
// launch  plain: one workgroup of 256
// order   every 256th element ascending, then a tree; sums in two parts
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    12*d flop; 16*d bytes
// source  closed form for Gaussians; Bishop, PRML (2006), exercise 2.13
struct Params {
    d: u32,
    mean_p_at: u32, mean_p_ld: u32, var_p_at: u32, var_p_ld: u32, mean_q_at: u32, mean_q_ld: u32,
    var_q_at: u32, var_q_ld: u32, kl_at: u32, kl_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> mean_p: array<f32>;
@group(0) @binding(1) var<storage, read_write> var_p: array<f32>;
@group(0) @binding(2) var<storage, read_write> mean_q: array<f32>;
@group(0) @binding(3) var<storage, read_write> var_q: array<f32>;
@group(0) @binding(4) var<storage, read_write> kl: array<f32>;
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
    for (var j = lane; j < p.d; j += 256u) {
        let vp = var_p[p.var_p_at + j];
        let vq = var_q[p.var_q_at + j];
        let apart = mean_p[p.mean_p_at + j] - mean_q[p.mean_q_at + j];
        // The logarithms of both directions cancel.
        let spread = (vp - vq) / vp * ((vp - vq) / vq);
        sum = two_sum(sum, 0.25 * (spread + apart * apart * (1.0 / vp + 1.0 / vq)));
    }
    sum = sum_up(sum, lane);
    if (lane == 0u) {
        kl[p.kl_at] = in_one(sum);
    }
}
