// op      masked_bias_dw         g[o] = sum over r and inner of dy; db = g ⊙ mask; ds = g ⊙ bias ⊙ sign(score), zero
//         outside the candidates
// args    dy f32[r,e]  bias f32[o]  mask bits[o]  score f32[o]?  candidates bits[o]?  ->  db f32[o]  ds f32[o]?
// layout  row major with pitch `_ld` from unit `_at`; bits in 32-bit words, column j is bit j%32 of word j/32
// launch  blocks: one invocation per channel and block of 32 rows; finish: one per channel
// order   the inner index within a row, rows within a block, blocks; all ascending
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    r*e flop; 4*(r*e + 4*o) bytes, and 8*o*r/32 of partial sums
// source  definition
struct Params {
    r: u32, e: u32, o: u32, inner: u32,
    dy_at: u32, dy_ld: u32, bias_at: u32, bias_ld: u32, mask_at: u32, mask_ld: u32, score_at: u32, score_ld: u32,
    candidates_at: u32, candidates_ld: u32, db_at: u32, db_ld: u32, ds_at: u32, ds_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> dy: array<f32>;
@group(0) @binding(1) var<storage, read_write> bias: array<f32>;
@group(0) @binding(2) var<storage, read_write> mask: array<u32>;
@group(0) @binding(3) var<storage, read_write> score: array<f32>;
@group(0) @binding(4) var<storage, read_write> candidates: array<u32>;
@group(0) @binding(5) var<storage, read_write> db: array<f32>;
@group(0) @binding(6) var<storage, read_write> ds: array<f32>;
@group(0) @binding(8) var<storage, read_write> work: array<u32>;
@group(0) @binding(9) var<uniform> p: Params;

// Bit of column `at` in the word that holds it.
fn bit_of(word: u32, at: u32) -> bool {
    return ((word >> (at % 32u)) & 1u) == 1u;
}

// Sign of a score: 0 for 0.
fn sign_of(score: f32) -> f32 {
    return select(0.0, 1.0, score > 0.0) - select(0.0, 1.0, score < 0.0);
}

fn has(arg: u32) -> bool {
    return ((p.present >> arg) & 1u) == 1u;
}

@compute @workgroup_size(64)
fn blocks(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = id.y * groups.x * 64u + id.x;  // block of rows, then channel
    if (at >= (p.r + 31u) / 32u * p.o) { return; }
    let channel = at % p.o;
    let first = at / p.o * 32u;
    var all = 0.0;
    for (var row = first; row < min(first + 32u, p.r); row++) {
        let from_dy = p.dy_at + row * p.dy_ld + channel * p.inner;
        var sum = 0.0;
        for (var j = 0u; j < p.inner; j++) { sum += dy[from_dy + j]; }
        all += sum;
    }
    work[at] = bitcast<u32>(all);
}

@compute @workgroup_size(64)
fn finish(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let channel = id.y * groups.x * 64u + id.x;
    if (channel >= p.o) { return; }
    var sum = 0.0;
    for (var block = 0u; block < (p.r + 31u) / 32u; block++) {
        sum += bitcast<f32>(work[block * p.o + channel]);
    }
    let kept = bit_of(mask[p.mask_at + channel / 32u], channel);
    db[p.db_at + channel] = select(0.0, sum, kept);
    if (has(6u)) {
        var to_score = 0.0;
        if (!has(4u) || bit_of(candidates[p.candidates_at + channel / 32u], channel)) {
            to_score = sum * bias[p.bias_at + channel];
            if (has(3u)) { to_score *= sign_of(score[p.score_at + channel]); }
        }
        ds[p.ds_at + channel] = to_score;
    }
}
