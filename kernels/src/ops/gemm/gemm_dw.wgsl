// op      gemm_dw                dw = dyᵀ x
// args    dy f32[r,o]  x f32[r,i]  ->  dw f32[o,i]
// layout  row major with pitch `_ld` from unit `_at`
// launch  plain: one invocation per dw, 16 x 16, grid ceil(i/16) x ceil(o/16)
// order   plain: rows k = 0..r ascending, one accumulator
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    2*r*i*o flop; 4*(r*o + r*i) + 4*o*i bytes
// source  definition
struct Params {
    r: u32, o: u32, i: u32,
    dy_at: u32, dy_ld: u32, x_at: u32, x_ld: u32, dw_at: u32, dw_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> dy: array<Real>;
@group(0) @binding(1) var<storage, read_write> x: array<Real>;
@group(0) @binding(2) var<storage, read_write> dw: array<f32>;
@group(0) @binding(9) var<uniform> p: Params;

@compute @workgroup_size(16, 16)
fn plain(@builtin(global_invocation_id) id: vec3<u32>) {
    let col = id.x;  // input feature
    let row = id.y;  // output feature
    if (col >= p.i || row >= p.o) { return; }
    var sum = 0.0;
    for (var k = 0u; k < p.r; k++) {
        sum = fma(f32(dy[p.dy_at + k * p.dy_ld + row]), f32(x[p.x_at + k * p.x_ld + col]), sum);
    }
    dw[p.dw_at + row * p.dw_ld + col] = sum;
}
