// op      attention_dx           dqkv from dy, probabilities recomputed from stats
// args    qkv f32[r,e]  valid u8[b,t]  rng u32[4]?  y f32[r,c]  stats f32[r,h]  dy f32[r,c]  ->  dqkv f32[r,e]
// layout  row major with pitch `_ld` from unit `_at`; four u8 to a word, the lowest byte first; a row of qkv is q, k,
//         v of all heads, each head-major
// launch  dots: one invocation per query and head; queries (dq), keys (dk, dv): 64 tokens of a head by 64 columns per
//         workgroup of 16 x 16, each invocation 4 x 4, the other tokens in blocks of 64; grid b*heads x ceil(t/64) x
//         ceil(d/64)
// order   queries: keys ascending; keys: queries ascending; one accumulator each
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    5*r*t*c flop; 4*(2*r*e + 2*r*c + r*h) + r bytes; probabilities are made twice, and again for every 64
//         columns
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

// Element of the gradient of a head's output; 0 outside.
fn head_dy_of(head: u32, sequence: u32, token: u32, i: u32) -> f32 {
    let d = p.c / p.heads;
    if (token >= p.t || i >= d) { return 0.0; }
    return f32(dy[p.dy_at + (sequence * p.t + token) * p.dy_ld + head * d + i]);
}

// exp(score - stat) of four keys, 0 for those that are not seen.
fn probabilities_of(sequence: u32, query: u32, key: u32, scores: vec4<f32>, stat: f32) -> vec4<f32> {
    let seen = vec4<bool>(
        key <= query && visible_token(sequence, key), key + 1u <= query && visible_token(sequence, key + 1u),
        key + 2u <= query && visible_token(sequence, key + 2u), key + 3u <= query && visible_token(sequence, key + 3u),
    );
    return select(vec4<f32>(), exp(min(scores - stat, vec4<f32>(80.0))), seen);
}

// Statistic of a query; 0 outside.
fn stat_of(head: u32, sequence: u32, query: u32) -> f32 {
    if (query >= p.t) { return 0.0; }
    return stats[p.stats_at + (sequence * p.t + query) * p.stats_ld + head];
}

// <dy, y> of a query, which the dispatch `dots` has stored; 0 outside.
fn dy_y_of(head: u32, sequence: u32, query: u32) -> f32 {
    if (query >= p.t) { return 0.0; }
    return bitcast<f32>(work[(sequence * p.t + query) * p.heads + head]);
}

// 16 columns by 64 rows, and 16 rows by 64 columns. A pitch of 17 spreads a column over the banks.
var<workgroup> left: array<vec4<f32>, 272>;
var<workgroup> right: array<vec4<f32>, 272>;

@compute @workgroup_size(64)
fn dots(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = id.y * groups.x * 64u + id.x;
    if (at >= p.r * p.heads) { return; }
    let d = p.c / p.heads;
    let from_dy = p.dy_at + at / p.heads * p.dy_ld + at % p.heads * d;
    let from_y = p.y_at + at / p.heads * p.y_ld + at % p.heads * d;
    var sum = 0.0;
    for (var i = 0u; i < d; i++) { sum = fma(f32(dy[from_dy + i]), y[from_y + i], sum); }
    work[at] = bitcast<u32>(sum);
}

@compute @workgroup_size(16, 16)
fn queries(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let first = group.y * 64u;
    let query = first + local.y * 4u;
    let head = group.x % p.heads;
    let sequence = group.x / p.heads;
    let d = p.c / p.heads;
    let scale = 1.0 / sqrt(f32(d));
    let threshold = drop_threshold();
    let column = group.z * 64u + local.x * 4u;
    let drawn = (sequence * p.heads + head) * p.t + query;
    var to_q0 = vec4<f32>();
    var to_q1 = vec4<f32>();
    var to_q2 = vec4<f32>();
    var to_q3 = vec4<f32>();
    for (var block = 0u; block < min(first + 64u, p.t); block += 64u) {
        let key = block + local.x * 4u;
        let staged = block + local.y * 4u;
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
                visible_part_of(1u, head, sequence, staged, i + local.x),
                visible_part_of(1u, head, sequence, staged + 1u, i + local.x),
                visible_part_of(1u, head, sequence, staged + 2u, i + local.x),
                visible_part_of(1u, head, sequence, staged + 3u, i + local.x),
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
        var dy_v0 = vec4<f32>();
        var dy_v1 = vec4<f32>();
        var dy_v2 = vec4<f32>();
        var dy_v3 = vec4<f32>();
        for (var i = 0u; i < d; i += 16u) {
            left[local.x * 17u + local.y] = vec4<f32>(
                head_dy_of(head, sequence, query, i + local.x), head_dy_of(head, sequence, query + 1u, i + local.x),
                head_dy_of(head, sequence, query + 2u, i + local.x),
                head_dy_of(head, sequence, query + 3u, i + local.x),
            );
            right[local.x * 17u + local.y] = vec4<f32>(
                visible_part_of(2u, head, sequence, staged, i + local.x),
                visible_part_of(2u, head, sequence, staged + 1u, i + local.x),
                visible_part_of(2u, head, sequence, staged + 2u, i + local.x),
                visible_part_of(2u, head, sequence, staged + 3u, i + local.x),
            );
            workgroupBarrier();
            for (var j = 0u; j < 16u; j++) {
                let a = left[j * 17u + local.y];
                let b = right[j * 17u + local.x];
                dy_v0 = fma(vec4<f32>(a.x), b, dy_v0);
                dy_v1 = fma(vec4<f32>(a.y), b, dy_v1);
                dy_v2 = fma(vec4<f32>(a.z), b, dy_v2);
                dy_v3 = fma(vec4<f32>(a.w), b, dy_v3);
            }
            workgroupBarrier();
        }
        let stat0 = stat_of(head, sequence, query);
        let share0 = dy_v0 * factors_of(drawn, key, threshold) - dy_y_of(head, sequence, query);
        score0 = probabilities_of(sequence, query, key, score0 * scale, stat0) * share0 * scale;
        let stat1 = stat_of(head, sequence, query + 1u);
        let share1 = dy_v1 * factors_of(drawn + 1u, key, threshold) - dy_y_of(head, sequence, query + 1u);
        score1 = probabilities_of(sequence, query + 1u, key, score1 * scale, stat1) * share1 * scale;
        let stat2 = stat_of(head, sequence, query + 2u);
        let share2 = dy_v2 * factors_of(drawn + 2u, key, threshold) - dy_y_of(head, sequence, query + 2u);
        score2 = probabilities_of(sequence, query + 2u, key, score2 * scale, stat2) * share2 * scale;
        let stat3 = stat_of(head, sequence, query + 3u);
        let share3 = dy_v3 * factors_of(drawn + 3u, key, threshold) - dy_y_of(head, sequence, query + 3u);
        score3 = probabilities_of(sequence, query + 3u, key, score3 * scale, stat3) * share3 * scale;
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
                visible_part_of(1u, head, sequence, token, column),
                visible_part_of(1u, head, sequence, token, column + 1u),
                visible_part_of(1u, head, sequence, token, column + 2u),
                visible_part_of(1u, head, sequence, token, column + 3u),
            );
            workgroupBarrier();
            for (var j = 0u; j < 16u; j++) {
                let a = left[j * 17u + local.y];
                let b = right[j * 17u + local.x];
                to_q0 = fma(vec4<f32>(a.x), b, to_q0);
                to_q1 = fma(vec4<f32>(a.y), b, to_q1);
                to_q2 = fma(vec4<f32>(a.z), b, to_q2);
                to_q3 = fma(vec4<f32>(a.w), b, to_q3);
            }
            workgroupBarrier();
        }
    }
    var to_qs = array<vec4<f32>, 4>(to_q0, to_q1, to_q2, to_q3);
    for (var at = 0u; at < 16u; at++) {
        let token = query + at / 4u;
        let i = column + at % 4u;
        if (token < p.t && i < d) {
            dqkv[p.dqkv_at + (sequence * p.t + token) * p.dqkv_ld + head * d + i] = to_qs[at / 4u][at % 4u];
        }
    }
}

@compute @workgroup_size(16, 16)
fn keys(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let first = group.y * 64u;
    let key = first + local.y * 4u;
    let head = group.x % p.heads;
    let sequence = group.x / p.heads;
    let d = p.c / p.heads;
    let scale = 1.0 / sqrt(f32(d));
    let threshold = drop_threshold();
    let column = group.z * 64u + local.x * 4u;
    let drawn = (sequence * p.heads + head) * p.t;
    var to_k0 = vec4<f32>();
    var to_k1 = vec4<f32>();
    var to_k2 = vec4<f32>();
    var to_k3 = vec4<f32>();
    var to_v0 = vec4<f32>();
    var to_v1 = vec4<f32>();
    var to_v2 = vec4<f32>();
    var to_v3 = vec4<f32>();
    for (var block = first; block < p.t; block += 64u) {
        let query = block + local.x * 4u;
        let staged = block + local.y * 4u;
        var score0 = vec4<f32>();
        var score1 = vec4<f32>();
        var score2 = vec4<f32>();
        var score3 = vec4<f32>();
        for (var i = 0u; i < d; i += 16u) {
            left[local.x * 17u + local.y] = vec4<f32>(
                visible_part_of(1u, head, sequence, key, i + local.x),
                visible_part_of(1u, head, sequence, key + 1u, i + local.x),
                visible_part_of(1u, head, sequence, key + 2u, i + local.x),
                visible_part_of(1u, head, sequence, key + 3u, i + local.x),
            );
            right[local.x * 17u + local.y] = vec4<f32>(
                part_of(0u, head, sequence, staged, i + local.x), part_of(0u, head, sequence, staged + 1u, i + local.x),
                part_of(0u, head, sequence, staged + 2u, i + local.x),
                part_of(0u, head, sequence, staged + 3u, i + local.x),
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
        var dy_v0 = vec4<f32>();
        var dy_v1 = vec4<f32>();
        var dy_v2 = vec4<f32>();
        var dy_v3 = vec4<f32>();
        for (var i = 0u; i < d; i += 16u) {
            left[local.x * 17u + local.y] = vec4<f32>(
                visible_part_of(2u, head, sequence, key, i + local.x),
                visible_part_of(2u, head, sequence, key + 1u, i + local.x),
                visible_part_of(2u, head, sequence, key + 2u, i + local.x),
                visible_part_of(2u, head, sequence, key + 3u, i + local.x),
            );
            right[local.x * 17u + local.y] = vec4<f32>(
                head_dy_of(head, sequence, staged, i + local.x), head_dy_of(head, sequence, staged + 1u, i + local.x),
                head_dy_of(head, sequence, staged + 2u, i + local.x),
                head_dy_of(head, sequence, staged + 3u, i + local.x),
            );
            workgroupBarrier();
            for (var j = 0u; j < 16u; j++) {
                let a = left[j * 17u + local.y];
                let b = right[j * 17u + local.x];
                dy_v0 = fma(vec4<f32>(a.x), b, dy_v0);
                dy_v1 = fma(vec4<f32>(a.y), b, dy_v1);
                dy_v2 = fma(vec4<f32>(a.z), b, dy_v2);
                dy_v3 = fma(vec4<f32>(a.w), b, dy_v3);
            }
            workgroupBarrier();
        }
        // Rows are keys here: turned, so that neighbours are keys of one query.
        var scores = transpose(mat4x4<f32>(score0, score1, score2, score3));
        var weights = scores;
        let dy_v = transpose(mat4x4<f32>(dy_v0, dy_v1, dy_v2, dy_v3));
        for (var j = 0u; j < 4u; j++) {
            let row = query + j;
            let probabilities = probabilities_of(sequence, row, key, scores[j] * scale, stat_of(head, sequence, row));
            let factors = factors_of(drawn + row, key, threshold);
            let inside = select(0.0, 1.0, row < p.t);
            scores[j] = inside * scale * probabilities * (factors * dy_v[j] - dy_y_of(head, sequence, row));
            weights[j] = inside * factors * probabilities;
        }
        scores = transpose(scores);
        weights = transpose(weights);
        score0 = scores[0];
        score1 = scores[1];
        score2 = scores[2];
        score3 = scores[3];
        let weight0 = weights[0];
        let weight1 = weights[1];
        let weight2 = weights[2];
        let weight3 = weights[3];
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
                part_of(0u, head, sequence, token, column), part_of(0u, head, sequence, token, column + 1u),
                part_of(0u, head, sequence, token, column + 2u), part_of(0u, head, sequence, token, column + 3u),
            );
            workgroupBarrier();
            for (var j = 0u; j < 16u; j++) {
                let a = left[j * 17u + local.y];
                let b = right[j * 17u + local.x];
                to_k0 = fma(vec4<f32>(a.x), b, to_k0);
                to_k1 = fma(vec4<f32>(a.y), b, to_k1);
                to_k2 = fma(vec4<f32>(a.z), b, to_k2);
                to_k3 = fma(vec4<f32>(a.w), b, to_k3);
            }
            workgroupBarrier();
        }
        for (var strip = 0u; strip < 4u; strip++) {
            if (local.x / 4u == strip) {
                let at = local.x % 4u * 4u * 17u + local.y;
                left[at] = vec4<f32>(weight0.x, weight1.x, weight2.x, weight3.x);
                left[at + 17u] = vec4<f32>(weight0.y, weight1.y, weight2.y, weight3.y);
                left[at + 34u] = vec4<f32>(weight0.z, weight1.z, weight2.z, weight3.z);
                left[at + 51u] = vec4<f32>(weight0.w, weight1.w, weight2.w, weight3.w);
            }
            let token = block + strip * 16u + local.y;
            right[local.y * 17u + local.x] = vec4<f32>(
                head_dy_of(head, sequence, token, column), head_dy_of(head, sequence, token, column + 1u),
                head_dy_of(head, sequence, token, column + 2u), head_dy_of(head, sequence, token, column + 3u),
            );
            workgroupBarrier();
            for (var j = 0u; j < 16u; j++) {
                let a = left[j * 17u + local.y];
                let b = right[j * 17u + local.x];
                to_v0 = fma(vec4<f32>(a.x), b, to_v0);
                to_v1 = fma(vec4<f32>(a.y), b, to_v1);
                to_v2 = fma(vec4<f32>(a.z), b, to_v2);
                to_v3 = fma(vec4<f32>(a.w), b, to_v3);
            }
            workgroupBarrier();
        }
    }
    var to_ks = array<vec4<f32>, 4>(to_k0, to_k1, to_k2, to_k3);
    var to_vs = array<vec4<f32>, 4>(to_v0, to_v1, to_v2, to_v3);
    for (var at = 0u; at < 16u; at++) {
        let token = key + at / 4u;
        let i = column + at % 4u;
        if (token < p.t && i < d) {
            let to = p.dqkv_at + (sequence * p.t + token) * p.dqkv_ld + head * d + i;
            dqkv[to + p.c] = to_ks[at / 4u][at % 4u];
            dqkv[to + 2u * p.c] = to_vs[at / 4u][at % 4u];
        }
    }
}
