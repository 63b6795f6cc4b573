// op      packed_gemm            y = x wᵀ + bias with w as packed rows: row o holds value[row_start[o] .. row_start[o
//         + 1]] at columns col
// args    x f32[r,i]  row_start u32[p]  col u16[n]  value f16[n]  bias f32[o]?  ->  y f32[r,o]
// layout  row major with pitch `_ld` from unit `_at`; two u16 or f16 to a word, the lower half first
// launch  plain: one invocation per y, 16 x 16, grid ceil(o/16) x ceil(r/16)
// order   plain: kept weights ascending from the bias, one accumulator
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    2*r*n flop; 4*(r*i + r*o + o) + 4*n bytes
// source  definition
struct Params {
    r: u32, i: u32, p: u32, n: u32, o: u32,
    x_at: u32, x_ld: u32, row_start_at: u32, row_start_ld: u32, col_at: u32, col_ld: u32,
    value_at: u32, value_ld: u32, bias_at: u32, bias_ld: u32, y_at: u32, y_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> row_start: array<u32>;
@group(0) @binding(2) var<storage, read_write> col: array<u32>;
@group(0) @binding(3) var<storage, read_write> value: array<u32>;
@group(0) @binding(4) var<storage, read_write> bias: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
@group(0) @binding(9) var<uniform> p: Params;

// Value of a half: bits 10..15 are its exponent, the sign is bit 15.
fn f16_of(half: u32) -> f32 {
    let exponent = (half >> 10u) & 31u;
    let fraction = half & 1023u;
    // Below the normal numbers the fraction counts units of 2^-24.
    if (exponent == 0u) { return f32(fraction) * select(5.9604645e-8, -5.9604645e-8, half > 0x7fffu); }
    let widened = select(exponent + 112u, 255u, exponent == 31u);
    return bitcast<f32>(((half & 0x8000u) << 16u) | (widened << 23u) | (fraction << 13u));
}

fn has(arg: u32) -> bool {
    return ((p.present >> arg) & 1u) == 1u;
}

@compute @workgroup_size(16, 16)
fn plain(@builtin(global_invocation_id) id: vec3<u32>) {
    let out = id.x;  // output feature
    let row = id.y;
    if (out >= p.o || row >= p.r) { return; }
    var sum = 0.0;
    if (has(4u)) { sum = bias[p.bias_at + out]; }
    let from_x = p.x_at + row * p.x_ld;
    for (var at = row_start[p.row_start_at + out]; at < row_start[p.row_start_at + out + 1u]; at++) {
        let col_at = p.col_at + at;
        let value_at = p.value_at + at;
        let j = (col[col_at / 2u] >> (16u * (col_at % 2u))) & 0xffffu;
        let v = f16_of((value[value_at / 2u] >> (16u * (value_at % 2u))) & 0xffffu);
        sum = fma(x[from_x + j], v, sum);
    }
    y[p.y_at + row * p.y_ld + out] = sum;
}
