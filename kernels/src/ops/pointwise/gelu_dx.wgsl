// op      gelu_dx                dx = dy (Φ(x) + x φ(x))
// args    x f32[r,c]  dy f32[r,c]  ->  dx f32[r,c]
// layout  row major with pitch `_ld` from unit `_at`
// launch  plain: one invocation per element of the output, 64 to a workgroup
// order   no sums
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    40*r*c flop; 12*r*c bytes
// source  the normal distribution as in kernels/src/ops/vmath.rs
struct Params {
    r: u32, c: u32,
    x_at: u32, x_ld: u32, dy_at: u32, dy_ld: u32, dx_at: u32, dx_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> dy: array<f32>;
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;
@group(0) @binding(9) var<uniform> p: Params;

// Distribution of the standard normal at v, and exp(-v²/2).
fn normal_cdf(v: f32) -> vec2<f32> {
    let a = min(abs(v), 14.0);
    let e = exp(-0.5 * a * a);
    let t = 1.0 / (a + 4.0);
    let u = (a - 4.0) * t;
    var q = -1.2298315e-4;
    q = fma(q, u, 1.9480185e-4);
    q = fma(q, u, 1.5693137e-3);
    q = fma(q, u, -3.523574e-3);
    q = fma(q, u, -7.527213e-3);
    q = fma(q, u, 6.040647e-2);
    q = fma(q, u, -0.186523);
    q = fma(q, u, 0.38713667);
    q = fma(q, u, -0.6078966);
    q = fma(q, u, 0.75528514);
    let tail = q * t * e;
    return vec2<f32>(select(tail, 1.0 - tail, v > 0.0), e);
}

@compute @workgroup_size(64)
fn plain(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = id.y * groups.x * 64u + id.x;
    if (at >= p.r * p.c) { return; }
    let row = at / p.c;
    let col = at % p.c;
    let v = x[p.x_at + row * p.x_ld + col];
    let cdf = normal_cdf(v);
    dx[p.dx_at + row * p.dx_ld + col] = dy[p.dy_at + row * p.dy_ld + col] * fma(v * cdf.y, 0.3989423, cdf.x);
}
