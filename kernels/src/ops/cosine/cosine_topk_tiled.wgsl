// op      cosine_topk            the k largest cosines of every query, descending, lower index first on ties
// args    q f32[n,d]  p f32[m,d]  ->  score f32[n,k]  index u32[n,k]
// layout  row major with pitch `_ld` from unit `_at`
// launch  lengths: one invocation per row of q and p; tiled: 64 x 64 cosines per workgroup of 16 x 16, each invocation
//         4 x 4, d in steps of 16 through workgroup memory; grid ceil(m/64) x ceil(n/64); choose: one workgroup of 64
//         per query
// order   tiled: i = 0..d ascending, one accumulator; choose: k rounds, each the best of what comes after the last
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
// The best candidate of each invocation: its rank and index.
var<workgroup> best_rank: array<u32, 64>;
var<workgroup> best_index: array<u32, 64>;

// True if candidate (rank, index) comes before another: a larger score, or the lower index.
fn comes_before(rank: u32, index: u32, other_rank: u32, other_index: u32) -> bool {
    return rank > other_rank || (rank == other_rank && index < other_index);
}

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
            work[p.n + p.m + row * p.m + col] = rank_of(sums[at / 4u][at % 4u] / length);
        }
    }
}

@compute @workgroup_size(64)
fn choose(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = group.y * groups.x + group.x;
    if (row >= p.n) { return; }
    let scores = p.n + p.m + row * p.m;
    // What was chosen last; everything comes after the start.
    var last_rank = 0xffffffffu;
    var last_index = 0u;
    for (var nth = 0u; nth < p.k; nth++) {
        var own_rank = 0u;
        var own_index = p.m;  // none
        for (var j = lane; j < p.m; j += 64u) {
            let s = work[scores + j];
            let left_over = comes_before(last_rank, last_index, s, j);
            if (left_over && (own_index == p.m || comes_before(s, j, own_rank, own_index))) {
                own_rank = s;
                own_index = j;
            }
        }
        best_rank[lane] = own_rank;
        best_index[lane] = own_index;
        workgroupBarrier();
        for (var half = 32u; half > 0u; half /= 2u) {
            if (lane < half) {
                let s = best_rank[lane + half];
                let j = best_index[lane + half];
                let none = best_index[lane] == p.m;
                if (j != p.m && (none || comes_before(s, j, best_rank[lane], best_index[lane]))) {
                    best_rank[lane] = s;
                    best_index[lane] = j;
                }
            }
            workgroupBarrier();
        }
        last_rank = best_rank[0];
        last_index = best_index[0];
        if (lane == 0u) {
            score[p.score_at + row * p.score_ld + nth] = float_of(last_rank);
            index[p.index_at + row * p.index_ld + nth] = last_index;
        }
        workgroupBarrier();
    }
}
