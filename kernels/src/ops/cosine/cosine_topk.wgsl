// op      cosine_topk            the k largest cosines of every query, descending, lower index first on ties
// args    q f32[n,d]  p f32[m,d]  ->  score f32[n,k]  index u32[n,k]
// layout  row major with pitch `_ld` from unit `_at`
// launch  plain: one invocation per query
// order   plain: i = 0..d ascending, one accumulator; candidates in index order into a descending list
// tol     twice the error of the plain f32 loop against f64, plus 1e-5
// cost    2*d*(n*m + n + m) flop; 4*(n*d + m*d) + 8*n*k bytes
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

// Product of a row of q and one of p.
fn q_dot_p(row: u32, col: u32) -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < p.d; i++) {
        sum = fma(f32(q[p.q_at + row * p.q_ld + i]), f32(p_[p.p_at + col * p.p_ld + i]), sum);
    }
    return sum;
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

@compute @workgroup_size(64)
fn plain(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let row = id.y * groups.x * 64u + id.x;
    if (row >= p.n) { return; }
    let length = q_length(row);
    let scores = p.score_at + row * p.score_ld;
    let indices = p.index_at + row * p.index_ld;
    for (var j = 0u; j < p.m; j++) {
        let s = rank_of(q_dot_p(row, j) / (length * p_length(j)));
        // Candidates come in index order, so behind its equals is where the lower index wins.
        var at = min(j, p.k);
        while (at > 0u) {
            if (rank_of(score[scores + at - 1u]) >= s) { break; }
            if (at < p.k) {
                score[scores + at] = score[scores + at - 1u];
                index[indices + at] = index[indices + at - 1u];
            }
            at -= 1u;
        }
        if (at < p.k) {
            score[scores + at] = float_of(s);
            index[indices + at] = j;
        }
    }
}
