// op      attend                 y = softmax(q kᵀ / sqrt(d)) v over the valid keys, one query per sequence
// args    q f32[b,c]  kv f32[r,e]  valid u8[b,t]  ->  y f32[b,c]
// layout  row major with pitch `_ld` from unit `_at`; four u8 to a word, the lowest byte first; a row of kv is k, v of
//         all heads, each head-major
// launch  plain: one invocation per sequence and head
// order   plain: keys ascending: largest score, sum of exponents, weighted values
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    4*r*c flop; 4*(r*e + 2*b*c) + r bytes, and 4*r*heads of scores
// source  definition
struct Params {
    b: u32, c: u32, r: u32, e: u32, t: u32, heads: u32,
    q_at: u32, q_ld: u32, kv_at: u32, kv_ld: u32, valid_at: u32, valid_ld: u32, y_at: u32, y_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> q: array<f32>;
@group(0) @binding(1) var<storage, read_write> kv: array<f32>;
@group(0) @binding(2) var<storage, read_write> valid: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(8) var<storage, read_write> work: array<u32>;
@group(0) @binding(9) var<uniform> p: Params;

// Byte `at % 4` of a word.
fn byte_of(word: u32, at: u32) -> u32 {
    return (word >> (8u * (at % 4u))) & 0xffu;
}

// True if a token is there and its flag is set.
fn visible_token(sequence: u32, token: u32) -> bool {
    if (token >= p.t) { return false; }
    let at = p.valid_at + sequence * p.valid_ld + token;
    return byte_of(valid[at / 4u], at) != 0u;
}

@compute @workgroup_size(64)
fn plain(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = id.y * groups.x * 64u + id.x;
    if (at >= p.b * p.heads) { return; }
    let head = at % p.heads;
    let sequence = at / p.heads;
    let d = p.c / p.heads;
    let scale = 1.0 / sqrt(f32(d));
    let from_q = p.q_at + sequence * p.q_ld + head * d;
    let from_kv = p.kv_at + sequence * p.t * p.kv_ld + head * d;
    let scores = at * p.t;
    var top = -1e30;
    for (var key = 0u; key < p.t; key++) {
        if (!visible_token(sequence, key)) { continue; }
        var score = 0.0;
        for (var i = 0u; i < d; i++) { score = fma(q[from_q + i], kv[from_kv + key * p.kv_ld + i], score); }
        work[scores + key] = bitcast<u32>(score * scale);
        top = max(top, score * scale);
    }
    var sum = 0.0;
    for (var key = 0u; key < p.t; key++) {
        var weight = 0.0;
        if (visible_token(sequence, key)) { weight = exp(bitcast<f32>(work[scores + key]) - top); }
        sum += weight;
        work[scores + key] = bitcast<u32>(weight);
    }
    for (var i = 0u; i < d; i++) {
        var value = 0.0;
        for (var key = 0u; key < p.t; key++) {
            let weight = bitcast<f32>(work[scores + key]);
            // A hidden value is not read.
            if (weight != 0.0) { value = fma(weight, kv[from_kv + key * p.kv_ld + p.c + i], value); }
        }
        y[p.y_at + sequence * p.y_ld + head * d + i] = select(0.0, value / sum, sum > 0.0);
    }
}
