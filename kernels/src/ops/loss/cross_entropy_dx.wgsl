// op      cross_entropy_dx       dlogits = dloss (softmax - onehot) / count at counted rows, else 0
// args    logits f32[r,a]  target u32[r]  allowed bits[a]?  dloss f32[1]  ->  dlogits f32[r,a]
// layout  row major with pitch `_ld` from unit `_at`; rows of bits are 32-bit words, column j is bit j%32 of word j/32
// launch  count: one workgroup of 256; rows: one invocation per row
// order   actions ascending
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    4*r*a flop; 8*r*a + 8*r bytes
// source  definition
struct Params {
    r: u32, a: u32,
    logits_at: u32, logits_ld: u32, target_at: u32, target_ld: u32, allowed_at: u32, allowed_ld: u32,
    dloss_at: u32, dloss_ld: u32, dlogits_at: u32, dlogits_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> logits: array<f32>;
@group(0) @binding(1) var<storage, read_write> target_: array<u32>;
@group(0) @binding(2) var<storage, read_write> allowed: array<u32>;
@group(0) @binding(3) var<storage, read_write> dloss: array<f32>;
@group(0) @binding(4) var<storage, read_write> dlogits: array<f32>;
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

@compute @workgroup_size(256)
fn count(@builtin(local_invocation_index) lane: u32) {
    var counted = vec2<f32>();
    for (var row = lane; row < p.r; row += 256u) { counted.x += select(0.0, 1.0, counts(row)); }
    counted = sum_up(counted, lane);
    if (lane == 0u) { work[0] = bitcast<u32>(dloss[p.dloss_at] / max(in_one(counted), 1.0)); }
}

@compute @workgroup_size(64)
fn rows(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let row = id.y * groups.x * 64u + id.x;
    if (row >= p.r) { return; }
    let to = p.dlogits_at + row * p.dlogits_ld;
    if (!counts(row)) {
        for (var j = 0u; j < p.a; j++) { dlogits[to + j] = 0.0; }
        return;
    }
    let hit = target_[p.target_at + row];
    let largest = logit_of(row, top_of(row));
    // softmax - 1 of the target is the share of the others, without cancellation.
    var others = 0.0;
    for (var j = 0u; j < p.a; j++) {
        if (allows(j) && j != hit) { others += exp(logit_of(row, j) - largest); }
    }
    let total = others + exp(logit_of(row, hit) - largest);
    let scale = bitcast<f32>(work[0]);
    for (var j = 0u; j < p.a; j++) {
        var v = 0.0;
        if (j == hit) {
            v = -scale * (others / total);
        } else if (allows(j)) {
            v = scale * (exp(logit_of(row, j) - largest) / total);
        }
        dlogits[to + j] = v;
    }
}
