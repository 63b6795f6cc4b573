//! SKELETON_OP: say here what the op is for, its layout and where its definition comes from.

mod cpu;
mod reference;

use crate::contract::*;

/// `y = x`
pub static SKELETON_OP: Contract = Contract {
    name: "skeleton_op",
    formula: "y = x",
    args: &[read("x", F32, &['r', 'c']), write("y", F32, &['r', 'c'])],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6),
    check: no_check,
    flops: |d| (d.size('r') * d.size('c')) as u64,
    reference: reference::skeleton_op,
    cpu: &[Variant::any("plain", cpu::skeleton_op)],
    cuda: &[],
    wgsl: wgsl_sources![Wgsl::any(
        "plain",
        include_str!("skeleton_op.wgsl"),
        &[Dispatch { entry: "plain", groups: |d| wgsl::line(d.size('r') * d.size('c'), 64) }],
    )],
};
