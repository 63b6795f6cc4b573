//! Dropout by element index: no mask is stored, backward draws the same numbers again.

mod cpu;
mod reference;

use crate::contract::*;

/// `y = add + x ⊙ keep / (1 - drop)`
pub static DROPOUT: Contract = Contract {
    name: "dropout",
    formula: "y = add + x ⊙ keep / (1 - drop)",
    args: &[
        read("x", F32, &['r', 'c']),
        read("add", F32, &['r', 'c']).optional(),
        read("rng", U32, &['4']),
        write("y", F32, &['r', 'c']),
    ],
    scalars: &["drop", "call"],
    tol: Tol::times_plain(2.0, 1e-6),
    check: no_check,
    flops: |d| 8 * (d.size('r') * d.size('c')) as u64,
    reference: reference::dropout,
    cpu: &[Variant::any("plain", cpu::dropout)],
    cuda: &[],
    wgsl: &[],
};

/// `dx = dy ⊙ keep / (1 - drop)`
pub static DROPOUT_DX: Contract = Contract {
    name: "dropout_dx",
    formula: "dx = dy ⊙ keep / (1 - drop)",
    args: &[read("dy", F32, &['r', 'c']), read("rng", U32, &['4']), write("dx", F32, &['r', 'c'])],
    scalars: &["drop", "call"],
    tol: Tol::times_plain(2.0, 1e-6),
    check: no_check,
    flops: |d| 8 * (d.size('r') * d.size('c')) as u64,
    reference: reference::dropout_dx,
    cpu: &[Variant::any("plain", cpu::dropout_dx)],
    cuda: &[],
    wgsl: &[],
};
