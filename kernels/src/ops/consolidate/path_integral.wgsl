// op      path_integral          w = w - g * (p - last); last = p
// args    g f32[o,i]  p f32[o,i]  ->  last f32[o,i]  w f32[o,i]
// layout  row major with pitch `_ld` from unit `_at`
// launch  plain: one invocation per element of the output, 64 to a workgroup
// order   no sums
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    3*o*i flop; 24*o*i bytes
// source  Zenke et al., Continual Learning Through Synaptic Intelligence (2017), section 3
struct Params {
    o: u32, i: u32,
    g_at: u32, g_ld: u32, p_at: u32, p_ld: u32, last_at: u32, last_ld: u32, w_at: u32, w_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> g: array<f32>;
@group(0) @binding(1) var<storage, read_write> p_: array<f32>;
@group(0) @binding(2) var<storage, read_write> last: array<f32>;
@group(0) @binding(3) var<storage, read_write> w: array<f32>;
@group(0) @binding(9) var<uniform> p: Params;

@compute @workgroup_size(64)
fn plain(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = id.y * groups.x * 64u + id.x;
    if (at >= p.o * p.i) { return; }
    let row = at / p.i;
    let col = at % p.i;
    let value = p_[p.p_at + row * p.p_ld + col];
    let moved = value - last[p.last_at + row * p.last_ld + col];
    w[p.w_at + row * p.w_ld + col] -= g[p.g_at + row * p.g_ld + col] * moved;
    last[p.last_at + row * p.last_ld + col] = value;
}
