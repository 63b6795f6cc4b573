// op      unpack_bits            flag = mask bit
// args    mask bits[r,c]  ->  flags u8[r,c]
// layout  row major with pitch `_ld` from unit `_at`; rows of bits are 32-bit words, column j is bit j%32 of word j/32;
//         four u8 to a word, the lowest byte first
// launch  plain: one invocation per word of flags; a row of c touches at most (c + 6) / 4 of them
// order   no sums
// tol     exact
// cost    r*c + r*c/8 bytes
// source  definition
struct Params {
    r: u32, c: u32,
    mask_at: u32, mask_ld: u32, flags_at: u32, flags_ld: u32,
    present: u32,
}
@group(0) @binding(0) var<storage, read_write> mask: array<u32>;
@group(0) @binding(1) var<storage, read_write> flags: array<u32>;
@group(0) @binding(9) var<uniform> p: Params;

// Bit of column `at` in the word that holds it.
fn bit_of(word: u32, at: u32) -> bool {
    return ((word >> (at % 32u)) & 1u) == 1u;
}

@compute @workgroup_size(64)
fn plain(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let words = (p.c + 6u) / 4u;
    let at = id.y * groups.x * 64u + id.x;
    if (at >= p.r * words || p.c == 0u) { return; }
    let row = at / words;
    let first = p.flags_at + row * p.flags_ld;
    let word = first / 4u + at % words;
    if (4u * word >= first + p.c) { return; }
    // A word that the row above reaches is written there.
    if (row > 0u && (first - p.flags_ld + p.c - 1u) / 4u >= word) { return; }
    var value = flags[word];
    for (var j = 0u; j < 4u; j++) {
        // Bytes beside the slice and between its rows keep their values.
        if (4u * word + j < p.flags_at) { continue; }
        let place = 4u * word + j - p.flags_at;
        let flag_row = place / p.flags_ld;
        let col = place % p.flags_ld;
        if (flag_row < p.r && col < p.c) {
            let flag = select(0u, 1u, bit_of(mask[p.mask_at + flag_row * p.mask_ld + col / 32u], col));
            value = (value & ~(0xffu << (8u * j))) | (flag << (8u * j));
        }
    }
    flags[word] = value;
}
