// op      gelu                   y = x / 2 (1 + erf(x / sqrt 2))
// args    x f32[r,c]  ->  y f32[r,c]
// layout  row major with pitch `_ld` from unit `_at`
// launch  plain: one invocation per element of the output, 64 to a workgroup
// order   no sums
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    40*r*c flop; 8*r*c bytes
// source  the normal distribution as in kernels/src/ops/vmath.rs
struct Params {
    r: u32, c: u32,
    x_at: u32, x_ld: u32, y_at: u32, y_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
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
    y[p.y_at + row * p.y_ld + col] = v * normal_cdf(v).x;
}
