// op      masked_gemm            y = x (w ⊙ mask)ᵀ + bias ⊙ bias_mask; with slope y = gelu of that, slope its derivative
// args    x f32[r,i]  w f32[o,i]  mask bits[o,i]  bias f32[o]?  bias_mask bits[o]?  ->  y f32[r,o]  slope f32[r,o]?
// layout  row major with pitch `_ld` from unit `_at`; mask rows of 32-bit words, column j is bit j%32 of word j/32
// launch  plain: one invocation per y, 16 x 16, grid ceil(o/16) x ceil(r/16)
// order   plain: set bits j ascending from the bias, one accumulator
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    2*r*i*o flop; 4*(r*i + o*i + o + r*o) + o*i/8 bytes
// source  definition; the normal distribution as in kernels/src/ops/vmath.rs
struct Params {
    r: u32, i: u32, o: u32,
    x_at: u32, x_ld: u32, w_at: u32, w_ld: u32, mask_at: u32, mask_ld: u32, bias_at: u32, bias_ld: u32,
    bias_mask_at: u32, bias_mask_ld: u32, y_at: u32, y_ld: u32, slope_at: u32, slope_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> x: array<Real>;
@group(0) @binding(1) var<storage, read_write> w: array<Real>;
@group(0) @binding(2) var<storage, read_write> mask: array<u32>;
@group(0) @binding(3) var<storage, read_write> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> bias_mask: array<u32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
@group(0) @binding(6) var<storage, read_write> slope: array<f32>;
@group(0) @binding(9) var<uniform> p: Params;

// Distribution of the standard normal at v, and exp(-v²/2).
fn normal_cdf(v: f32) -> vec2<f32> {
    let a = min(abs(v), 14.0);
    let e = exp(-0.5 * a * a);
    let t = 1.0 / (a + 4.0);
    let u = (a - 4.0) * t;
    var q = -1.2298315e-4;
    q = fma(q, u, 1.9480185e-4);
    q = fma(q, u, 1.5693137e-3);
    q = fma(q, u, -3.523574e-3);
    q = fma(q, u, -7.527213e-3);
    q = fma(q, u, 6.040647e-2);
    q = fma(q, u, -0.186523);
    q = fma(q, u, 0.38713667);
    q = fma(q, u, -0.6078966);
    q = fma(q, u, 0.75528514);
    let tail = q * t * e;
    return vec2<f32>(select(tail, 1.0 - tail, v > 0.0), e);
}

fn has(arg: u32) -> bool {
    return ((p.present >> arg) & 1u) == 1u;
}

@compute @workgroup_size(16, 16)
fn plain(@builtin(global_invocation_id) id: vec3<u32>) {
    let col = id.x;  // output feature
    let row = id.y;
    if (col >= p.o || row >= p.r) { return; }
    var sum = 0.0;
    if (has(3u)) {
        let kept = !has(4u) || ((bias_mask[p.bias_mask_at + col / 32u] >> (col % 32u)) & 1u) == 1u;
        if (kept) { sum = bias[p.bias_at + col]; }
    }
    let from_x = p.x_at + row * p.x_ld;
    let from_w = p.w_at + col * p.w_ld;
    let from_mask = p.mask_at + col * p.mask_ld;
    for (var word = 0u; word < (p.i + 31u) / 32u; word++) {
        var bits = mask[from_mask + word];
        while (bits != 0u) {
            let j = word * 32u + firstTrailingBit(bits);
            if (j >= p.i) { break; }
            sum = fma(f32(x[from_x + j]), f32(w[from_w + j]), sum);
            bits &= bits - 1u;  // clear the lowest set bit
        }
    }
    if (has(6u)) {
        let cdf = normal_cdf(sum);
        slope[p.slope_at + row * p.slope_ld + col] = fma(sum * cdf.y, 0.3989423, cdf.x);
        sum *= cdf.x;
    }
    y[p.y_at + row * p.y_ld + col] = sum;
}
