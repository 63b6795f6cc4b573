// op      cosine_topk            the k largest cosines of every query, descending, lower index first on ties
// args    q f32[n,d]  p f32[m,d]  ->  score f32[n,k]  index u32[n,k]
// layout  row major with pitch `_ld` from unit `_at`
// launch  lengths: one workgroup of 64 per row of q and p; tiled: 64 x 64 cosines per workgroup of 16 x 16, each
//         invocation 4 x 4, d in steps of 16 through workgroup memory; grid ceil(m/64) x ceil(n/64); choose: one
//         workgroup of 64 per query
// order   lengths: i ascending in an invocation, then over the subgroup, then over subgroups; the size of a subgroup is
//         the device's; tiled: i = 0..d ascending, one accumulator; choose: k rounds, each the best of what comes after
//         the last
// tol     twice the error of the plain f32 loop against f64, plus 1e-5
// cost    2*d*(n*m + n + m) flop; 4*(n*d + m*d) + 8*n*k bytes, and 4*n*m of scores, k times
// source  definition
struct Params {
    n: u32, d: u32, m: u32, k: u32,
    q_at: u32, q_ld: u32, p_at: u32, p_ld: u32, score_at: u32, score_ld: u32, index_at: u32, index_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> q: array<Real>;
@group(0) @binding(1) var<storage, read_write> p_: array<Real>;
@group(0) @binding(2) var<storage, read_write> score: array<f32>;
@group(0) @binding(3) var<storage, read_write> index: array<u32>;
@group(0) @binding(8) var<storage, read_write> work: array<u32>;
@group(0) @binding(9) var<uniform> p: Params;

fn is_nan(v: f32) -> bool {
    return (bitcast<u32>(v) & 0x7fffffffu) > 0x7f800000u;
}

// Keys in the order of floats: NaN counts as minus infinity, both zeros are one.
fn rank_of(v: f32) -> u32 {
    if (is_nan(v)) { return 0x007fffffu; }
    let bits = select(bitcast<u32>(v), 0u, v == 0.0);
    return select(bits | 0x80000000u, ~bits, (bits >> 31u) == 1u);
}

// The float of a key.
fn float_of(rank: u32) -> f32 {
    return bitcast<f32>(select(~rank, rank & 0x7fffffffu, (rank >> 31u) == 1u));
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

// True if candidate (rank, index) comes before another: a larger score, or the lower index.
fn comes_before(rank: u32, index: u32, other_rank: u32, other_index: u32) -> bool {
    return rank > other_rank || (rank == other_rank && index < other_index);
}

// No candidate: any other comes before it.
const NONE = vec2<u32>(0u, 0xffffffffu);
// The best candidate of every subgroup, its rank and index, where its first invocation is.
var<workgroup> best: array<vec2<u32>, 64>;

// The one of the candidates of a subgroup that comes before all others.
fn subgroup_best(own: vec2<u32>) -> vec2<u32> {
    let rank = subgroupMax(own.x);
    return vec2<u32>(rank, subgroupMin(select(0xffffffffu, own.y, own.x == rank)));
}

@compute @workgroup_size(64)
fn lengths(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) lanes: u32,
) {
    let at = group.y * groups.x + group.x;
    var sum = 0.0;
    for (var i = local; i < p.d; i += 64u) {
        let v = query_of(at, i) + select(0.0, prototype_of(at - p.n, i), at >= p.n);
        sum = fma(v, v, sum);
    }
    let length = max(sqrt(whole_sum(vec4<f32>(sum), local, lane, lanes).x), 1e-8);
    if (local == 0u && at < p.n + p.m) { work[at] = bitcast<u32>(length); }
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
            work[p.n + p.m + row * p.m + col] = rank_of(sums[at / 4u][at % 4u] / length);
        }
    }
}

@compute @workgroup_size(64)
fn choose(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) lanes: u32,
) {
    let row = group.y * groups.x + group.x;
    if (row >= p.n) { return; }
    let scores = p.n + p.m + row * p.m;
    // What was chosen last; everything comes after the start.
    var last = vec2<u32>(0xffffffffu, 0u);
    for (var nth = 0u; nth < p.k; nth++) {
        var own = NONE;
        for (var j = local; j < p.m; j += 64u) {
            let s = work[scores + j];
            if (comes_before(last.x, last.y, s, j) && comes_before(s, j, own.x, own.y)) { own = vec2<u32>(s, j); }
        }
        let part = subgroup_best(own);
        best[local] = select(NONE, part, lane == 0u);
        workgroupBarrier();
        own = NONE;
        for (var at = lane; at < 64u; at += lanes) {
            let other = best[at];
            if (comes_before(other.x, other.y, own.x, own.y)) { own = other; }
        }
        last = subgroup_best(own);
        workgroupBarrier();
        if (local == 0u) {
            score[p.score_at + row * p.score_ld + nth] = float_of(last.x);
            index[p.index_at + row * p.index_ld + nth] = last.y;
        }
    }
}
