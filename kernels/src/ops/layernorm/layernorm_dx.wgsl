// op      layernorm_dx           dx of layernorm, plus add if present; dw = sum over rows of dy ⊙ xhat, db = sum of dy
// args    dy f32[r,c]  x f32[r,c]  w f32[c]  stats f32[r,2]  add f32[r,c]?  ->  dx f32[r,c]  dw f32[c]?  db f32[c]?
// layout  row major with pitch `_ld` from unit `_at`
// launch  rows: one workgroup of 64 per row, dx; blocks: one invocation per column and block of 32 rows; combine: one
//         per column
// order   rows: every 64th element ascending, then a tree; dw, db: rows of a block ascending, then blocks
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    14*r*c flop; 4*(5*r*c + 3*c + 2*r) bytes, and 16*c*r/32 of partial sums
// source  definition
struct Params {
    r: u32, c: u32,
    dy_at: u32, dy_ld: u32, x_at: u32, x_ld: u32, w_at: u32, w_ld: u32, stats_at: u32, stats_ld: u32,
    add_at: u32, add_ld: u32, dx_at: u32, dx_ld: u32, dw_at: u32, dw_ld: u32, db_at: u32, db_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> dy: array<Real>;
@group(0) @binding(1) var<storage, read_write> x: array<Real>;
@group(0) @binding(2) var<storage, read_write> w: array<f32>;
@group(0) @binding(3) var<storage, read_write> stats: array<f32>;
@group(0) @binding(4) var<storage, read_write> add: array<f32>;
@group(0) @binding(5) var<storage, read_write> dx: array<f32>;
@group(0) @binding(6) var<storage, read_write> dw: array<f32>;
@group(0) @binding(7) var<storage, read_write> db: array<f32>;
@group(0) @binding(8) var<storage, read_write> work: array<u32>;
@group(0) @binding(9) var<uniform> p: Params;

fn has(arg: u32) -> bool {
    return ((p.present >> arg) & 1u) == 1u;
}

var<workgroup> partial: array<vec2<f32>, 64>;

// Sums over the 64 invocations of a workgroup, in a fixed tree.
fn sums_of_group(mine: vec2<f32>, lane: u32) -> vec2<f32> {
    partial[lane] = mine;
    workgroupBarrier();
    for (var half = 32u; half > 0u; half /= 2u) {
        if (lane < half) { partial[lane] += partial[lane + half]; }
        workgroupBarrier();
    }
    let sum = partial[0];
    workgroupBarrier();
    return sum;
}

@compute @workgroup_size(64)
fn rows(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = group.y * groups.x + group.x;
    if (row >= p.r) { return; }
    let from_x = p.x_at + row * p.x_ld;
    let from_dy = p.dy_at + row * p.dy_ld;
    let mean = stats[p.stats_at + row * p.stats_ld];
    let rstd = stats[p.stats_at + row * p.stats_ld + 1u];
    var own = vec2<f32>();
    for (var i = lane; i < p.c; i += 64u) {
        let g = f32(dy[from_dy + i]) * w[p.w_at + i];
        own += vec2<f32>(g, g * (f32(x[from_x + i]) - mean) * rstd);
    }
    let means = sums_of_group(own, lane) / f32(p.c);
    for (var i = lane; i < p.c; i += 64u) {
        let xhat = (f32(x[from_x + i]) - mean) * rstd;
        var value = rstd * (f32(dy[from_dy + i]) * w[p.w_at + i] - means.x - xhat * means.y);
        if (has(4u)) { value += add[p.add_at + row * p.add_ld + i]; }
        dx[p.dx_at + row * p.dx_ld + i] = value;
    }
}

@compute @workgroup_size(64)
fn blocks(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = id.y * groups.x * 64u + id.x;  // block of rows, then column
    if (at >= (p.r + 31u) / 32u * p.c || !(has(6u) || has(7u))) { return; }
    let i = at % p.c;
    let first = at / p.c * 32u;
    var sum = vec2<f32>();
    for (var row = first; row < min(first + 32u, p.r); row++) {
        let g = f32(dy[p.dy_at + row * p.dy_ld + i]);
        let mean = stats[p.stats_at + row * p.stats_ld];
        let rstd = stats[p.stats_at + row * p.stats_ld + 1u];
        sum += vec2<f32>(g * (f32(x[p.x_at + row * p.x_ld + i]) - mean) * rstd, g);
    }
    work[2u * at] = bitcast<u32>(sum.x);
    work[2u * at + 1u] = bitcast<u32>(sum.y);
}

@compute @workgroup_size(64)
fn combine(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = id.y * groups.x * 64u + id.x;
    if (i >= p.c || !(has(6u) || has(7u))) { return; }
    var sum = vec2<f32>();
    for (var block = 0u; block < (p.r + 31u) / 32u; block++) {
        let at = 2u * (block * p.c + i);
        sum += vec2<f32>(bitcast<f32>(work[at]), bitcast<f32>(work[at + 1u]));
    }
    if (has(6u)) { dw[p.dw_at + i] = sum.x; }
    if (has(7u)) { db[p.db_at + i] = sum.y; }
}
