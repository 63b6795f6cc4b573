// op      gemm_dw                dw = dyᵀ x
// args    dy bf16[r,o]  x bf16[r,i]  ->  dw f32[o,i]
// layout  row major with pitch `_ld` from unit `_at`; two bf16 to a word, the lower half first
// launch  plain: one invocation per dw, 16 x 16, grid ceil(i/16) x ceil(o/16)
// order   plain: rows k = 0..r ascending, one accumulator
// tol     twice the error of the plain f32 loop against f64, plus 3e-6
// cost    2*r*i*o flop; 2*(r*o + r*i) + 4*o*i bytes
// source  definition
struct Params {
    r: u32, o: u32, i: u32,
    dy_at: u32, dy_ld: u32, x_at: u32, x_ld: u32, dw_at: u32, dw_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> dy: array<u32>;
@group(0) @binding(1) var<storage, read_write> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> dw: array<f32>;
@group(0) @binding(9) var<uniform> p: Params;

// Element `at % 2` of a word of two bf16.
fn bf16_of(word: u32, at: u32) -> f32 {
    return bitcast<f32>(((word >> (16u * (at % 2u))) & 0xffffu) << 16u);
}

// Element of dy; 0 outside.
fn dy_of_bf16(row: u32, col: u32) -> f32 {
    let at = p.dy_at + row * p.dy_ld + col;
    if (row < p.r && col < p.o) { return bf16_of(dy[at / 2u], at); }
    return 0.0;
}

// Element of x; 0 outside.
fn x_of_bf16(row: u32, col: u32) -> f32 {
    let at = p.x_at + row * p.x_ld + col;
    if (row < p.r && col < p.i) { return bf16_of(x[at / 2u], at); }
    return 0.0;
}

@compute @workgroup_size(16, 16)
fn plain(@builtin(global_invocation_id) id: vec3<u32>) {
    let col = id.x;  // input feature
    let row = id.y;  // output feature
    if (col >= p.i || row >= p.o) { return; }
    var sum = 0.0;
    for (var k = 0u; k < p.r; k++) {
        sum = fma(dy_of_bf16(k, row), x_of_bf16(k, col), sum);
    }
    dw[p.dw_at + row * p.dw_ld + col] = sum;
}
