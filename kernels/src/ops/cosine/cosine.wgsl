// op      cosine                 y[n, m] = <q_n, p_m> / (max(|q_n|, 1e-8) max(|p_m|, 1e-8))
// args    q f32[n,d]  p f32[m,d]  ->  y f32[n,m]
// layout  row major with pitch `_ld` from unit `_at`
// launch  plain: one invocation per y, 16 x 16, grid ceil(m/16) x ceil(n/16); lengths are made for every y
// order   plain: i = 0..d ascending, one accumulator
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

@compute @workgroup_size(16, 16)
fn plain(@builtin(global_invocation_id) id: vec3<u32>) {
    let col = id.x;
    let row = id.y;
    if (row >= p.n || col >= p.m) { return; }
    y[p.y_at + row * p.y_ld + col] = q_dot_p(row, col) / (q_length(row) * p_length(col));
}
