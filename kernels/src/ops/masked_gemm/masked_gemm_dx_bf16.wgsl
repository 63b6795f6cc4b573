// op      masked_gemm_dx         dx = dy (w ⊙ mask); with slope dx = dy (w ⊙ mask) ⊙ slope
// args    dy bf16[r,o]  w bf16[o,i]  mask bits[o,i]  slope f32[r,i]?  ->  dx f32[r,i]
// layout  row major with pitch `_ld` from unit `_at`; bits in 32-bit words, column j is bit j%32 of word j/32; two
//         bf16 to a word, the lower half first
// launch  plain: one invocation per dx, 16 x 16, grid ceil(i/16) x ceil(r/16)
// order   plain: k = 0..o ascending, one accumulator
// tol     twice the error of the plain f32 loop against f64, plus 3e-6
// cost    2*r*i*o flop; 2*(r*o + o*i) + 4*r*i + o*i/8 bytes
// source  definition
struct Params {
    r: u32, o: u32, i: u32,
    dy_at: u32, dy_ld: u32, w_at: u32, w_ld: u32, mask_at: u32, mask_ld: u32, dx_at: u32, dx_ld: u32,
    slope_at: u32, slope_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> dy: array<u32>;
@group(0) @binding(1) var<storage, read_write> w: array<u32>;
@group(0) @binding(2) var<storage, read_write> mask: array<u32>;
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;
@group(0) @binding(4) var<storage, read_write> slope: array<f32>;
@group(0) @binding(9) var<uniform> p: Params;

// Element `at % 2` of a word of two bf16.
fn bf16_of(word: u32, at: u32) -> f32 {
    return bitcast<f32>(((word >> (16u * (at % 2u))) & 0xffffu) << 16u);
}

// Bit of column `at` in the word that holds it.
fn bit_of(word: u32, at: u32) -> bool {
    return ((word >> (at % 32u)) & 1u) == 1u;
}

fn has(arg: u32) -> bool {
    return ((p.present >> arg) & 1u) == 1u;
}

// Element of dy; 0 outside.
fn dy_of_bf16(row: u32, col: u32) -> f32 {
    let at = p.dy_at + row * p.dy_ld + col;
    if (row < p.r && col < p.o) { return bf16_of(dy[at / 2u], at); }
    return 0.0;
}

// Element of w; 0 outside.
fn w_of_bf16(row: u32, col: u32) -> f32 {
    let at = p.w_at + row * p.w_ld + col;
    if (row < p.o && col < p.i) { return bf16_of(w[at / 2u], at); }
    return 0.0;
}

@compute @workgroup_size(16, 16)
fn plain(@builtin(global_invocation_id) id: vec3<u32>) {
    let col = id.x;  // input feature
    let row = id.y;
    if (col >= p.i || row >= p.r) { return; }
    var sum = 0.0;
    for (var k = 0u; k < p.o; k++) {
        if (bit_of(mask[p.mask_at + k * p.mask_ld + col / 32u], col)) {
            sum = fma(dy_of_bf16(row, k), w_of_bf16(k, col), sum);
        }
    }
    if (has(4u)) { sum *= slope[p.slope_at + row * p.slope_ld + col]; }
    dx[p.dx_at + row * p.dx_ld + col] = sum;
}
