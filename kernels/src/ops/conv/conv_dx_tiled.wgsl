// op      conv_dx                gradient of conv with respect to x
// args    dy f32[n,e]  w f32[o,j]  mask bits[o,j]?  ->  dx f32[n,a]
// layout  row major with pitch `_ld` from unit `_at`; bits in 32-bit words, column j is bit j%32 of word j/32; rows of
//         dx are (channel, y, x), rows of dy (output, y, x), taps (channel, y, x)
// launch  tiled: an implicit product of w [channel, (o, tap)] and dy [(o, tap), n*height*width], 64 x 64 of it per
//         workgroup of 16 x 16, each invocation 4 x 4, steps of 16 through workgroup memory; grid
//         ceil(n*height*width/64) x ceil(channels/64)
// order   tiled: outputs, then taps, ascending; one accumulator
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    2*n*e*j flop; 4*(n*e + o*j + n*a) + o*j/8 bytes; products with the zeros between strides are made
// source  definition
struct Params {
    n: u32, e: u32, o: u32, j: u32, a: u32, channels: u32, height: u32, width: u32, kernel_h: u32, kernel_w: u32,
    stride: u32,
    dy_at: u32, dy_ld: u32, w_at: u32, w_ld: u32, mask_at: u32, mask_ld: u32, dx_at: u32, dx_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> dy: array<Real>;
@group(0) @binding(1) var<storage, read_write> w: array<Real>;
@group(0) @binding(2) var<storage, read_write> mask: array<u32>;
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;
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

// Element of w ⊙ mask; 0 outside and where the bit is clear. An absent mask keeps all.
fn kept_tap_of(row: u32, j: u32) -> f32 {
    if (row < p.o && j < p.j) {
        let kept = !has(2u) || bit_of(mask[p.mask_at + row * p.mask_ld + j / 32u], j);
        if (kept) { return f32(w[p.w_at + row * p.w_ld + j]); }
    }
    return 0.0;
}

// Gradient of the output pixel that sees pixel `at` of an image through tap (ky, kx) of k = (o, ky, kx); 0 if none does.
fn scattered_of(k: u32, at: u32, cols: u32, out: vec2<u32>) -> f32 {
    let kx = k % p.kernel_w;
    let ky = k / p.kernel_w % p.kernel_h;
    let o = k / p.kernel_w / p.kernel_h;
    let col = at % p.width;
    let row = at / p.width % p.height;
    if (o >= p.o || at >= cols || kx > col || ky > row) { return 0.0; }
    let corner = vec2<u32>(row - ky, col - kx);
    let pixel = corner / p.stride;
    if (any(pixel * p.stride != corner) || any(pixel >= out)) { return 0.0; }
    return f32(dy[p.dy_at + at / (p.height * p.width) * p.dy_ld + (o * out.x + pixel.x) * out.y + pixel.y]);
}

// Weight that takes k = (o, ky, kx) to a channel.
fn tap_to(channel: u32, k: u32) -> f32 {
    if (channel >= p.channels) { return 0.0; }
    let window = p.kernel_h * p.kernel_w;
    return kept_tap_of(k / window, channel * window + k % window);
}

// 16 columns of k by 64 rows, and 16 rows of k by 64 columns. A pitch of 17 spreads a column over the banks.
var<workgroup> left: array<vec4<f32>, 272>;
var<workgroup> right: array<vec4<f32>, 272>;

@compute @workgroup_size(16, 16)
fn tiled(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let first_row = group.y * 64u + local.y * 4u;
    let first_col = group.x * 64u + local.x * 4u;
    let out = out_size();
    let cols = p.n * p.height * p.width;
    var sum0 = vec4<f32>();
    var sum1 = vec4<f32>();
    var sum2 = vec4<f32>();
    var sum3 = vec4<f32>();
    for (var k = 0u; k < p.o * p.kernel_h * p.kernel_w; k += 16u) {
        left[local.x * 17u + local.y] = vec4<f32>(
            tap_to(first_row, k + local.x), tap_to(first_row + 1u, k + local.x),
            tap_to(first_row + 2u, k + local.x), tap_to(first_row + 3u, k + local.x),
        );
        right[local.y * 17u + local.x] = vec4<f32>(
            scattered_of(k + local.y, first_col, cols, out), scattered_of(k + local.y, first_col + 1u, cols, out),
            scattered_of(k + local.y, first_col + 2u, cols, out), scattered_of(k + local.y, first_col + 3u, cols, out),
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
        let channel = first_row + at / 4u;
        let col = first_col + at % 4u;
        let side = p.height * p.width;
        if (channel < p.channels && col < cols) {
            dx[p.dx_at + col / side * p.dx_ld + channel * side + col % side] = sums[at / 4u][at % 4u];
        }
    }
}
