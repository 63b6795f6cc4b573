// op      gemm_dw                dw = dyᵀ x
// args    dy f32[r,o]  x f32[r,i]  ->  dw f32[o,i]
// layout  row major with pitch `_ld` from unit `_at`
// launch  tiled: 64 x 64 of dw per workgroup of 16 x 16, each invocation 4 x 4, k in steps of 16 through workgroup
//         memory; grid ceil(i/64) x ceil(o/64)
// order   tiled: rows k = 0..r ascending, one accumulator per dw
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    2*r*i*o flop; 4*(r*o + r*i) + 4*o*i bytes
// source  definition
struct Params {
    r: u32, o: u32, i: u32,
    dy_at: u32, dy_ld: u32, x_at: u32, x_ld: u32, dw_at: u32, dw_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> dy: array<Real>;
@group(0) @binding(1) var<storage, read_write> x: array<Real>;
@group(0) @binding(2) var<storage, read_write> dw: array<f32>;
@group(0) @binding(9) var<uniform> p: Params;

// Element of dy; 0 outside.
fn dy_of(row: u32, col: u32) -> f32 {
    if (row < p.r && col < p.o) { return f32(dy[p.dy_at + row * p.dy_ld + col]); }
    return 0.0;
}

// Element of x; 0 outside.
fn x_of(row: u32, col: u32) -> f32 {
    if (row < p.r && col < p.i) { return f32(x[p.x_at + row * p.x_ld + col]); }
    return 0.0;
}

// 16 columns of k by 64 rows, and 16 rows of k by 64 columns. A pitch of 17 spreads a column over the banks.
var<workgroup> left: array<vec4<f32>, 272>;
var<workgroup> right: array<vec4<f32>, 272>;

@compute @workgroup_size(16, 16)
fn tiled(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let first_row = group.y * 64u + local.y * 4u;
    let first_col = group.x * 64u + local.x * 4u;
    let staged_left = group.y * 64u + local.x * 4u;
    var sum0 = vec4<f32>();
    var sum1 = vec4<f32>();
    var sum2 = vec4<f32>();
    var sum3 = vec4<f32>();
    for (var k = 0u; k < p.r; k += 16u) {
        left[local.y * 17u + local.x] = vec4<f32>(
            dy_of(k + local.y, staged_left), dy_of(k + local.y, staged_left + 1u),
            dy_of(k + local.y, staged_left + 2u), dy_of(k + local.y, staged_left + 3u),
        );
        right[local.y * 17u + local.x] = vec4<f32>(
            x_of(k + local.y, first_col), x_of(k + local.y, first_col + 1u),
            x_of(k + local.y, first_col + 2u), x_of(k + local.y, first_col + 3u),
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
        let row = first_row + at / 4u;
        let col = first_col + at % 4u;
        if (row < p.o && col < p.i) {
            let sum = sums[at / 4u][at % 4u];
            dw[p.dw_at + row * p.dw_ld + col] = sum;
        }
    }
}
