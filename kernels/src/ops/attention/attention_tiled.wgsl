// op      attention              y = dropout(softmax(q kᵀ / sqrt(d)) v over visible keys); stats = log-sum-exp per
//         head
// args    qkv f32[r,e]  valid u8[b,t]  rng u32[4]?  ->  y f32[r,c]  stats f32[r,h]
// layout  row major with pitch `_ld` from unit `_at`; four u8 to a word, the lowest byte first; a row of qkv is q, k,
//         v of all heads, each head-major
// launch  tiled: 64 queries of a head by 64 columns of its values per workgroup of 16 x 16, each invocation 4 x 4,
//         keys in blocks of 64 under a running softmax; grid b*heads x ceil(t/64) x ceil(d/64)
// order   tiled: keys ascending; what was summed shrinks when a larger score is met
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

// Element of part 0 (q), 1 (k) or 2 (v) of a head; 0 outside.
fn part_of(part: u32, head: u32, sequence: u32, token: u32, i: u32) -> f32 {
    if (token >= p.t || i >= p.c / p.heads) { return 0.0; }
    return f32(qkv[part_at(part, head, sequence, token) + i]);
}

// The same; 0 where a token is hidden.
fn visible_part_of(part: u32, head: u32, sequence: u32, token: u32, i: u32) -> f32 {
    if (!visible_token(sequence, token) || i >= p.c / p.heads) { return 0.0; }
    return f32(qkv[part_at(part, head, sequence, token) + i]);
}

// Scores that a query sees of four keys; -1e30 for the others.
fn seen_scores(sequence: u32, query: u32, key: u32, scores: vec4<f32>) -> vec4<f32> {
    let seen = vec4<bool>(
        key <= query && visible_token(sequence, key), key + 1u <= query && visible_token(sequence, key + 1u),
        key + 2u <= query && visible_token(sequence, key + 2u), key + 3u <= query && visible_token(sequence, key + 3u),
    );
    return select(vec4<f32>(-1e30), scores, seen);
}

// exp(score - top), 0 for keys that are not seen.
fn exponents(scores: vec4<f32>, top: f32) -> vec4<f32> {
    return select(vec4<f32>(), exp(scores - top), scores > vec4<f32>(-1e29));
}

// 16 columns by 64 rows, and 16 rows by 64 columns. A pitch of 17 spreads a column over the banks.
var<workgroup> left: array<vec4<f32>, 272>;
var<workgroup> right: array<vec4<f32>, 272>;
// A value for every row and column of invocations.
var<workgroup> gathered: array<vec4<f32>, 272>;

@compute @workgroup_size(16, 16)
fn tiled(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let first = group.y * 64u;
    let query = first + local.y * 4u;
    let head = group.x % p.heads;
    let sequence = group.x / p.heads;
    let d = p.c / p.heads;
    let scale = 1.0 / sqrt(f32(d));
    let threshold = drop_threshold();
    let column = group.z * 64u + local.x * 4u;
    let drawn = (sequence * p.heads + head) * p.t + query;
    var top = vec4<f32>(-1e30);
    var sum = vec4<f32>();
    var value0 = vec4<f32>();
    var value1 = vec4<f32>();
    var value2 = vec4<f32>();
    var value3 = vec4<f32>();
    for (var block = 0u; block < min(first + 64u, p.t); block += 64u) {
        let key = block + local.x * 4u;
        var score0 = vec4<f32>();
        var score1 = vec4<f32>();
        var score2 = vec4<f32>();
        var score3 = vec4<f32>();
        for (var i = 0u; i < d; i += 16u) {
            left[local.x * 17u + local.y] = vec4<f32>(
                part_of(0u, head, sequence, query, i + local.x), part_of(0u, head, sequence, query + 1u, i + local.x),
                part_of(0u, head, sequence, query + 2u, i + local.x),
                part_of(0u, head, sequence, query + 3u, i + local.x),
            );
            right[local.x * 17u + local.y] = vec4<f32>(
                visible_part_of(1u, head, sequence, block + local.y * 4u, i + local.x),
                visible_part_of(1u, head, sequence, block + local.y * 4u + 1u, i + local.x),
                visible_part_of(1u, head, sequence, block + local.y * 4u + 2u, i + local.x),
                visible_part_of(1u, head, sequence, block + local.y * 4u + 3u, i + local.x),
            );
            workgroupBarrier();
            for (var j = 0u; j < 16u; j++) {
                let a = left[j * 17u + local.y];
                let b = right[j * 17u + local.x];
                score0 = fma(vec4<f32>(a.x), b, score0);
                score1 = fma(vec4<f32>(a.y), b, score1);
                score2 = fma(vec4<f32>(a.z), b, score2);
                score3 = fma(vec4<f32>(a.w), b, score3);
            }
            workgroupBarrier();
        }
        score0 = seen_scores(sequence, query, key, score0 * scale);
        score1 = seen_scores(sequence, query + 1u, key, score1 * scale);
        score2 = seen_scores(sequence, query + 2u, key, score2 * scale);
        score3 = seen_scores(sequence, query + 3u, key, score3 * scale);
        // The largest score of each of the four queries.
        gathered[local.y * 17u + local.x] = vec4<f32>(
            max(max(score0.x, score0.y), max(score0.z, score0.w)),
            max(max(score1.x, score1.y), max(score1.z, score1.w)),
            max(max(score2.x, score2.y), max(score2.z, score2.w)),
            max(max(score3.x, score3.y), max(score3.z, score3.w)),
        );
        workgroupBarrier();
        let before = top;
        for (var j = 0u; j < 16u; j++) { top = max(top, gathered[local.y * 17u + j]); }
        workgroupBarrier();
        score0 = exponents(score0, top.x);
        score1 = exponents(score1, top.y);
        score2 = exponents(score2, top.z);
        score3 = exponents(score3, top.w);
        let one = vec4<f32>(1.0);
        gathered[local.y * 17u + local.x] = vec4<f32>(
            dot(score0, one), dot(score1, one), dot(score2, one), dot(score3, one),
        );
        workgroupBarrier();
        let shrink = exp(before - top);
        sum *= shrink;
        for (var j = 0u; j < 16u; j++) { sum += gathered[local.y * 17u + j]; }
        value0 *= shrink.x;
        value1 *= shrink.y;
        value2 *= shrink.z;
        value3 *= shrink.w;
        if (threshold != 0u) {
            score0 *= factors_of(drawn, key, threshold);
            score1 *= factors_of(drawn + 1u, key, threshold);
            score2 *= factors_of(drawn + 2u, key, threshold);
            score3 *= factors_of(drawn + 3u, key, threshold);
        }
        for (var strip = 0u; strip < 4u; strip++) {
            if (local.x / 4u == strip) {
                let at = local.x % 4u * 4u * 17u + local.y;
                left[at] = vec4<f32>(score0.x, score1.x, score2.x, score3.x);
                left[at + 17u] = vec4<f32>(score0.y, score1.y, score2.y, score3.y);
                left[at + 34u] = vec4<f32>(score0.z, score1.z, score2.z, score3.z);
                left[at + 51u] = vec4<f32>(score0.w, score1.w, score2.w, score3.w);
            }
            let token = block + strip * 16u + local.y;
            right[local.y * 17u + local.x] = vec4<f32>(
                visible_part_of(2u, head, sequence, token, column),
                visible_part_of(2u, head, sequence, token, column + 1u),
                visible_part_of(2u, head, sequence, token, column + 2u),
                visible_part_of(2u, head, sequence, token, column + 3u),
            );
            workgroupBarrier();
            for (var j = 0u; j < 16u; j++) {
                let a = left[j * 17u + local.y];
                let b = right[j * 17u + local.x];
                value0 = fma(vec4<f32>(a.x), b, value0);
                value1 = fma(vec4<f32>(a.y), b, value1);
                value2 = fma(vec4<f32>(a.z), b, value2);
                value3 = fma(vec4<f32>(a.w), b, value3);
            }
            workgroupBarrier();
        }
    }
    var values = array<vec4<f32>, 4>(value0, value1, value2, value3);
    for (var at = 0u; at < 16u; at++) {
        let token = query + at / 4u;
        let i = column + at % 4u;
        if (token < p.t && i < d) {
            let to = p.y_at + (sequence * p.t + token) * p.y_ld + head * d + i;
            y[to] = select(0.0, values[at / 4u][at % 4u] / sum[at / 4u], sum[at / 4u] > 0.0);
        }
    }
    if (local.x < 4u && group.z == 0u && query + local.x < p.t) {
        let to = p.stats_at + (sequence * p.t + query + local.x) * p.stats_ld + head;
        stats[to] = select(0.0, top[local.x] + log(sum[local.x]), sum[local.x] > 0.0);
    }
}
