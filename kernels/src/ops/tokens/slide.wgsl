// op      slide                  in each of b groups of rows, window moves up by the group's rows of x, which become
//                                its last
// args    x f32[r,c]  ->  window f32[q,c]
// layout  row major with pitch `_ld` from unit `_at`
// launch  plain: one invocation per group and column, 64 to a workgroup
// order   rows ascending, so that every row is read before it is overwritten
// tol     exact
// cost    8*q*c bytes
// source  definition
struct Params {
    r: u32, c: u32, q: u32, b: u32,
    x_at: u32, x_ld: u32, window_at: u32, window_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> window: array<f32>;
@group(0) @binding(9) var<uniform> p: Params;

@compute @workgroup_size(64)
fn plain(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = id.y * groups.x * 64u + id.x;
    if (at >= p.b * p.c) { return; }
    let row = at / p.c;
    let col = at % p.c;
    let fresh = p.r / p.b;
    let rows = p.q / p.b;
    if (fresh == 0u) { return; }
    let top = p.window_at + row * rows * p.window_ld + col;
    for (var i = 0u; i < rows - fresh; i++) {
        window[top + i * p.window_ld] = window[top + (i + fresh) * p.window_ld];
    }
    for (var i = 0u; i < fresh; i++) {
        window[top + (rows - fresh + i) * p.window_ld] = x[p.x_at + (row * fresh + i) * p.x_ld + col];
    }
}
