// op      gemm                   y = x wᵀ + bias; with slope y = gelu of that, slope its derivative
// args    x f32[r,i]  w f32[o,i]  bias f32[o]?  ->  y f32[r,o]  slope f32[r,o]?
// layout  row major with pitch `_ld` from unit `_at`
// launch  tiled: 64 x 64 of y per workgroup of 16 x 16, each invocation 4 x 4, k in steps of 16 through workgroup
//         memory; grid ceil(o/64) x ceil(r/64)
// order   tiled: k = 0..i ascending from the bias, one accumulator per y
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

// 16 columns of k by 64 rows, and 16 rows of k by 64 columns. A pitch of 17 spreads a column over the banks.
var<workgroup> left: array<vec4<f32>, 272>;
var<workgroup> right: array<vec4<f32>, 272>;

@compute @workgroup_size(16, 16)
fn tiled(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let first_row = group.y * 64u + local.y * 4u;
    let first_col = group.x * 64u + local.x * 4u;
    let staged_right = group.x * 64u + local.y * 4u;
    var sum0 = vec4<f32>(
        bias_of(first_col), bias_of(first_col + 1u), bias_of(first_col + 2u), bias_of(first_col + 3u),
    );
    var sum1 = sum0;
    var sum2 = sum0;
    var sum3 = sum0;
    for (var k = 0u; k < p.i; k += 16u) {
        left[local.x * 17u + local.y] = vec4<f32>(
            x_of(first_row, k + local.x), x_of(first_row + 1u, k + local.x),
            x_of(first_row + 2u, k + local.x), x_of(first_row + 3u, k + local.x),
        );
        right[local.x * 17u + local.y] = vec4<f32>(
            w_of(staged_right, k + local.x), w_of(staged_right + 1u, k + local.x),
            w_of(staged_right + 2u, k + local.x), w_of(staged_right + 3u, k + local.x),
        );
        workgroupBarrier();
        for (var j = 0u; j < 16u; j++) {
            let a = left[j * 17u + local.y];
            let b = right[j * 17u + local.x];
            sum0 = fma(vec4<f32>(a.x), b, sum0);
            sum1 = fma(vec4<f32>(a.y), b, sum1);
            sum2 = fma(vec4<f32>(a.z), b, sum2);
            sum3 = fma(vec4<f32>(a.w), b, sum3);
        }
        workgroupBarrier();
    }
    var sums = array<vec4<f32>, 4>(sum0, sum1, sum2, sum3);
    for (var at = 0u; at < 16u; at++) {
        let row = first_row + at / 4u;
        let col = first_col + at % 4u;
        if (row < p.r && col < p.o) {
            var sum = sums[at / 4u][at % 4u];
            if (has(4u)) {
                let cdf = normal_cdf(sum);
                slope[p.slope_at + row * p.slope_ld + col] = fma(sum * cdf.y, 0.3989423, cdf.x);
                sum *= cdf.x;
            }
            y[p.y_at + row * p.y_ld + col] = sum;
        }
    }
}
