// op      conv                   valid cross-correlation of NCHW rows with w ⊙ mask, plus bias ⊙ bias_mask
// args    x f32[n,a]  w f32[o,j]  mask bits[o,j]?  bias f32[o]?  bias_mask bits[o]?  ->  y f32[n,e]
// layout  row major with pitch `_ld` from unit `_at`; bits in 32-bit words, column j is bit j%32 of word j/32; images
//         are (channel, y, x), rows of y (output, y, x), taps (channel, y, x)
// launch  tiled: an implicit product of w [o,j] and patches [j, n*pixels], 64 x 64 of it per workgroup of 16 x 16,
//         each invocation 4 x 4, taps in steps of 16 through workgroup memory; grid ceil(n*pixels/64) x ceil(o/64)
// order   tiled: taps j ascending from the bias, one accumulator
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

// Offset in x of the window of column `at`: all output pixels of all images, one after the other.
fn window_of(at: u32, out: vec2<u32>) -> u32 {
    let pixels = out.x * out.y;
    return at / pixels * p.x_ld + window_at(at % pixels, out.y);
}

// Element of the patch matrix, which is never stored; 0 outside.
fn patch_of(j: u32, tap: u32, col: u32, cols: u32, window: u32) -> f32 {
    if (j < p.j && col < cols) { return f32(x[p.x_at + window + tap]); }
    return 0.0;
}

// 16 columns of k by 64 rows, and 16 rows of k by 64 columns. A pitch of 17 spreads a column over the banks.
var<workgroup> left: array<vec4<f32>, 272>;
var<workgroup> right: array<vec4<f32>, 272>;

@compute @workgroup_size(16, 16)
fn tiled(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let first_row = group.y * 64u + local.y * 4u;
    let first_col = group.x * 64u + local.x * 4u;
    let out = out_size();
    let pixels = out.x * out.y;
    let cols = p.n * pixels;
    let windows = vec4<u32>(
        window_of(first_col, out), window_of(first_col + 1u, out),
        window_of(first_col + 2u, out), window_of(first_col + 3u, out),
    );
    var sum0 = vec4<f32>(kept_output_bias_of(first_row));
    var sum1 = vec4<f32>(kept_output_bias_of(first_row + 1u));
    var sum2 = vec4<f32>(kept_output_bias_of(first_row + 2u));
    var sum3 = vec4<f32>(kept_output_bias_of(first_row + 3u));
    for (var k = 0u; k < p.j; k += 16u) {
        left[local.x * 17u + local.y] = vec4<f32>(
            kept_tap_of(first_row, k + local.x), kept_tap_of(first_row + 1u, k + local.x),
            kept_tap_of(first_row + 2u, k + local.x), kept_tap_of(first_row + 3u, k + local.x),
        );
        let j = k + local.y;
        let tap = tap_at(j);
        right[local.y * 17u + local.x] = vec4<f32>(
            patch_of(j, tap, first_col, cols, windows.x), patch_of(j, tap, first_col + 1u, cols, windows.y),
            patch_of(j, tap, first_col + 2u, cols, windows.z), patch_of(j, tap, first_col + 3u, cols, windows.w),
        );
        workgroupBarrier();
        for (var j = 0u; j < 16u; j++) {
            let a = left[j * 17u + local.y];
            let b = right[j * 17u + local.x];
            sum0 = fma(vec4<f32>(a.x), b, sum0);
            sum1 = fma(vec4<f32>(a.y), b, sum1);
            sum2 = fma(vec4<f32>(a.z), b, sum2);
            sum3 = fma(vec4<f32>(a.w), b, sum3);
        }
        workgroupBarrier();
    }
    var sums = array<vec4<f32>, 4>(sum0, sum1, sum2, sum3);
    for (var at = 0u; at < 16u; at++) {
        let o = first_row + at / 4u;
        let col = first_col + at % 4u;
        if (o < p.o && col < cols) {
            y[p.y_at + col / pixels * p.y_ld + o * pixels + col % pixels] = sums[at / 4u][at % 4u];
        }
    }
}
