// op      conv_dw                g = gradient of conv with respect to w ⊙ mask; dw = g ⊙ mask; ds = g ⊙ w ⊙
//         sign(score), zero outside the candidates
// args    dy f32[n,e]  x f32[n,a]  w f32[o,j]  mask bits[o,j]?  score f32[o,j]?  candidates bits[o,j]?  ->  dw f32[o,j]
//         ds f32[o,j]?
// layout  row major with pitch `_ld` from unit `_at`; bits in 32-bit words, column j is bit j%32 of word j/32; rows of
//         x are (channel, y, x), rows of dy (output, y, x), taps (channel, y, x)
// launch  plain: one invocation per dw, 16 x 16, grid ceil(j/16) x ceil(o/16)
// order   plain: one sum per image, pixels ascending, then images
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    2*n*e*j flop; 4*n*e + 4*n*a + 4*o*j + o*j/8 bytes, and what ds needs
// source  definition
struct Params {
    n: u32, e: u32, a: u32, o: u32, j: u32, channels: u32, height: u32, width: u32, kernel_h: u32, kernel_w: u32,
    stride: u32,
    dy_at: u32, dy_ld: u32, x_at: u32, x_ld: u32, w_at: u32, w_ld: u32, mask_at: u32, mask_ld: u32,
    score_at: u32, score_ld: u32, candidates_at: u32, candidates_ld: u32, dw_at: u32, dw_ld: u32,
    ds_at: u32, ds_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> dy: array<Real>;
@group(0) @binding(1) var<storage, read_write> x: array<Real>;
@group(0) @binding(2) var<storage, read_write> w: array<Real>;
@group(0) @binding(3) var<storage, read_write> mask: array<u32>;
@group(0) @binding(4) var<storage, read_write> score: array<f32>;
@group(0) @binding(5) var<storage, read_write> candidates: array<u32>;
@group(0) @binding(6) var<storage, read_write> dw: array<f32>;
@group(0) @binding(7) var<storage, read_write> ds: array<f32>;
@group(0) @binding(9) var<uniform> p: Params;

// Bit of column `at` in the word that holds it.
fn bit_of(word: u32, at: u32) -> bool {
    return ((word >> (at % 32u)) & 1u) == 1u;
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

@compute @workgroup_size(16, 16)
fn plain(@builtin(global_invocation_id) id: vec3<u32>) {
    let j = id.x;  // tap
    let o = id.y;
    if (j >= p.j || o >= p.o) { return; }
    let out = out_size();
    let pixels = out.x * out.y;
    var sum = 0.0;
    for (var image = 0u; image < p.n; image++) {
        let from_x = p.x_at + image * p.x_ld + tap_at(j);
        let from_dy = p.dy_at + image * p.dy_ld + o * pixels;
        var own = 0.0;
        for (var pixel = 0u; pixel < pixels; pixel++) {
            own = fma(f32(dy[from_dy + pixel]), f32(x[from_x + window_at(pixel, out.y)]), own);
        }
        sum += own;
    }
    let kept = !has(3u) || bit_of(mask[p.mask_at + o * p.mask_ld + j / 32u], j);
    dw[p.dw_at + o * p.dw_ld + j] = select(0.0, sum, kept);
    if (has(7u)) {
        var to_score = 0.0;
        // Without a score there is nothing to pass a gradient to.
        if (has(4u) && (!has(5u) || bit_of(candidates[p.candidates_at + o * p.candidates_ld + j / 32u], j))) {
            to_score = sum * f32(w[p.w_at + o * p.w_ld + j]) * sign_of(score[p.score_at + o * p.score_ld + j]);
        }
        ds[p.ds_at + o * p.ds_ld + j] = to_score;
    }
}
