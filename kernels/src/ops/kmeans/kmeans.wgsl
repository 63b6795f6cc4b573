// op      kmeans                 k centres of the selected x: exact optimum, or Lloyd from init; used = min(k,
//         distinct values)
// args    x f32[n]  select bits[n]?  init f32[k]?  ->  center f32[k]  code u8[n]  inertia f32[1]  used u32[1]
// layout  row major with pitch `_ld` from unit `_at`; bits in 32-bit words, column j is bit j%32 of word j/32; four u8
//         to a word, the lowest byte first
// launch  plain: one workgroup of 256
// order   plain: values ascending, sums of two floats each; inertia by invocation, then over invocations
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    sort n log² n; optimum k n log n split costs; Lloyd k² log n a round; 4*(n*(k + 10) + 3*k) bytes of
//         workspace
// source  optimum: dynamic program over sorted values (Wang & Song 2011), each layer by divide and conquer over the
//         monotone split points (Gronlund et al. 2017); sums of two floats: Dekker 1971, Knuth 4.2.2
struct Params {
    n: u32, k: u32,
    x_at: u32, x_ld: u32, select_at: u32, select_ld: u32, init_at: u32, init_ld: u32, center_at: u32, center_ld: u32,
    code_at: u32, code_ld: u32, inertia_at: u32, inertia_ld: u32, used_at: u32, used_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> select_: array<u32>;
@group(0) @binding(2) var<storage, read_write> init: array<f32>;
@group(0) @binding(3) var<storage, read_write> center: array<f32>;
@group(0) @binding(4) var<storage, read_write> code: array<u32>;
@group(0) @binding(5) var<storage, read_write> inertia: array<f32>;
@group(0) @binding(6) var<storage, read_write> used: array<u32>;
@group(0) @binding(8) var<storage, read_write> work: array<u32>;
@group(0) @binding(9) var<uniform> p: Params;

fn has(arg: u32) -> bool {
    return ((p.present >> arg) & 1u) == 1u;
}

// A number as the sum of two floats, the second half an ulp of the first at most.
//
// `opaque` keeps a compiler from simplifying what only rounding makes different from zero.
fn opaque(v: f32) -> f32 {
    return bitcast<f32>(bitcast<u32>(v) ^ (p.present >> 31u));
}

fn wide_sum(a: f32, b: f32) -> vec2<f32> {
    let s = opaque(a + b);
    let t = opaque(s - a);
    return vec2<f32>(s, opaque(a - opaque(s - t)) + opaque(b - t));
}

// The same for |a| >= |b|.
fn ordered_sum(a: f32, b: f32) -> vec2<f32> {
    let s = opaque(a + b);
    return vec2<f32>(s, b - opaque(s - a));
}

fn wide_add(a: vec2<f32>, b: vec2<f32>) -> vec2<f32> {
    let s = wide_sum(a.x, b.x);
    let t = wide_sum(a.y, b.y);
    let u = ordered_sum(s.x, s.y + t.x);
    return ordered_sum(u.x, u.y + t.y);
}

// The halves have 12 bits each, so their products are exact.
fn float_product(a: f32, b: f32) -> vec2<f32> {
    let high_a = bitcast<f32>(bitcast<u32>(a) & 0xfffff000u);
    let high_b = bitcast<f32>(bitcast<u32>(b) & 0xfffff000u);
    let low_a = opaque(a - high_a);
    let low_b = opaque(b - high_b);
    let s = opaque(a * b);
    let e = opaque(opaque(opaque(high_a * high_b - s) + high_a * low_b) + low_a * high_b);
    return vec2<f32>(s, e + low_a * low_b);
}

fn wide_mul(a: vec2<f32>, b: vec2<f32>) -> vec2<f32> {
    let s = float_product(a.x, b.x);
    return ordered_sum(s.x, s.y + (a.x * b.y + a.y * b.x));
}

fn wide_div(a: vec2<f32>, by: f32) -> vec2<f32> {
    let first = a.x / by;
    var rest = wide_add(a, -float_product(first, by));
    let second = rest.x / by;
    rest = wide_add(rest, -float_product(second, by));
    return wide_add(ordered_sum(first, second), vec2<f32>(rest.x / by, 0.0));
}

fn less(a: vec2<f32>, b: vec2<f32>) -> bool {
    return a.x < b.x || (a.x == b.x && a.y < b.y);
}

// Number of values that are selected and finite, of distinct ones among them, and of runs to cut them into.
var<workgroup> chosen: u32;
var<workgroup> distinct: atomic<u32>;
var<workgroup> runs: u32;
var<workgroup> moved: u32;
// Values are counted from one in the middle, in units of a power of two: squares keep their digits, and their range.
var<workgroup> middle: f32;
var<workgroup> unit: u32;
var<workgroup> partial: array<vec2<f32>, 256>;
var<workgroup> partial_cut: array<u32, 256>;

// Places in `work`: keys, padded to a power of two; prefix sums and sums of squares; two layers of costs; the layers'
// cuts; where runs start; wide centres.
fn padded() -> u32 {
    return select(1u, 2u << firstLeadingBit(max(p.n, 2u) - 1u), p.n > 1u);
}
fn sums_at(at: u32) -> u32 { return padded() + 2u * at; }
fn squares_at(at: u32) -> u32 { return padded() + 2u * (p.n + 1u) + 2u * at; }
fn costs_at(layer: u32, at: u32) -> u32 { return padded() + (4u + 2u * (layer % 2u)) * (p.n + 1u) + 2u * at; }
fn cuts_at(layer: u32, at: u32) -> u32 { return padded() + (8u + layer) * (p.n + 1u) + at; }
fn starts_at(at: u32) -> u32 { return padded() + (8u + p.k) * (p.n + 1u) + at; }
fn centres_at(at: u32) -> u32 { return starts_at(p.k + 1u) + 2u * at; }

fn wide_at(at: u32) -> vec2<f32> {
    return vec2<f32>(bitcast<f32>(work[at]), bitcast<f32>(work[at + 1u]));
}

fn put_wide(at: u32, v: vec2<f32>) {
    work[at] = bitcast<u32>(v.x);
    work[at + 1u] = bitcast<u32>(v.y);
}

fn is_finite(v: f32) -> bool {
    return (bitcast<u32>(v) & 0x7f800000u) != 0x7f800000u;
}

fn is_selected(at: u32) -> bool {
    return !has(1u) || ((select_[p.select_at + at / 32u] >> (at % 32u)) & 1u) == 1u;
}

// Keys whose integer order is the order of finite floats; both zeros are one value.
fn value_key(v: f32) -> u32 {
    let bits = select(bitcast<u32>(v), 0u, v == 0.0);
    return select(bits | 0x80000000u, ~bits, (bits >> 31u) == 1u);
}

fn value_of(key: u32) -> f32 {
    return bitcast<f32>(select(~key, key & 0x7fffffffu, (key >> 31u) == 1u));
}

// A float as it is counted, and back.
fn counted(v: f32) -> vec2<f32> {
    return wide_sum(v, -middle) * bitcast<f32>((254u - unit) << 23u);
}

fn uncounted(v: vec2<f32>) -> f32 {
    return wide_add(vec2<f32>(middle, 0.0), v * bitcast<f32>(unit << 23u)).x;
}

// Squared distances of values a..b to their mean.
fn cost_of(a: u32, b: u32) -> vec2<f32> {
    if (work[a] == work[b - 1u]) { return vec2<f32>(); }
    let sum = wide_add(wide_at(sums_at(b)), -wide_at(sums_at(a)));
    let square = wide_add(wide_at(squares_at(b)), -wide_at(squares_at(a)));
    let cost = wide_add(square, -wide_div(wide_mul(sum, sum), f32(b - a)));
    // Rounding may go below zero.
    return select(cost, vec2<f32>(), cost.x < 0.0);
}

fn mean_of(a: u32, b: u32) -> vec2<f32> {
    if (b - a == 1u) { return counted(value_of(work[a])); }
    return wide_div(wide_add(wide_at(sums_at(b)), -wide_at(sums_at(a))), f32(b - a));
}

// The cheapest of the cuts low, low + stride, .. <= high of the first `at` values behind `layer` runs, the leftmost on
// ties; for one of several invocations.
fn best_cut(layer: u32, at: u32, low: u32, high: u32, stride: u32, lane: u32) {
    var least = vec2<f32>(1e30, 0.0);
    var best = low;
    for (var cut = low; cut <= high; cut += stride) {
        let total = wide_add(wide_at(costs_at(layer - 1u, cut)), cost_of(cut, at));
        if (less(total, least)) {
            least = total;
            best = cut;
        }
    }
    partial[lane] = least;
    partial_cut[lane] = best;
}

// The nearest of ascending wide centres, the lowest on ties.
fn nearest_centre(v: vec2<f32>) -> u32 {
    var above = 0u;
    var end = p.k;
    while (above < end) {
        let half = (above + end) / 2u;
        if (less(wide_at(centres_at(half)), v)) { above = half + 1u; } else { end = half; }
    }
    if (above == 0u) { return 0u; }
    var below = above - 1u;
    let down = wide_add(v, -wide_at(centres_at(below)));
    if (above < p.k) {
        if (less(wide_add(wide_at(centres_at(above)), -v), down)) { return above; }
    }
    // Equal centres: the first.
    while (below > 0u) {
        if (less(wide_at(centres_at(below - 1u)), wide_at(centres_at(below)))) { break; }
        below -= 1u;
    }
    return below;
}

// The same of the centres as stored.
fn code_of(v: f32) -> u32 {
    var above = 0u;
    var end = p.k;
    while (above < end) {
        let half = (above + end) / 2u;
        if (center[p.center_at + half] < v) { above = half + 1u; } else { end = half; }
    }
    if (above == 0u) { return 0u; }
    var below = above - 1u;
    if (above < p.k) {
        let up = wide_sum(center[p.center_at + above], -v);
        if (less(up, wide_sum(v, -center[p.center_at + below]))) { return above; }
    }
    while (below > 0u) {
        if (center[p.center_at + below - 1u] < center[p.center_at + below]) { break; }
        below -= 1u;
    }
    return below;
}

// Sorts the wide centres.
fn sort_centres() {
    for (var j = 1u; j < p.k; j++) {
        let own = wide_at(centres_at(j));
        var at = j;
        while (at > 0u) {
            let before = wide_at(centres_at(at - 1u));
            if (!less(own, before)) { break; }
            put_wide(centres_at(at), before);
            at -= 1u;
        }
        put_wide(centres_at(at), own);
    }
}

@compute @workgroup_size(256)
fn plain(@builtin(local_invocation_index) lane: u32) {
    // Keys of the selected finite values ascending, all ones behind them.
    let size = padded();
    for (var at = lane; at < size; at += 256u) {
        var key = 0xffffffffu;
        if (at < p.n) {
            if (is_selected(at)) {
                let v = x[p.x_at + at];
                if (is_finite(v)) { key = value_key(v); }
            }
        }
        work[at] = key;
    }
    storageBarrier();
    workgroupBarrier();
    for (var span = 2u; span <= size; span *= 2u) {
        for (var step = span / 2u; step > 0u; step /= 2u) {
            for (var at = lane; at < size; at += 256u) {
                let other = at ^ step;
                if (other > at) {
                    let a = work[at];
                    let b = work[other];
                    if ((a > b) == ((at & span) == 0u)) {
                        work[at] = b;
                        work[other] = a;
                    }
                }
            }
            storageBarrier();
            workgroupBarrier();
        }
    }
    for (var at = lane; at < p.n; at += 256u) {
        let key = work[at];
        if (key != 0xffffffffu) {
            if (at == 0u) { atomicAdd(&distinct, 1u); } else if (work[at - 1u] != key) { atomicAdd(&distinct, 1u); }
        }
    }
    workgroupBarrier();
    if (lane == 0u) {
        var end = 0u;
        while (end < p.n) {
            if (work[end] == 0xffffffffu) { break; }
            end += 1u;
        }
        chosen = end;
        runs = min(p.k, atomicLoad(&distinct));
        used[p.used_at] = runs;
        if (end > 0u) {
            middle = value_of(work[end / 2u]);
            let widest = max(value_of(work[end - 1u]) - middle, middle - value_of(work[0]));
            unit = clamp(bitcast<u32>(widest) >> 23u, 1u, 253u);
            var sum = vec2<f32>();
            var square = vec2<f32>();
            for (var at = 0u; at <= end; at++) {
                put_wide(sums_at(at), sum);
                put_wide(squares_at(at), square);
                if (at < end) {
                    let v = counted(value_of(work[at]));
                    sum = wide_add(sum, v);
                    square = wide_add(square, wide_mul(v, v));
                }
            }
        }
    }
    storageBarrier();
    let n = workgroupUniformLoad(&chosen);
    let k = workgroupUniformLoad(&runs);
    if (n > 0u && has(2u)) {
        // Rounds of "nearest centre, then mean" until the centres stay. Clusters are runs of the sorted values.
        if (lane < p.k) {
            let given = init[p.init_at + lane];
            put_wide(centres_at(lane), counted(select(0.0, given, is_finite(given))));
        }
        storageBarrier();
        workgroupBarrier();
        if (lane == 0u) { sort_centres(); }
        storageBarrier();
        workgroupBarrier();
        for (var round = 0u; round < 100u; round++) {
            if (lane < p.k) {
                // The first value that belongs to this centre or a higher one.
                var first = 0u;
                var end = n;
                while (first < end) {
                    let half = (first + end) / 2u;
                    if (nearest_centre(counted(value_of(work[half]))) < lane) {
                        first = half + 1u; } else { end = half;
                    }
                }
                work[starts_at(lane)] = first;
                if (lane == 0u) {
                    work[starts_at(p.k)] = n;
                    moved = 0u;
                }
            }
            storageBarrier();
            workgroupBarrier();
            if (lane == 0u) {
                for (var j = 0u; j < p.k; j++) {
                    let a = work[starts_at(j)];
                    let b = work[starts_at(j + 1u)];
                    if (a < b) {
                        let mean = mean_of(a, b);
                        if (any(mean != wide_at(centres_at(j)))) { moved = 1u; }
                        put_wide(centres_at(j), mean);
                    }
                }
                // The cell of one of two equal centres can reach past the other.
                sort_centres();
            }
            storageBarrier();
            if (workgroupUniformLoad(&moved) == 0u) { break; }
        }
        if (lane < p.k) { center[p.center_at + lane] = uncounted(wide_at(centres_at(lane))); }
    } else if (n > 0u) {
        // Layer j holds the least cost of the first values in j + 1 runs, and where the last run starts.
        for (var at = lane + 1u; at <= n; at += 256u) {
            put_wide(costs_at(0u, at), cost_of(0u, at));
            work[cuts_at(0u, at)] = 0u;
        }
        storageBarrier();
        workgroupBarrier();
        for (var layer = 1u; layer < k; layer++) {
            // The last layer is asked for all values only.
            let first = select(layer + 1u, n, layer + 1u == k);
            let rows = n - (k - 1u - layer) - first + 1u;
            // The best cut never moves left as values are added, so rows between two others need only look between
            // their cuts: every second row is halved again.
            var step = 1u;
            while (step <= rows) { step *= 2u; }
            for (; step > 0u; step /= 2u) {
                // Rows of this level are nth * step for odd nth; few rows get several invocations each.
                let odd = (rows / step + 1u) / 2u;
                let team = select(1u, 256u >> (firstLeadingBit(max(odd, 2u) - 1u) + 1u), odd <= 128u);
                for (var row = 0u; row < odd; row += 256u / team) {
                    let nth = (2u * (row + lane / team) + 1u) * step;
                    let at = first + nth - 1u;
                    if (nth <= rows) {
                        var low = layer;
                        if (nth > step) { low = max(low, work[cuts_at(layer, at - step)]); }
                        var high = at - 1u;
                        if (nth + step <= rows) { high = min(high, work[cuts_at(layer, at + step)]); }
                        best_cut(layer, at, low + lane % team, high, team, lane);
                    }
                    for (var half = team / 2u; half > 0u; half /= 2u) {
                        workgroupBarrier();
                        if (lane % team < half) {
                            let other = partial[lane + half];
                            let tied = all(other == partial[lane]) && partial_cut[lane + half] < partial_cut[lane];
                            if (less(other, partial[lane]) || tied) {
                                partial[lane] = other;
                                partial_cut[lane] = partial_cut[lane + half];
                            }
                        }
                    }
                    if (nth <= rows && lane % team == 0u) {
                        put_wide(costs_at(layer, at), partial[lane]);
                        work[cuts_at(layer, at)] = partial_cut[lane];
                    }
                    workgroupBarrier();
                }
                storageBarrier();
                workgroupBarrier();
            }
        }
        if (lane == 0u) {
            var end = n;
            for (var j = k; j > 0u; j--) {
                let start = work[cuts_at(j - 1u, end)];
                center[p.center_at + j - 1u] = uncounted(mean_of(start, end));
                end = start;
            }
            for (var j = k; j < p.k; j++) { center[p.center_at + j] = center[p.center_at + k - 1u]; }
        }
    } else if (lane < p.k) {
        center[p.center_at + lane] = 0.0;
    }
    storageBarrier();
    workgroupBarrier();
    // Codes, a word of four by one invocation; what lies beside them in the first and last word is kept.
    var inertia_ = vec2<f32>();
    var broken = false;
    let end_word = (p.code_at + p.n + 3u) / 4u;
    for (var word = p.code_at / 4u + lane; word < select(0u, end_word, p.n > 0u); word += 256u) {
        var codes = code[word];
        for (var byte = max(4u * word, p.code_at); byte < min(4u * word + 4u, p.code_at + p.n); byte++) {
            let at = byte - p.code_at;
            var own = 0u;
            if (is_selected(at)) {
                let v = x[p.x_at + at];
                if (is_finite(v)) {
                    own = code_of(v);
                    let gap = wide_sum(v, -center[p.center_at + own]);
                    inertia_ = wide_add(inertia_, wide_mul(gap, gap));
                } else {
                    broken = true;
                }
            }
            let shift = 8u * (byte % 4u);
            codes = (codes & ~(0xffu << shift)) | (own << shift);
        }
        code[word] = codes;
    }
    if (broken) { moved = 2u; }
    partial[lane] = inertia_;
    workgroupBarrier();
    if (lane == 0u) {
        var total = vec2<f32>();
        for (var at = 0u; at < 256u; at++) { total = wide_add(total, partial[at]); }
        let bits = select(bitcast<u32>(total.x), 0x7fc00000u, moved == 2u);
        inertia[p.inertia_at] = bitcast<f32>(bits);
    }
}
