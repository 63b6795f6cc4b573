// op      dropout_dx             dx = dy ⊙ keep / (1 - drop)
// args    dy f32[r,c]  rng u32[4]  ->  dx f32[r,c]
// layout  row major with pitch `_ld` from unit `_at`; rng is seed low, seed high, step, 0
// launch  plain: one invocation per element of the output, 64 to a workgroup
// order   no sums
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    r*c flop and a Philox block per element; 8*r*c bytes
// source  kernels/src/ops/dropout/draw.rs; Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011)
struct Params {
    r: u32, c: u32, drop: f32, call: u32,
    dy_at: u32, dy_ld: u32, rng_at: u32, rng_ld: u32, dx_at: u32, dx_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> dy: array<f32>;
@group(0) @binding(1) var<storage, read_write> rng: array<u32>;
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;
@group(0) @binding(9) var<uniform> p: Params;

// Low and high word of a product.
fn wide_product(a: u32, b: u32) -> vec2<u32> {
    let low = (a & 0xffffu) * (b & 0xffffu);
    let one = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
    let two = (a & 0xffffu) * (b >> 16u) + (one & 0xffffu);
    return vec2<u32>(a * b, (a >> 16u) * (b >> 16u) + (one >> 16u) + (two >> 16u));
}

// Philox 4x32-10, as kernels/src/philox.rs.
fn philox(counter: vec4<u32>, key: vec2<u32>) -> vec4<u32> {
    var c = counter;
    var k = key;
    for (var round = 0u; round < 10u; round++) {
        let a = wide_product(0xd2511f53u, c.x);
        let b = wide_product(0xcd9e8d57u, c.z);
        c = vec4<u32>(b.y ^ c.y ^ k.x, b.x, a.y ^ c.w ^ k.y, a.x);
        k += vec2<u32>(0x9e3779b9u, 0xbb67ae85u);
    }
    return c;
}

// Factor of kept elements.
fn kept_scale(threshold: u32) -> f32 {
    return select(0.0, 1.0 / (1.0 - f32(threshold) / 65536.0), threshold < 65536u);
}

// The Philox block of eight elements.
fn drawn_block(block: vec2<u32>) -> vec4<u32> {
    let key = vec2<u32>(rng[p.rng_at], rng[p.rng_at + 1u]);
    return philox(vec4<u32>(block, p.call, rng[p.rng_at + 2u]), key);
}

// Draws below this drop an element: the share of 65536, halves up.
fn dropped_below(drop: f32) -> u32 {
    let v = drop * 65536.0;
    return u32(v) + select(0u, 1u, v - floor(v) >= 0.5);
}

// True if an element is kept: its 16 bits of the Philox block of eight elements are not below the threshold.
fn keeps(element: u32, threshold: u32) -> bool {
    if (threshold == 0u) { return true; }
    let words = drawn_block(vec2<u32>(element / 8u, 0u));
    let half = element % 8u;
    return ((words[half / 2u] >> (16u * (half % 2u))) & 0xffffu) >= threshold;
}

@compute @workgroup_size(64)
fn plain(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = id.y * groups.x * 64u + id.x;
    if (at >= p.r * p.c) { return; }
    let row = at / p.c;
    let col = at % p.c;
    let threshold = dropped_below(p.drop);
    var v = 0.0;
    if (keeps(at, threshold)) { v = dy[p.dy_at + row * p.dy_ld + col] * kept_scale(threshold); }
    dx[p.dx_at + row * p.dx_ld + col] = v;
}
