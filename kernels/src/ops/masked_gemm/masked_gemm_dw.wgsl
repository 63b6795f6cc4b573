// op      masked_gemm_dw         g = dyᵀ x; dw = g ⊙ mask; ds = g ⊙ w ⊙ sign(score), zero outside the candidates
// args    dy f32[r,o]  x f32[r,i]  w f32[o,i]  mask bits[o,i]  score f32[o,i]?  candidates bits[o,i]?  ->  dw f32[o,i]
//         ds f32[o,i]?
// layout  row major with pitch `_ld` from unit `_at`; bits in 32-bit words, column j is bit j%32 of word j/32
// launch  plain: one invocation per dw, 16 x 16, grid ceil(i/16) x ceil(o/16)
// order   plain: rows k = 0..r ascending, one accumulator
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    2*r*i*o flop; 4*(r*o + r*i) + 4*o*i + o*i/8 bytes, and what ds needs
// source  definition
struct Params {
    r: u32, o: u32, i: u32,
    dy_at: u32, dy_ld: u32, x_at: u32, x_ld: u32, w_at: u32, w_ld: u32, mask_at: u32, mask_ld: u32,
    score_at: u32, score_ld: u32, candidates_at: u32, candidates_ld: u32, dw_at: u32, dw_ld: u32,
    ds_at: u32, ds_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> dy: array<Real>;
@group(0) @binding(1) var<storage, read_write> x: array<Real>;
@group(0) @binding(2) var<storage, read_write> w: array<Real>;
@group(0) @binding(3) var<storage, read_write> mask: array<u32>;
@group(0) @binding(4) var<storage, read_write> score: array<f32>;
@group(0) @binding(5) var<storage, read_write> candidates: array<u32>;
@group(0) @binding(6) var<storage, read_write> dw: array<f32>;
@group(0) @binding(7) var<storage, read_write> ds: array<f32>;
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

@compute @workgroup_size(16, 16)
fn plain(@builtin(global_invocation_id) id: vec3<u32>) {
    let col = id.x;  // input feature
    let row = id.y;  // output feature
    if (col >= p.i || row >= p.o) { return; }
    var sum = 0.0;
    for (var k = 0u; k < p.r; k++) {
        sum = fma(f32(dy[p.dy_at + k * p.dy_ld + row]), f32(x[p.x_at + k * p.x_ld + col]), sum);
    }
    let kept = bit_of(mask[p.mask_at + row * p.mask_ld + col / 32u], col);
    dw[p.dw_at + row * p.dw_ld + col] = select(0.0, sum, kept);
    if (has(7u)) {
        var to_score = 0.0;
        if (!has(5u) || bit_of(candidates[p.candidates_at + row * p.candidates_ld + col / 32u], col)) {
            to_score = sum * f32(w[p.w_at + row * p.w_ld + col]);
            if (has(4u)) { to_score *= sign_of(score[p.score_at + row * p.score_ld + col]); }
        }
        ds[p.ds_at + row * p.ds_ld + col] = to_score;
    }
}
