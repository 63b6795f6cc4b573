//! AdamW that never writes a frozen entry, and the clip norm before it.
//!
//! `step` is `(lr, c1, c2, 0)` with `c1 = 1 - beta1^t`, `c2 = 1 - beta2^t`, computed in f64 on the host.

mod cpu;
mod reference;

use crate::contract::*;

/// `m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g²; p = p (1 - lr wd) - lr (m / c1) / (sqrt(v / c2) + eps), g scaled by clip; entries outside trainable are not touched`
pub static ADAMW: Contract = Contract {
    name: "adamw",
    formula: "m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g²; p = p (1 - lr wd) - lr (m / c1) / (sqrt(v / c2) + eps), g scaled by clip; entries outside trainable are not touched",
    args: &[
        read("g", F32, &['o', 'i']),
        read("trainable", BITS, &['o', 'i']).optional(),
        read("step", F32, &['4']),
        read("clip", F32, &['1']).optional(),
        update("p", F32, &['o', 'i']),
        update("m", F32, &['o', 'i']),
        update("v", F32, &['o', 'i']),
    ],
    scalars: &["beta1", "beta2", "eps", "weight_decay", "lr_scale"],
    tol: Tol::times_plain(2.0, 1e-6),
    check: no_check,
    flops: |d| 14 * (d.size('o') * d.size('i')) as u64,
    reference: reference::adamw,
    cpu: &[Variant::any("plain", cpu::adamw)],
    cuda: &[],
    wgsl: &[],
};

/// `s = sum of g² over trainable entries`
pub static SUMSQ: Contract = Contract {
    name: "sumsq",
    formula: "s = sum of g² over trainable entries",
    args: &[read("g", F32, &['o', 'i']), read("trainable", BITS, &['o', 'i']).optional(), write("s", F32, &['1'])],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6),
    check: no_check,
    flops: |d| 2 * (d.size('o') * d.size('i')) as u64,
    reference: reference::sumsq,
    cpu: &[Variant::any("plain", cpu::sumsq)],
    cuda: &[],
    wgsl: &[],
};

/// `norm = sqrt(sum of s); factor = min(1, max_norm / (norm + 1e-6))`
pub static CLIP: Contract = Contract {
    name: "clip",
    formula: "norm = sqrt(sum of s); factor = min(1, max_norm / (norm + 1e-6))",
    args: &[read("s", F32, &['n']), write("norm", F32, &['1']), write("factor", F32, &['1'])],
    scalars: &["max_norm"],
    tol: Tol::times_plain(2.0, 1e-6),
    check: no_check,
    flops: |d| d.size('n') as u64,
    reference: reference::clip,
    cpu: &[Variant::any("plain", cpu::clip)],
    cuda: &[],
    wgsl: &[],
};
