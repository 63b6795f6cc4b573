// op      gemm_dx                dx = dy w; with slope dx = dy w ⊙ slope
// args    dy f32[r,o]  w f32[o,i]  slope f32[r,i]?  ->  dx f32[r,i]
// layout  row major with pitch `_ld` from unit `_at`
// launch  plain: one invocation per dx, 16 x 16, grid ceil(i/16) x ceil(r/16)
// order   plain: k = 0..o ascending, one accumulator
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    2*r*i*o flop; 4*(r*o + o*i) + 4*r*i bytes
// source  definition
struct Params {
    r: u32, o: u32, i: u32,
    dy_at: u32, dy_ld: u32, w_at: u32, w_ld: u32, dx_at: u32, dx_ld: u32, slope_at: u32, slope_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> dy: array<Real>;
@group(0) @binding(1) var<storage, read_write> w: array<Real>;
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;
@group(0) @binding(3) var<storage, read_write> slope: array<f32>;
@group(0) @binding(9) var<uniform> p: Params;

fn has(arg: u32) -> bool {
    return ((p.present >> arg) & 1u) == 1u;
}

@compute @workgroup_size(16, 16)
fn plain(@builtin(global_invocation_id) id: vec3<u32>) {
    let col = id.x;  // input feature
    let row = id.y;
    if (col >= p.i || row >= p.r) { return; }
    var sum = 0.0;
    let from_dy = p.dy_at + row * p.dy_ld;
    for (var k = 0u; k < p.o; k++) {
        sum = fma(f32(dy[from_dy + k]), f32(w[p.w_at + k * p.w_ld + col]), sum);
    }
    if (has(3u)) { sum *= slope[p.slope_at + row * p.slope_ld + col]; }
    dx[p.dx_at + row * p.dx_ld + col] = sum;
}
