// op      interleave             y[3 r + j] = xj[r] + time[r]
// args    x0 f32[r,c]  x1 f32[r,c]  x2 f32[r,c]  time f32[r,c]?  ->  y f32[q,c]
// layout  row major with pitch `_ld` from unit `_at`
// launch  plain: one invocation per element of the output, 64 to a workgroup
// order   no sums
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    3*r*c flop; 28*r*c bytes
// source  definition
struct Params {
    r: u32, c: u32, q: u32,
    x0_at: u32, x0_ld: u32, x1_at: u32, x1_ld: u32, x2_at: u32, x2_ld: u32, time_at: u32, time_ld: u32,
    y_at: u32, y_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> x0: array<f32>;
@group(0) @binding(1) var<storage, read_write> x1: array<f32>;
@group(0) @binding(2) var<storage, read_write> x2: array<f32>;
@group(0) @binding(3) var<storage, read_write> time: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(9) var<uniform> p: Params;

fn has(arg: u32) -> bool {
    return ((p.present >> arg) & 1u) == 1u;
}

@compute @workgroup_size(64)
fn plain(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = id.y * groups.x * 64u + id.x;
    if (at >= p.q * p.c) { return; }
    let row = at / p.c;
    let col = at % p.c;
    let from_row = row / 3u;
    var v: f32;
    switch (row % 3u) {
        case 0u: { v = x0[p.x0_at + from_row * p.x0_ld + col]; }
        case 1u: { v = x1[p.x1_at + from_row * p.x1_ld + col]; }
        default: { v = x2[p.x2_at + from_row * p.x2_ld + col]; }
    }
    if (has(3u)) { v += time[p.time_at + from_row * p.time_ld + col]; }
    y[p.y_at + row * p.y_ld + col] = v;
}
