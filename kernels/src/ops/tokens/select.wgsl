// op      select                 y[r] = x[r * stride + offset]
// args    x f32[q,c]  ->  y f32[r,c]
// layout  row major with pitch `_ld` from unit `_at`
// launch  plain: one invocation per element of the output, 64 to a workgroup
// order   no sums
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    8*r*c bytes
// source  definition
struct Params {
    q: u32, c: u32, r: u32, stride: u32, offset: u32,
    x_at: u32, x_ld: u32, y_at: u32, y_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(9) var<uniform> p: Params;

@compute @workgroup_size(64)
fn plain(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = id.y * groups.x * 64u + id.x;
    if (at >= p.r * p.c) { return; }
    let row = at / p.c;
    let col = at % p.c;
    y[p.y_at + row * p.y_ld + col] = x[p.x_at + (row * p.stride + p.offset) * p.x_ld + col];
}
