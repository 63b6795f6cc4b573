//! Pack flags to bits and back.

mod cpu;
mod reference;
#[cfg(test)]
mod tests;

use crate::contract::*;

/// `mask bit = flag != 0`
pub static PACK_BITS: Contract = Contract {
    name: "pack_bits",
    formula: "mask bit = flag != 0",
    args: &[read("flags", U8, &['r', 'c']), write("mask", BITS, &['r', 'c'])],
    scalars: &[],
    tol: Tol::exact(),
    check: no_check,
    flops: |_| 0,
    reference: reference::pack_bits,
    cpu: &[Variant::any("plain", cpu::pack_bits)],
    cuda: cuda_variants![Cuda::any(
        "plain",
        MODULE,
        &[Launch::new("pack_bits_plain", 256, |d| cuda::line(d.size('r') * d.size('c').div_ceil(32), 256))]
    )],
    wgsl: wgsl_sources![Wgsl::any(
        "plain",
        include_str!("pack_bits.wgsl"),
        &[Dispatch { entry: "plain", groups: |d| wgsl::line(d.size('r') * d.size('c').div_ceil(32), 64) }]
    )],
};

/// `flag = mask bit`
pub static UNPACK_BITS: Contract = Contract {
    name: "unpack_bits",
    formula: "flag = mask bit",
    args: &[read("mask", BITS, &['r', 'c']), write("flags", U8, &['r', 'c'])],
    scalars: &[],
    tol: Tol::exact(),
    check: no_check,
    flops: |_| 0,
    reference: reference::unpack_bits,
    cpu: &[Variant::any("plain", cpu::unpack_bits)],
    cuda: cuda_variants![Cuda::any(
        "plain",
        MODULE,
        &[Launch::new("unpack_bits_plain", 256, |d| cuda::line(d.size('r') * d.size('c'), 256))]
    )],
    wgsl: wgsl_sources![Wgsl::any(
        "plain",
        include_str!("unpack_bits.wgsl"),
        &[Dispatch { entry: "plain", groups: |d| wgsl::line(d.size('r') * ((d.size('c') + 6) / 4), 64) }]
    )],
};

#[cfg(feature = "launches")]
const MODULE: cuda::Module = module!("bits", "bits/bits.cu");
