// op      cosine                 y[n, m] = <q_n, p_m> / (max(|q_n|, 1e-8) max(|p_m|, 1e-8))
// args    q f32[n,d]  p f32[m,d]  ->  y f32[n,m]
// layout  row major with pitch `_ld` from unit `_at`
// launch  subgroups: one workgroup of 64 per row of p and four of q, each invocation every 64th i; grid m x ceil(n/4)
// order   subgroups: i ascending in an invocation, then over the subgroup, then over subgroups; the size of a subgroup
//         is the device's
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
@group(0) @binding(9) var<uniform> p: Params;

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
    var dots = vec4<f32>();
    var lengths = vec4<f32>();
    var length = 0.0;
    for (var i = local; i < p.d; i += 64u) {
        let q4 = vec4<f32>(
            query_of(first_row, i), query_of(first_row + 1u, i), query_of(first_row + 2u, i),
            query_of(first_row + 3u, i),
        );
        let v = prototype_of(col, i);
        dots = fma(q4, vec4<f32>(v), dots);
        lengths = fma(q4, q4, lengths);
        length = fma(v, v, length);
    }
    dots = whole_sum(dots, local, lane, lanes);
    lengths = max(sqrt(whole_sum(lengths, local, lane, lanes)), vec4<f32>(1e-8));
    length = max(sqrt(whole_sum(vec4<f32>(length), local, lane, lanes).x), 1e-8);
    let row = first_row + local;
    if (local < 4u && row < p.n) {
        y[p.y_at + row * p.y_ld + col] = dots[local] / (lengths[local] * length);
    }
}
