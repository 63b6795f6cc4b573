// op      conv                   valid cross-correlation of NCHW rows with w ⊙ mask, plus bias ⊙ bias_mask
// args    x f32[n,a]  w f32[o,j]  mask bits[o,j]?  bias f32[o]?  bias_mask bits[o]?  ->  y f32[n,e]
// layout  row major with pitch `_ld` from unit `_at`; bits in 32-bit words, column j is bit j%32 of word j/32; images
//         are (channel, y, x), rows of y (output, y, x), taps (channel, y, x)
// launch  plain: one invocation per y
// order   plain: taps j ascending from the bias, one accumulator
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    2*n*e*j flop; 4*n*a + 4*(o*j + o + n*e) + o*j/8 bytes
// source  definition
struct Params {
    n: u32, a: u32, o: u32, j: u32, e: u32, channels: u32, height: u32, width: u32, kernel_h: u32, kernel_w: u32,
    stride: u32,
    x_at: u32, x_ld: u32, w_at: u32, w_ld: u32, mask_at: u32, mask_ld: u32, bias_at: u32, bias_ld: u32,
    bias_mask_at: u32, bias_mask_ld: u32, y_at: u32, y_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> x: array<Real>;
@group(0) @binding(1) var<storage, read_write> w: array<Real>;
@group(0) @binding(2) var<storage, read_write> mask: array<u32>;
@group(0) @binding(3) var<storage, read_write> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> bias_mask: array<u32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
@group(0) @binding(9) var<uniform> p: Params;

// Bit of column `at` in the word that holds it.
fn bit_of(word: u32, at: u32) -> bool {
    return ((word >> (at % 32u)) & 1u) == 1u;
}

fn has(arg: u32) -> bool {
    return ((p.present >> arg) & 1u) == 1u;
}

// Rows and columns of an output image.
fn out_size() -> vec2<u32> {
    return vec2<u32>((p.height - p.kernel_h) / p.stride + 1u, (p.width - p.kernel_w) / p.stride + 1u);
}

// Offset in an image of tap `j`, seen from a window's upper left corner.
fn tap_at(j: u32) -> u32 {
    let row = j / p.kernel_w;  // (channel, ky)
    return (row / p.kernel_h * p.height + row % p.kernel_h) * p.width + j % p.kernel_w;
}

// Offset in a channel of the upper left corner of the window of output `pixel`.
fn window_at(pixel: u32, out_w: u32) -> u32 {
    return (pixel / out_w * p.width + pixel % out_w) * p.stride;
}

// Element of w ⊙ mask; 0 outside and where the bit is clear. An absent mask keeps all.
fn kept_tap_of(row: u32, j: u32) -> f32 {
    if (row < p.o && j < p.j) {
        let kept = !has(2u) || bit_of(mask[p.mask_at + row * p.mask_ld + j / 32u], j);
        if (kept) { return f32(w[p.w_at + row * p.w_ld + j]); }
    }
    return 0.0;
}

// Start of the sums of output `o`; a bias behind a cleared bit is not read.
fn kept_output_bias_of(o: u32) -> f32 {
    if (has(3u) && o < p.o) {
        if (!has(4u) || bit_of(bias_mask[p.bias_mask_at + o / 32u], o)) { return bias[p.bias_at + o]; }
    }
    return 0.0;
}

@compute @workgroup_size(64)
fn plain(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = id.y * groups.x * 64u + id.x;
    if (at >= p.n * p.e) { return; }
    let image = at / p.e;
    let out = out_size();
    let pixels = out.x * out.y;
    let o = at % p.e / pixels;
    let from_x = p.x_at + image * p.x_ld + window_at(at % pixels, out.y);
    var sum = kept_output_bias_of(o);
    for (var j = 0u; j < p.j; j++) {
        sum = fma(f32(x[from_x + tap_at(j)]), kept_tap_of(o, j), sum);
    }
    y[p.y_at + image * p.y_ld + at % p.e] = sum;
}
