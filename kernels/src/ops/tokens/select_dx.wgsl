// op      select_dx              dx[r * stride + offset] = dy[r], zero elsewhere
// args    dy f32[r,c]  ->  dx f32[q,c]
// layout  row major with pitch `_ld` from unit `_at`
// launch  plain: one invocation per element of the output, 64 to a workgroup
// order   no sums
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    4*(r + q)*c bytes
// source  definition
struct Params {
    r: u32, c: u32, q: u32, stride: u32, offset: u32,
    dy_at: u32, dy_ld: u32, dx_at: u32, dx_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> dy: array<f32>;
@group(0) @binding(1) var<storage, read_write> dx: array<f32>;
@group(0) @binding(9) var<uniform> p: Params;

@compute @workgroup_size(64)
fn plain(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = id.y * groups.x * 64u + id.x;
    if (at >= p.q * p.c) { return; }
    let row = at / p.c;
    let col = at % p.c;
    var v = 0.0;
    if (row % p.stride == p.offset) { v = dy[p.dy_at + (row / p.stride) * p.dy_ld + col]; }
    dx[p.dx_at + row * p.dx_ld + col] = v;
}
