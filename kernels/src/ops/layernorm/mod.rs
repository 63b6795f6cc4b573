//! Layer norm over the last axis, with and without bias.

mod cpu;
mod reference;

use crate::contract::*;

/// `y = (x - mean) * rstd * w + b over the last axis, biased variance; stats = (mean, rstd)`
pub static LAYERNORM: Contract = Contract {
    name: "layernorm",
    formula: "y = (x - mean) * rstd * w + b over the last axis, biased variance; stats = (mean, rstd)",
    args: &[
        read("x", F32, &['r', 'c']),
        read("w", F32, &['c']),
        read("b", F32, &['c']).optional(),
        write("y", F32, &['r', 'c']),
        write("stats", F32, &['r', '2']),
    ],
    scalars: &["eps"],
    tol: Tol::times_plain(2.0, 1e-6),
    check: no_check,
    flops: |d| 8 * (d.size('r') * d.size('c')) as u64,
    reference: reference::layernorm,
    cpu: &[Variant::any("plain", cpu::layernorm)],
    cuda: &[],
    wgsl: &[],
};

/// `dx of layernorm, plus add if present`
pub static LAYERNORM_DX: Contract = Contract {
    name: "layernorm_dx",
    formula: "dx of layernorm, plus add if present",
    args: &[
        read("dy", F32, &['r', 'c']),
        read("x", F32, &['r', 'c']),
        read("w", F32, &['c']),
        read("stats", F32, &['r', '2']),
        read("add", F32, &['r', 'c']).optional(),
        write("dx", F32, &['r', 'c']),
    ],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6),
    check: no_check,
    flops: |d| 8 * (d.size('r') * d.size('c')) as u64,
    reference: reference::layernorm_dx,
    cpu: &[Variant::any("plain", cpu::layernorm_dx)],
    cuda: &[],
    wgsl: &[],
};

/// `dw = sum over rows of dy ⊙ xhat, db = sum of dy`
pub static LAYERNORM_DW: Contract = Contract {
    name: "layernorm_dw",
    formula: "dw = sum over rows of dy ⊙ xhat, db = sum of dy",
    args: &[
        read("dy", F32, &['r', 'c']),
        read("x", F32, &['r', 'c']),
        read("stats", F32, &['r', '2']),
        write("dw", F32, &['c']),
        write("db", F32, &['c']).optional(),
    ],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6),
    check: no_check,
    flops: |d| 8 * (d.size('r') * d.size('c')) as u64,
    reference: reference::layernorm_dw,
    cpu: &[Variant::any("plain", cpu::layernorm_dw)],
    cuda: &[],
    wgsl: &[],
};
