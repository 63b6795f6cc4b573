// op      adamw                  m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g²; p = p (1 - lr wd) - lr (m / c1) /
//                                (sqrt(v / c2) + eps), g scaled by clip; entries outside trainable are not touched
// args    g f32[o,i]  trainable bits[o,i]?  step f32[4]  clip f32[1]?  ->  p f32[o,i]  m f32[o,i]  v f32[o,i]
// layout  row major with pitch `_ld` from unit `_at`; rows of bits are 32-bit words, column j is bit j%32 of word j/32;
//         step is lr, c1, c2, 0
// launch  plain: one invocation per entry, 64 to a workgroup
// order   no sums
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    14*o*i flop; 28*o*i + o*i/8 bytes
// source  Loshchilov and Hutter, Decoupled Weight Decay Regularization (2019), algorithm 2
struct Params {
    o: u32, i: u32, beta1: f32, beta2: f32, eps: f32, weight_decay: f32, lr_scale: f32,
    g_at: u32, g_ld: u32, trainable_at: u32, trainable_ld: u32, step_at: u32, step_ld: u32, clip_at: u32, clip_ld: u32,
    p_at: u32, p_ld: u32, m_at: u32, m_ld: u32, v_at: u32, v_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> g: array<f32>;
@group(0) @binding(1) var<storage, read_write> trainable: array<u32>;
@group(0) @binding(2) var<storage, read_write> step: array<f32>;
@group(0) @binding(3) var<storage, read_write> clip: array<f32>;
@group(0) @binding(4) var<storage, read_write> p_: array<f32>;
@group(0) @binding(5) var<storage, read_write> m: array<f32>;
@group(0) @binding(6) var<storage, read_write> v: array<f32>;
@group(0) @binding(9) var<uniform> p: Params;

fn has(arg: u32) -> bool {
    return ((p.present >> arg) & 1u) == 1u;
}

// Bit of column `at` in the word that holds it.
fn bit_of(word: u32, at: u32) -> bool {
    return ((word >> (at % 32u)) & 1u) == 1u;
}

// 1 - beta to the nearest multiple of 1e-7: an f32 near 1 does not hold the decimal that was meant.
fn complement(beta: f32) -> f32 {
    return round((1.0 - beta) * 1e7) / 1e7;
}

@compute @workgroup_size(64)
fn plain(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = id.y * groups.x * 64u + id.x;
    if (at >= p.o * p.i) { return; }
    let row = at / p.i;
    let col = at % p.i;
    if (has(1u) && !bit_of(trainable[p.trainable_at + row * p.trainable_ld + col / 32u], col)) { return; }
    let rate = step[p.step_at] * p.lr_scale;
    var slope = g[p.g_at + row * p.g_ld + col];
    if (has(3u)) { slope *= clip[p.clip_at]; }
    let at_m = p.m_at + row * p.m_ld + col;
    let at_v = p.v_at + row * p.v_ld + col;
    let at_p = p.p_at + row * p.p_ld + col;
    let mean = p.beta1 * m[at_m] + complement(p.beta1) * slope;
    let square = p.beta2 * v[at_v] + complement(p.beta2) * slope * slope;
    let change = (mean / step[p.step_at + 1u]) / (sqrt(square / step[p.step_at + 2u]) + p.eps);
    m[at_m] = mean;
    v[at_v] = square;
    p_[at_p] = p_[at_p] * (1.0 - rate * p.weight_decay) - rate * change;
}
