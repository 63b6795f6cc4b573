// op      conv_dw                g = gradient of conv with respect to w ⊙ mask; dw = g ⊙ mask; ds = g ⊙ w ⊙
//         sign(score), zero outside the candidates; u8 images are divided by 255
// args    dy f32[n,e]  x u8[n,a]  w f32[o,j]  mask bits[o,j]?  score f32[o,j]?  candidates bits[o,j]?  ->  dw f32[o,j]
//         ds f32[o,j]?
// layout  row major with pitch `_ld` from unit `_at`; bits in 32-bit words, column j is bit j%32 of word j/32; four u8
//         to a word, the lowest byte first; rows of x are (channel, y, x), rows of dy (output, y, x), taps (channel,
//         y, x)
// launch  tiled: an implicit product of dy [o, pixels] and patches [pixels, j], 64 x 64 of it for one block of images
//         per workgroup of 16 x 16, each invocation 4 x 4, pixels in steps of 16 through workgroup memory; grid
//         ceil(j/64) x ceil(o/64) x blocks; finish: one invocation per dw, 16 x 16
// order   tiled: one sum per image, pixels ascending, then images of a block, then blocks
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    2*n*e*j flop; 4*n*e + 1*n*a + 4*o*j + o*j/8 bytes, and what ds needs; up to 64*o*j words of partial sums
// source  definition
struct Params {
    n: u32, e: u32, a: u32, o: u32, j: u32, channels: u32, height: u32, width: u32, kernel_h: u32, kernel_w: u32,
    stride: u32,
    dy_at: u32, dy_ld: u32, x_at: u32, x_ld: u32, w_at: u32, w_ld: u32, mask_at: u32, mask_ld: u32,
    score_at: u32, score_ld: u32, candidates_at: u32, candidates_ld: u32, dw_at: u32, dw_ld: u32,
    ds_at: u32, ds_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> dy: array<f32>;
@group(0) @binding(1) var<storage, read_write> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> w: array<f32>;
@group(0) @binding(3) var<storage, read_write> mask: array<u32>;
@group(0) @binding(4) var<storage, read_write> score: array<f32>;
@group(0) @binding(5) var<storage, read_write> candidates: array<u32>;
@group(0) @binding(6) var<storage, read_write> dw: array<f32>;
@group(0) @binding(7) var<storage, read_write> ds: array<f32>;
@group(0) @binding(8) var<storage, read_write> work: array<u32>;
@group(0) @binding(9) var<uniform> p: Params;

// Bit of column `at` in the word that holds it.
fn bit_of(word: u32, at: u32) -> bool {
    return ((word >> (at % 32u)) & 1u) == 1u;
}

// Byte `at % 4` of a word.
fn byte_of(word: u32, at: u32) -> u32 {
    return (word >> (8u * (at % 4u))) & 0xffu;
}

// Element `at` of the images, a fraction of 255.
fn image_byte(at: u32) -> f32 {
    return f32(byte_of(x[at / 4u], at)) / 255.0;
}

// Sign of a score: 0 for 0.
fn sign_of(score: f32) -> f32 {
    return select(0.0, 1.0, score > 0.0) - select(0.0, 1.0, score < 0.0);
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

// Gradient of an output pixel; 0 outside.
fn pixel_gradient_of(o: u32, pixel: u32, pixels: u32, image: u32) -> f32 {
    if (o < p.o && pixel < pixels) { return f32(dy[p.dy_at + image * p.dy_ld + o * pixels + pixel]); }
    return 0.0;
}

// What tap `j`, at offset `tap`, sees from output `pixel`; 0 outside.
fn seen_of_u8(j: u32, tap: u32, pixel: u32, out: vec2<u32>, image: u32) -> f32 {
    if (j < p.j && pixel < out.x * out.y) {
        return image_byte(p.x_at + image * p.x_ld + tap + window_at(pixel, out.y));
    }
    return 0.0;
}

// Images whose sum is formed by one workgroup: 64 blocks of at least 8.
fn images_of_block() -> u32 {
    return max((p.n + 63u) / 64u, 8u);
}

// 16 columns of k by 64 rows, and 16 rows of k by 64 columns. A pitch of 17 spreads a column over the banks.
var<workgroup> left: array<vec4<f32>, 272>;
var<workgroup> right: array<vec4<f32>, 272>;

@compute @workgroup_size(16, 16)
fn tiled(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let first_row = group.y * 64u + local.y * 4u;
    let first_col = group.x * 64u + local.x * 4u;
    let staged_right = group.x * 64u + local.y * 4u;
    let out = out_size();
    let pixels = out.x * out.y;
    let taps = vec4<u32>(
        tap_at(staged_right), tap_at(staged_right + 1u), tap_at(staged_right + 2u), tap_at(staged_right + 3u),
    );
    let first = group.z * images_of_block();
    let end = min(first + images_of_block(), p.n);
    var all = array<vec4<f32>, 4>();
    for (var image = first; image < end; image++) {
        var sum0 = vec4<f32>();
        var sum1 = vec4<f32>();
        var sum2 = vec4<f32>();
        var sum3 = vec4<f32>();
        for (var k = 0u; k < pixels; k += 16u) {
            let pixel = k + local.x;
            left[local.x * 17u + local.y] = vec4<f32>(
                pixel_gradient_of(first_row, pixel, pixels, image),
                pixel_gradient_of(first_row + 1u, pixel, pixels, image),
                pixel_gradient_of(first_row + 2u, pixel, pixels, image),
                pixel_gradient_of(first_row + 3u, pixel, pixels, image),
            );
            right[local.x * 17u + local.y] = vec4<f32>(
                seen_of_u8(staged_right, taps.x, pixel, out, image),
                seen_of_u8(staged_right + 1u, taps.y, pixel, out, image),
                seen_of_u8(staged_right + 2u, taps.z, pixel, out, image),
                seen_of_u8(staged_right + 3u, taps.w, pixel, out, image),
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
        all[0] += sum0;
        all[1] += sum1;
        all[2] += sum2;
        all[3] += sum3;
    }
    for (var at = 0u; at < 16u; at++) {
        let o = first_row + at / 4u;
        let j = first_col + at % 4u;
        if (o < p.o && j < p.j) { work[(group.z * p.o + o) * p.j + j] = bitcast<u32>(all[at / 4u][at % 4u]); }
    }
}

@compute @workgroup_size(16, 16)
fn finish(@builtin(global_invocation_id) id: vec3<u32>) {
    let j = id.x;
    let o = id.y;
    if (j >= p.j || o >= p.o) { return; }
    var sum = 0.0;
    for (var block = 0u; block * images_of_block() < p.n; block++) {
        sum += bitcast<f32>(work[(block * p.o + o) * p.j + j]);
    }
    let kept = !has(3u) || bit_of(mask[p.mask_at + o * p.mask_ld + j / 32u], j);
    dw[p.dw_at + o * p.dw_ld + j] = select(0.0, sum, kept);
    if (has(7u)) {
        var to_score = 0.0;
        // Without a score there is nothing to pass a gradient to.
        if (has(4u) && (!has(5u) || bit_of(candidates[p.candidates_at + o * p.candidates_ld + j / 32u], j))) {
            to_score = sum * w[p.w_at + o * p.w_ld + j] * sign_of(score[p.score_at + o * p.score_ld + j]);
        }
        ds[p.ds_at + o * p.ds_ld + j] = to_score;
    }
}
