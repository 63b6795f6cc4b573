// op      cosine                 y[n, m] = <q_n, p_m> / (max(|q_n|, 1e-8) max(|p_m|, 1e-8))
// args    q f32[n,d]  p f32[m,d]  ->  y f32[n,m]
// layout  row major with pitch `_ld` from unit `_at`
// launch  lengths: one invocation per row of q and p; tiled: 64 x 64 cosines per workgroup of 16 x 16, each invocation
//         4 x 4, d in steps of 16 through workgroup memory; grid ceil(m/64) x ceil(n/64)
// order   tiled: i = 0..d ascending, one accumulator
// tol     twice the error of the plain f32 loop against f64, plus 1e-5
// cost    2*d*(n*m + n + m) flop; 4*(n*d + m*d + n*m) bytes
// source  definition
struct Params {
    n: u32, d: u32, m: u32,
    q_at: u32, q_ld: u32, p_at: u32, p_ld: u32, y_at: u32, y_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> q: array<Real>;
@group(0) @binding(1) var<storage, read_write> p_: array<Real>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(8) var<storage, read_write> work: array<u32>;
@group(0) @binding(9) var<uniform> p: Params;

// Length of a row of q, at least 1e-8.
fn q_length(row: u32) -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < p.d; i++) {
        let v = f32(q[p.q_at + row * p.q_ld + i]);
        sum = fma(v, v, sum);
    }
    return max(sqrt(sum), 1e-8);
}

// Length of a row of p, at least 1e-8.
fn p_length(row: u32) -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < p.d; i++) {
        let v = f32(p_[p.p_at + row * p.p_ld + i]);
        sum = fma(v, v, sum);
    }
    return max(sqrt(sum), 1e-8);
}

// Element of q; 0 outside.
fn query_of(row: u32, i: u32) -> f32 {
    if (row < p.n && i < p.d) { return f32(q[p.q_at + row * p.q_ld + i]); }
    return 0.0;
}

// Element of p; 0 outside.
fn prototype_of(row: u32, i: u32) -> f32 {
    if (row < p.m && i < p.d) { return f32(p_[p.p_at + row * p.p_ld + i]); }
    return 0.0;
}

// 16 columns of d by 64 rows of q, and of p. A pitch of 17 spreads a column over the banks.
var<workgroup> left: array<vec4<f32>, 272>;
var<workgroup> right: array<vec4<f32>, 272>;

@compute @workgroup_size(64)
fn lengths(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = id.y * groups.x * 64u + id.x;
    if (at < p.n) { work[at] = bitcast<u32>(q_length(at)); }
    if (at >= p.n && at < p.n + p.m) { work[at] = bitcast<u32>(p_length(at - p.n)); }
}

@compute @workgroup_size(16, 16)
fn tiled(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let first_row = group.y * 64u + local.y * 4u;
    let first_col = group.x * 64u + local.x * 4u;
    let staged_right = group.x * 64u + local.y * 4u;
    var sum0 = vec4<f32>();
    var sum1 = vec4<f32>();
    var sum2 = vec4<f32>();
    var sum3 = vec4<f32>();
    for (var k = 0u; k < p.d; k += 16u) {
        let i = k + local.x;
        left[local.x * 17u + local.y] = vec4<f32>(
            query_of(first_row, i),
            query_of(first_row + 1u, i),
            query_of(first_row + 2u, i),
            query_of(first_row + 3u, i),
        );
        right[local.x * 17u + local.y] = vec4<f32>(
            prototype_of(staged_right, i), prototype_of(staged_right + 1u, i),
            prototype_of(staged_right + 2u, i), prototype_of(staged_right + 3u, i),
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
        if (row < p.n && col < p.m) {
            let length = bitcast<f32>(work[row]) * bitcast<f32>(work[p.n + col]);
            y[p.y_at + row * p.y_ld + col] = sums[at / 4u][at % 4u] / length;
        }
    }
}
