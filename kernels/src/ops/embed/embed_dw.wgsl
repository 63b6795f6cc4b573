// op      embed_dw               g[v] = sum of dy[r] with ids[r] = v, r ascending; dw = g ⊙ mask; ds = g ⊙ w ⊙
//                                sign(score), zero outside the candidates
// args    dy f32[r,c]  ids u32[r]  w f32[v,c]?  mask bits[v,c]?  score f32[v,c]?  candidates bits[v,c]?  ->
//         dw f32[v,c]  ds f32[v,c]?
// layout  row major with pitch `_ld` from unit `_at`; rows of bits are 32-bit words, column j is bit j%32 of word j/32
// launch  plain: one invocation per dw, which looks through all ids
// order   r ascending, one accumulator
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    r*c flop; 4*(v*r + r*c + 4*v*c) + v*c/4 bytes
// source  definition
struct Params {
    r: u32, c: u32, v: u32,
    dy_at: u32, dy_ld: u32, ids_at: u32, ids_ld: u32, w_at: u32, w_ld: u32, mask_at: u32, mask_ld: u32,
    score_at: u32, score_ld: u32, candidates_at: u32, candidates_ld: u32, dw_at: u32, dw_ld: u32,
    ds_at: u32, ds_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> dy: array<f32>;
@group(0) @binding(1) var<storage, read_write> ids: array<u32>;
@group(0) @binding(2) var<storage, read_write> w: array<f32>;
@group(0) @binding(3) var<storage, read_write> mask: array<u32>;
@group(0) @binding(4) var<storage, read_write> score: array<f32>;
@group(0) @binding(5) var<storage, read_write> candidates: array<u32>;
@group(0) @binding(6) var<storage, read_write> dw: array<f32>;
@group(0) @binding(7) var<storage, read_write> ds: array<f32>;
@group(0) @binding(9) var<uniform> p: Params;

fn has(arg: u32) -> bool {
    return ((p.present >> arg) & 1u) == 1u;
}

// Bit of column `at` in the word that holds it.
fn bit_of(word: u32, at: u32) -> bool {
    return ((word >> (at % 32u)) & 1u) == 1u;
}

// Sign of a score: 0 for 0.
fn sign_of(score: f32) -> f32 {
    return select(0.0, 1.0, score > 0.0) - select(0.0, 1.0, score < 0.0);
}

@compute @workgroup_size(64)
fn plain(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = id.y * groups.x * 64u + id.x;
    if (at >= p.v * p.c) { return; }
    let row = at / p.c;
    let col = at % p.c;
    var g = 0.0;
    for (var i = 0u; i < p.r; i++) {
        if (min(ids[p.ids_at + i], p.v - 1u) == row) { g += dy[p.dy_at + i * p.dy_ld + col]; }
    }
    let kept = !has(3u) || bit_of(mask[p.mask_at + row * p.mask_ld + col / 32u], col);
    dw[p.dw_at + row * p.dw_ld + col] = select(0.0, g, kept);
    if (has(7u)) {
        var s = 0.0;
        let open = !has(5u) || bit_of(candidates[p.candidates_at + row * p.candidates_ld + col / 32u], col);
        if (open && has(2u) && has(4u)) {
            let sign = sign_of(score[p.score_at + row * p.score_ld + col]);
            if (sign != 0.0) { s = g * w[p.w_at + row * p.w_ld + col] * sign; }
        }
        ds[p.ds_at + row * p.ds_ld + col] = s;
    }
}
