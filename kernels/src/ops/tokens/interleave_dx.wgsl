// op      interleave_dx          dxj[r] = dy[3 r + j]; dtime[r] = their sum
// args    dy f32[q,c]  ->  dx0 f32[r,c]  dx1 f32[r,c]  dx2 f32[r,c]  dtime f32[r,c]?
// layout  row major with pitch `_ld` from unit `_at`
// launch  plain: one invocation per three tokens and column, 64 to a workgroup
// order   (dy0 + dy1) + dy2
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    2*r*c flop; 28*r*c bytes
// source  definition
struct Params {
    q: u32, c: u32, r: u32,
    dy_at: u32, dy_ld: u32, dx0_at: u32, dx0_ld: u32, dx1_at: u32, dx1_ld: u32, dx2_at: u32, dx2_ld: u32,
    dtime_at: u32, dtime_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> dy: array<f32>;
@group(0) @binding(1) var<storage, read_write> dx0: array<f32>;
@group(0) @binding(2) var<storage, read_write> dx1: array<f32>;
@group(0) @binding(3) var<storage, read_write> dx2: array<f32>;
@group(0) @binding(4) var<storage, read_write> dtime: array<f32>;
@group(0) @binding(9) var<uniform> p: Params;

fn has(arg: u32) -> bool {
    return ((p.present >> arg) & 1u) == 1u;
}

@compute @workgroup_size(64)
fn plain(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = id.y * groups.x * 64u + id.x;
    if (at >= p.r * p.c) { return; }
    let row = at / p.c;
    let col = at % p.c;
    let y0 = dy[p.dy_at + 3u * row * p.dy_ld + col];
    let y1 = dy[p.dy_at + (3u * row + 1u) * p.dy_ld + col];
    let y2 = dy[p.dy_at + (3u * row + 2u) * p.dy_ld + col];
    dx0[p.dx0_at + row * p.dx0_ld + col] = y0;
    dx1[p.dx1_at + row * p.dx1_ld + col] = y1;
    dx2[p.dx2_at + row * p.dx2_ld + col] = y2;
    if (has(4u)) { dtime[p.dtime_at + row * p.dtime_ld + col] = y0 + y1 + y2; }
}
