// op      embed                  y[r] = (w ⊙ mask)[min(ids[r], v - 1)]
// args    ids u32[r]  w f32[v,c]  mask bits[v,c]?  ->  y f32[r,c]
// layout  row major with pitch `_ld` from unit `_at`; rows of bits are 32-bit words, column j is bit j%32 of word j/32
// launch  plain: one invocation per element of the output, 64 to a workgroup
// order   no sums
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    8*r*c + 4*r + r*c/8 bytes
// source  definition
struct Params {
    r: u32, v: u32, c: u32,
    ids_at: u32, ids_ld: u32, w_at: u32, w_ld: u32, mask_at: u32, mask_ld: u32, y_at: u32, y_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> ids: array<u32>;
@group(0) @binding(1) var<storage, read_write> w: array<f32>;
@group(0) @binding(2) var<storage, read_write> mask: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(9) var<uniform> p: Params;

fn has(arg: u32) -> bool {
    return ((p.present >> arg) & 1u) == 1u;
}

// Bit of column `at` in the word that holds it.
fn bit_of(word: u32, at: u32) -> bool {
    return ((word >> (at % 32u)) & 1u) == 1u;
}

@compute @workgroup_size(64)
fn plain(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = id.y * groups.x * 64u + id.x;
    if (at >= p.r * p.c) { return; }
    let row = at / p.c;
    let col = at % p.c;
    var v = 0.0;
    if (p.v > 0u) {
        let id = min(ids[p.ids_at + row], p.v - 1u);
        if (!has(2u) || bit_of(mask[p.mask_at + id * p.mask_ld + col / 32u], col)) {
            v = w[p.w_at + id * p.w_ld + col];
        }
    }
    y[p.y_at + row * p.y_ld + col] = v;
}
