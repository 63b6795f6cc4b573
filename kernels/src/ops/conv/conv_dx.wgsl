// op      conv_dx                gradient of conv with respect to x
// args    dy f32[n,e]  w f32[o,j]  mask bits[o,j]?  ->  dx f32[n,a]
// layout  row major with pitch `_ld` from unit `_at`; bits in 32-bit words, column j is bit j%32 of word j/32; rows of
//         dx are (channel, y, x), rows of dy (output, y, x), taps (channel, y, x)
// launch  plain: one invocation per dx
// order   plain: outputs, then taps, ascending; one accumulator
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    2*n*e*j flop; 4*(n*e + o*j + n*a) + o*j/8 bytes
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

@compute @workgroup_size(64)
fn plain(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = id.y * groups.x * 64u + id.x;
    if (at >= p.n * p.a) { return; }
    let image = at / p.a;
    let channel = at % p.a / (p.height * p.width);
    let y = at / p.width % p.height;
    let x = at % p.width;
    let out = out_size();
    var sum = 0.0;
    for (var o = 0u; o < p.o; o++) {
        let from_dy = p.dy_at + image * p.dy_ld + o * out.x * out.y;
        for (var ky = 0u; ky < min(p.kernel_h, y + 1u); ky++) {
            let oy = (y - ky) / p.stride;
            if ((y - ky) % p.stride != 0u || oy >= out.x) { continue; }
            for (var kx = 0u; kx < min(p.kernel_w, x + 1u); kx++) {
                let ox = (x - kx) / p.stride;
                if ((x - kx) % p.stride != 0u || ox >= out.y) { continue; }
                let tap = kept_tap_of(o, (channel * p.kernel_h + ky) * p.kernel_w + kx);
                sum = fma(f32(dy[from_dy + oy * out.y + ox]), tap, sum);
            }
        }
    }
    dx[p.dx_at + image * p.dx_ld + at % p.a] = sum;
}
