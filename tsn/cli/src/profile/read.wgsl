// Reads all of x, for a ceiling: neighbours read neighbours, four words at a time in flight.
struct Params { r: u32, c: u32, n: u32, x_at: u32, x_ld: u32, y_at: u32, y_ld: u32, present: u32 }
@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(9) var<uniform> p: Params;

@compute @workgroup_size(256)
fn plain(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let first = id.y * groups.x * 256u + id.x;
    if (first >= p.n) { return; }
    let end = p.r * p.c;
    var a = 0.0;
    var b = 0.0;
    var c = 0.0;
    var d = 0.0;
    var at = first;
    for (; at + 3u * p.n < end; at += 4u * p.n) {
        a += x[p.x_at + at];
        b += x[p.x_at + at + p.n];
        c += x[p.x_at + at + 2u * p.n];
        d += x[p.x_at + at + 3u * p.n];
    }
    for (; at < end; at += p.n) {
        a += x[p.x_at + at];
    }
    y[p.y_at + first] = a + b + c + d;
}
