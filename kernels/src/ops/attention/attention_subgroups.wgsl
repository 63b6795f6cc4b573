// op      attention              y = dropout(softmax(q kᵀ / sqrt(d)) v over visible keys); stats = log-sum-exp per
//         head
// args    qkv f32[r,e]  valid u8[b,t]  rng u32[4]?  ->  y f32[r,c]  stats f32[r,h]
// layout  row major with pitch `_ld` from unit `_at`; four u8 to a word, the lowest byte first; a row of qkv is q, k,
//         v of all heads, each head-major
// launch  subgroups: one workgroup of 64 per query, head and 64 columns of its values, each invocation a key, then a
//         column, keys in blocks of 64 under a running softmax; grid a line of r*heads x ceil(d/64)
// order   subgroups: maximum and sum of a block over the subgroup, then over subgroups; values by keys ascending; what
//         was summed shrinks when a larger score is met; the size of a subgroup is the device's
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    2*r*t*c flop; 4*(r*e + r*c + r*h) + r bytes; scores are made again for every 64 columns
// source  definition; dropout as kernels/src/ops/dropout/draw.rs
struct Params {
    r: u32, e: u32, b: u32, t: u32, c: u32, h: u32, heads: u32, drop: f32, call: u32,
    qkv_at: u32, qkv_ld: u32, valid_at: u32, valid_ld: u32, rng_at: u32, rng_ld: u32, y_at: u32, y_ld: u32,
    stats_at: u32, stats_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> qkv: array<Real>;
@group(0) @binding(1) var<storage, read_write> valid: array<u32>;
@group(0) @binding(2) var<storage, read_write> rng: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<storage, read_write> stats: array<f32>;
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

// A value for every subgroup, where its first invocation is.
var<workgroup> parts: array<f32, 64>;
// Of every key of a block.
var<workgroup> weights: array<f32, 64>;

// Largest value of the workgroup, of whose invocations this is `local`, the one `lane` of a subgroup of `lanes`.
fn whole_maximum(own: f32, local: u32, lane: u32, lanes: u32) -> f32 {
    let part = subgroupMax(own);
    workgroupBarrier();
    parts[local] = select(-1e30, part, lane == 0u);
    workgroupBarrier();
    var top = -1e30;
    for (var at = lane; at < 64u; at += lanes) { top = max(top, parts[at]); }
    return subgroupMax(top);
}

// Sum over the workgroup in the same way.
fn whole_total(own: f32, local: u32, lane: u32, lanes: u32) -> f32 {
    let part = subgroupAdd(own);
    workgroupBarrier();
    parts[local] = select(0.0, part, lane == 0u);
    workgroupBarrier();
    var sum = 0.0;
    for (var at = lane; at < 64u; at += lanes) { sum += parts[at]; }
    return subgroupAdd(sum);
}

@compute @workgroup_size(64)
fn subgroups(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) lanes: u32,
) {
    let at = group.y * groups.x + group.x;
    if (at >= p.r * p.heads) { return; }
    let head = at % p.heads;
    let row = at / p.heads;
    let sequence = row / p.t;
    let query = row % p.t;
    let d = p.c / p.heads;
    let scale = 1.0 / sqrt(f32(d));
    let from_q = part_at(0u, head, sequence, query);
    let threshold = drop_threshold();
    let drawn = (sequence * p.heads + head) * p.t + query;
    let column = group.z * 64u + local;
    var top = -1e30;
    var sum = 0.0;
    var value = 0.0;
    for (var block = 0u; block <= query; block += 64u) {
        let key = block + local;
        let seen = key <= query && visible_token(sequence, key);
        var score = -1e30;
        if (seen) {
            let from_k = part_at(1u, head, sequence, key);
            score = 0.0;
            for (var i = 0u; i < d; i++) { score = fma(f32(qkv[from_q + i]), f32(qkv[from_k + i]), score); }
            score *= scale;
        }
        let before = top;
        top = max(top, whole_maximum(score, local, lane, lanes));
        let shrink = exp(before - top);
        var weight = select(0.0, exp(score - top), seen);
        sum = fma(sum, shrink, whole_total(weight, local, lane, lanes));
        if (threshold != 0u && seen) { weight *= factors_of(drawn, key, threshold).x; }
        weights[local] = weight;
        workgroupBarrier();
        value *= shrink;
        for (var j = 0u; j < min(64u, query + 1u - block); j++) {
            // Hidden and dropped values are not read.
            if (column < d && weights[j] != 0.0) {
                value = fma(weights[j], f32(qkv[part_at(2u, head, sequence, block + j) + column]), value);
            }
        }
    }
    if (column < d) { y[p.y_at + row * p.y_ld + head * d + column] = select(0.0, value / sum, sum > 0.0); }
    if (column == 0u) { stats[p.stats_at + row * p.stats_ld + head] = select(0.0, top + log(sum), sum > 0.0); }
}
