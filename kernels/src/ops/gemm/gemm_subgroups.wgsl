// op      gemm                   y = x wᵀ + bias; with slope y = gelu of that, slope its derivative
// args    x f32[r,i]  w f32[o,i]  bias f32[o]?  ->  y f32[r,o]  slope f32[r,o]?
// layout  row major with pitch `_ld` from unit `_at`
// launch  subgroups: one workgroup of 64 per column and four rows of y, each invocation every 64th k; grid
//         o x ceil(r/4)
// order   subgroups: k ascending in an invocation, then over the subgroup, then over subgroups, then the bias; the size
//         of a subgroup is the device's
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    2*r*i*o flop; 4*(r*i + o*i) + 4*(o + r*o) bytes
// source  definition; the normal distribution as in kernels/src/ops/vmath.rs
struct Params {
    r: u32, i: u32, o: u32,
    x_at: u32, x_ld: u32, w_at: u32, w_ld: u32, bias_at: u32, bias_ld: u32, y_at: u32, y_ld: u32,
    slope_at: u32, slope_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> x: array<Real>;
@group(0) @binding(1) var<storage, read_write> w: array<Real>;
@group(0) @binding(2) var<storage, read_write> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<storage, read_write> slope: array<f32>;
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

fn has(arg: u32) -> bool {
    return ((p.present >> arg) & 1u) == 1u;
}

// Start of the sums of output `col`.
fn bias_of(col: u32) -> f32 {
    if (has(2u) && col < p.o) { return bias[p.bias_at + col]; }
    return 0.0;
}

// Element of x; 0 outside.
fn x_of(row: u32, col: u32) -> f32 {
    if (row < p.r && col < p.i) { return f32(x[p.x_at + row * p.x_ld + col]); }
    return 0.0;
}

// Element of w; 0 outside.
fn w_of(row: u32, col: u32) -> f32 {
    if (row < p.o && col < p.i) { return f32(w[p.w_at + row * p.w_ld + col]); }
    return 0.0;
}

// A value for every subgroup, where its first invocation is.
var<workgroup> parts: array<vec4<f32>, 64>;

// Sum over the workgroup, of whose invocations this is `local`, the one `lane` of a subgroup of `lanes`.
fn whole_sum(own: vec4<f32>, local: u32, lane: u32, lanes: u32) -> vec4<f32> {
    let part = subgroupAdd(own);
    workgroupBarrier();
    parts[local] = select(vec4<f32>(), part, lane == 0u);
    workgroupBarrier();
    var sum = vec4<f32>();
    for (var at = lane; at < 64u; at += lanes) { sum += parts[at]; }
    return subgroupAdd(sum);
}

@compute @workgroup_size(64)
fn subgroups(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) lanes: u32,
) {
    let first_row = group.y * 4u;
    let col = group.x;
    var sums = vec4<f32>();
    for (var k = local; k < p.i; k += 64u) {
        let x4 = vec4<f32>(
            x_of(first_row, k), x_of(first_row + 1u, k), x_of(first_row + 2u, k), x_of(first_row + 3u, k),
        );
        sums = fma(x4, vec4<f32>(w_of(col, k)), sums);
    }
    sums = whole_sum(sums, local, lane, lanes);
    let row = first_row + local;
    if (local < 4u && row < p.r) {
        var sum = sums[local] + bias_of(col);
        if (has(4u)) {
            let cdf = normal_cdf(sum);
            slope[p.slope_at + row * p.slope_ld + col] = fma(sum * cdf.y, 0.3989423, cdf.x);
            sum *= cdf.x;
        }
        y[p.y_at + row * p.y_ld + col] = sum;
    }
}
