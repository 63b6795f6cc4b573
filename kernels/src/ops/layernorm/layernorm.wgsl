// op      layernorm              y = (x - mean) * rstd * w + b over the last axis, biased variance; stats = (mean,
//         rstd)
// args    x f32[r,c]  w f32[c]  b f32[c]?  ->  y f32[r,c]  stats f32[r,2]
// layout  row major with pitch `_ld` from unit `_at`
// launch  plain: one workgroup of 64 per row
// order   plain: every 64th element ascending, then a tree over the invocations
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    7*r*c flop; 4*(2*r*c + 2*c + 2*r) bytes
// source  definition
struct Params {
    r: u32, c: u32, eps: f32,
    x_at: u32, x_ld: u32, w_at: u32, w_ld: u32, b_at: u32, b_ld: u32, y_at: u32, y_ld: u32,
    stats_at: u32, stats_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> x: array<Real>;
@group(0) @binding(1) var<storage, read_write> w: array<f32>;
@group(0) @binding(2) var<storage, read_write> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<storage, read_write> stats: array<f32>;
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
fn plain(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = group.y * groups.x + group.x;
    if (row >= p.r) { return; }
    let from_x = p.x_at + row * p.x_ld;
    var own = 0.0;
    for (var i = lane; i < p.c; i += 64u) { own += f32(x[from_x + i]); }
    let mean = sums_of_group(vec2<f32>(own, 0.0), lane).x / f32(p.c);
    own = 0.0;
    for (var i = lane; i < p.c; i += 64u) { own = fma(f32(x[from_x + i]) - mean, f32(x[from_x + i]) - mean, own); }
    let rstd = 1.0 / sqrt(sums_of_group(vec2<f32>(own, 0.0), lane).x / f32(p.c) + p.eps);
    for (var i = lane; i < p.c; i += 64u) {
        var value = (f32(x[from_x + i]) - mean) * rstd * w[p.w_at + i];
        if (has(2u)) { value += b[p.b_at + i]; }
        y[p.y_at + row * p.y_ld + i] = value;
    }
    if (lane == 0u) {
        stats[p.stats_at + row * p.stats_ld] = mean;
        stats[p.stats_at + row * p.stats_ld + 1u] = rstd;
    }
}
