// op      pull                   y = g + strength * f * (p - a)
// args    g f32[o,i]  f f32[o,i]  p f32[o,i]  a f32[o,i]  ->  y f32[o,i]
// layout  row major with pitch `_ld` from unit `_at`
// launch  plain: one invocation per element of the output, 64 to a workgroup
// order   no sums
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    4*o*i flop; 20*o*i bytes
// source  Kirkpatrick et al., Overcoming catastrophic forgetting in neural networks (2017), eq. 3
struct Params {
    o: u32, i: u32, strength: f32,
    g_at: u32, g_ld: u32, f_at: u32, f_ld: u32, p_at: u32, p_ld: u32, a_at: u32, a_ld: u32, y_at: u32, y_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> g: array<f32>;
@group(0) @binding(1) var<storage, read_write> f: array<f32>;
@group(0) @binding(2) var<storage, read_write> p_: array<f32>;
@group(0) @binding(3) var<storage, read_write> a: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(9) var<uniform> p: Params;

@compute @workgroup_size(64)
fn plain(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = id.y * groups.x * 64u + id.x;
    if (at >= p.o * p.i) { return; }
    let row = at / p.i;
    let col = at % p.i;
    let apart = p_[p.p_at + row * p.p_ld + col] - a[p.a_at + row * p.a_ld + col];
    let slope = g[p.g_at + row * p.g_ld + col];
    y[p.y_at + row * p.y_ld + col] = slope + p.strength * f[p.f_at + row * p.f_ld + col] * apart;
}
