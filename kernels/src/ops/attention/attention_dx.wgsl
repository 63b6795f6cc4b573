// op      attention_dx           dqkv from dy, probabilities recomputed from stats
// args    qkv f32[r,e]  valid u8[b,t]  rng u32[4]?  y f32[r,c]  stats f32[r,h]  dy f32[r,c]  ->  dqkv f32[r,e]
// layout  row major with pitch `_ld` from unit `_at`; four u8 to a word, the lowest byte first; a row of qkv is q, k,
//         v of all heads, each head-major
// launch  queries: one invocation per query and head, dq; keys: one per key and head, dk and dv
// order   keys ascending; queries ascending; one accumulator each
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    5*r*t*c flop; 4*(2*r*e + 2*r*c + r*h) + r bytes, and 8*r*t*h of probabilities and their gradients
// source  definition; dropout as kernels/src/ops/dropout/draw.rs
struct Params {
    r: u32, e: u32, b: u32, t: u32, c: u32, h: u32, heads: u32, drop: f32, call: u32,
    qkv_at: u32, qkv_ld: u32, valid_at: u32, valid_ld: u32, rng_at: u32, rng_ld: u32, y_at: u32, y_ld: u32,
    stats_at: u32, stats_ld: u32, dy_at: u32, dy_ld: u32, dqkv_at: u32, dqkv_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> qkv: array<Real>;
@group(0) @binding(1) var<storage, read_write> valid: array<u32>;
@group(0) @binding(2) var<storage, read_write> rng: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<storage, read_write> stats: array<f32>;
@group(0) @binding(5) var<storage, read_write> dy: array<Real>;
@group(0) @binding(6) var<storage, read_write> dqkv: array<f32>;
@group(0) @binding(8) var<storage, read_write> work: array<u32>;
@group(0) @binding(9) var<uniform> p: Params;

// Byte `at % 4` of a word.
fn byte_of(word: u32, at: u32) -> u32 {
    return (word >> (8u * (at % 4u))) & 0xffu;
}

fn has(arg: u32) -> bool {
    return ((p.present >> arg) & 1u) == 1u;
}

// True if a token is there and its flag is set.
fn visible_token(sequence: u32, token: u32) -> bool {
    if (token >= p.t) { return false; }
    let at = p.valid_at + sequence * p.valid_ld + token;
    return byte_of(valid[at / 4u], at) != 0u;
}

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

// Draws below this drop an element; 0 if none is dropped.
fn drop_threshold() -> u32 {
    if (!has(2u)) { return 0u; }
    let v = p.drop * 65536.0;
    return u32(v) + select(0u, 1u, v - floor(v) >= 0.5);
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

// Factors of the probabilities of four neighbouring keys: 0 if dropped. `row` counts (sequence, head, query).
fn factors_of(row: u32, key: u32, threshold: u32) -> vec4<f32> {
    if (threshold == 0u) { return vec4<f32>(1.0); }
    var element = wide_product(row, p.t);
    element.x += key;
    if (element.x < key) { element.y += 1u; }
    var block = vec2<u32>((element.x >> 3u) | (element.y << 29u), element.y >> 3u);
    var words = drawn_block(block);
    var half = element.x % 8u;
    var factors = vec4<f32>();
    for (var i = 0u; i < 4u; i++) {
        if (half == 8u) {
            half = 0u;
            block.x += 1u;
            if (block.x == 0u) { block.y += 1u; }
            words = drawn_block(block);
        }
        let kept = ((words[half / 2u] >> (16u * (half % 2u))) & 0xffffu) >= threshold;
        factors[i] = select(0.0, kept_scale(threshold), kept);
        half += 1u;
    }
    return factors;
}

// First column of part 0 (q), 1 (k) or 2 (v) of a head in the row of a token.
fn part_at(part: u32, head: u32, sequence: u32, token: u32) -> u32 {
    return p.qkv_at + (sequence * p.t + token) * p.qkv_ld + part * p.c + head * (p.c / p.heads);
}

@compute @workgroup_size(64)
fn queries(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = id.y * groups.x * 64u + id.x;
    if (at >= p.r * p.heads) { return; }
    let head = at % p.heads;
    let row = at / p.heads;
    let sequence = row / p.t;
    let query = row % p.t;
    let d = p.c / p.heads;
    let scale = 1.0 / sqrt(f32(d));
    let from_q = part_at(0u, head, sequence, query);
    let from_dy = p.dy_at + row * p.dy_ld + head * d;
    let from_y = p.y_at + row * p.y_ld + head * d;
    var dy_y = 0.0;
    for (var i = 0u; i < d; i++) { dy_y = fma(f32(dy[from_dy + i]), y[from_y + i], dy_y); }
    let threshold = drop_threshold();
    let first = (sequence * p.heads + head) * p.t + query;
    let pairs = 2u * at * p.t;
    for (var key = 0u; key <= query; key++) {
        var dlogit = 0.0;
        var weight = 0.0;
        if (visible_token(sequence, key)) {
            let from_k = part_at(1u, head, sequence, key);
            let from_v = part_at(2u, head, sequence, key);
            var score = 0.0;
            var dy_v = 0.0;
            for (var i = 0u; i < d; i++) {
                score = fma(f32(qkv[from_q + i]), f32(qkv[from_k + i]), score);
                dy_v = fma(f32(dy[from_dy + i]), f32(qkv[from_v + i]), dy_v);
            }
            let probability = exp(score * scale - stats[p.stats_at + row * p.stats_ld + head]);
            let factor = factors_of(first, key, threshold).x;
            dlogit = probability * (factor * dy_v - dy_y) * scale;
            weight = factor * probability;
        }
        work[pairs + 2u * key] = bitcast<u32>(dlogit);
        work[pairs + 2u * key + 1u] = bitcast<u32>(weight);
    }
    for (var i = 0u; i < d; i++) {
        var value = 0.0;
        for (var key = 0u; key <= query; key++) {
            let dlogit = bitcast<f32>(work[pairs + 2u * key]);
            // Hidden keys are not read.
            if (dlogit != 0.0) { value = fma(dlogit, f32(qkv[part_at(1u, head, sequence, key) + i]), value); }
        }
        dqkv[p.dqkv_at + row * p.dqkv_ld + head * d + i] = value;
    }
}

@compute @workgroup_size(64)
fn keys(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = id.y * groups.x * 64u + id.x;
    if (at >= p.r * p.heads) { return; }
    let head = at % p.heads;
    let row = at / p.heads;
    let sequence = row / p.t;
    let key = row % p.t;
    let d = p.c / p.heads;
    let seen = visible_token(sequence, key);
    for (var i = 0u; i < d; i++) {
        var to_k = 0.0;
        var to_v = 0.0;
        for (var query = key; query < p.t; query++) {
            if (!seen) { break; }
            let pair = 2u * (((sequence * p.t + query) * p.heads + head) * p.t + key);
            let from_dy = p.dy_at + (sequence * p.t + query) * p.dy_ld + head * d;
            to_k = fma(bitcast<f32>(work[pair]), f32(qkv[part_at(0u, head, sequence, query) + i]), to_k);
            to_v = fma(bitcast<f32>(work[pair + 1u]), f32(dy[from_dy + i]), to_v);
        }
        let to = p.dqkv_at + row * p.dqkv_ld + head * d + i;
        dqkv[to + p.c] = to_k;
        dqkv[to + 2u * p.c] = to_v;
    }
}
