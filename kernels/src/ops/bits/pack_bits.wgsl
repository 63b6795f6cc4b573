// op      pack_bits              mask bit = flag != 0
// args    flags u8[r,c]  ->  mask bits[r,c]
// layout  row major with pitch `_ld` from unit `_at`; rows of bits are 32-bit words, column j is bit j%32 of word j/32;
//         four u8 to a word, the lowest byte first
// launch  plain: one invocation per word of the mask, 64 to a workgroup
// order   no sums
// tol     exact
// cost    r*c + r*c/8 bytes
// source  definition
struct Params {
    r: u32, c: u32,
    flags_at: u32, flags_ld: u32, mask_at: u32, mask_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> flags: array<u32>;
@group(0) @binding(1) var<storage, read_write> mask: array<u32>;
@group(0) @binding(9) var<uniform> p: Params;

// Byte `at % 4` of a word.
fn byte_of(word: u32, at: u32) -> u32 {
    return (word >> (8u * (at % 4u))) & 0xffu;
}

@compute @workgroup_size(64)
fn plain(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let words = (p.c + 31u) / 32u;
    let at = id.y * groups.x * 64u + id.x;
    if (at >= p.r * words) { return; }
    let row = at / words;
    let word = at % words;
    let end = min(32u, p.c - 32u * word);
    var bits = 0u;
    for (var j = 0u; j < end; j++) {
        let place = p.flags_at + row * p.flags_ld + 32u * word + j;
        if (byte_of(flags[place / 4u], place) != 0u) { bits |= 1u << j; }
    }
    mask[p.mask_at + row * p.mask_ld + word] = bits;
}
