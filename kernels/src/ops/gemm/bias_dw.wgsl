// op      bias_dw                db[o] = sum over r and inner of dy[r, o * inner]
// args    dy f32[r,e]  ->  db f32[o]
// layout  row major with pitch `_ld` from unit `_at`
// launch  blocks: one invocation per channel and block of 32 rows; combine: one per channel
// order   the inner index within a row, rows within a block, blocks; all ascending
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    r*e flop; 4*(r*e + o) bytes, and 8*o*r/32 of partial sums
// source  definition
struct Params {
    r: u32, e: u32, o: u32, inner: u32,
    dy_at: u32, dy_ld: u32, db_at: u32, db_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> dy: array<f32>;
@group(0) @binding(1) var<storage, read_write> db: array<f32>;
@group(0) @binding(8) var<storage, read_write> work: array<u32>;
@group(0) @binding(9) var<uniform> p: Params;

@compute @workgroup_size(64)
fn blocks(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = id.y * groups.x * 64u + id.x;  // block of rows, then channel
    if (at >= (p.r + 31u) / 32u * p.o) { return; }
    let channel = at % p.o;
    let first = at / p.o * 32u;
    var all = 0.0;
    for (var row = first; row < min(first + 32u, p.r); row++) {
        let from_dy = p.dy_at + row * p.dy_ld + channel * p.inner;
        var sum = 0.0;
        for (var j = 0u; j < p.inner; j++) { sum += dy[from_dy + j]; }
        all += sum;
    }
    work[at] = bitcast<u32>(all);
}

@compute @workgroup_size(64)
fn combine(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let channel = id.y * groups.x * 64u + id.x;
    if (channel >= p.o) { return; }
    var sum = 0.0;
    for (var block = 0u; block < (p.r + 31u) / 32u; block++) {
        sum += bitcast<f32>(work[block * p.o + channel]);
    }
    db[p.db_at + channel] = sum;
}
