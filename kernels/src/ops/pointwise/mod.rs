//! GELU (erf form) and addition.

mod cpu;
mod reference;

use crate::contract::*;

/// `y = x / 2 (1 + erf(x / sqrt 2))`
pub static GELU: Contract = Contract {
    name: "gelu",
    formula: "y = x / 2 (1 + erf(x / sqrt 2))",
    args: &[read("x", F32, &['r', 'c']), write("y", F32, &['r', 'c'])],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6),
    check: no_check,
    flops: |d| 8 * (d.size('r') * d.size('c')) as u64,
    reference: reference::gelu,
    cpu: &[Variant::any("plain", cpu::gelu)],
    cuda: &[],
    wgsl: &[],
};

/// `dx = dy (Φ(x) + x φ(x))`
pub static GELU_DX: Contract = Contract {
    name: "gelu_dx",
    formula: "dx = dy (Φ(x) + x φ(x))",
    args: &[read("x", F32, &['r', 'c']), read("dy", F32, &['r', 'c']), write("dx", F32, &['r', 'c'])],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6),
    check: no_check,
    flops: |d| 8 * (d.size('r') * d.size('c')) as u64,
    reference: reference::gelu_dx,
    cpu: &[Variant::any("plain", cpu::gelu_dx)],
    cuda: &[],
    wgsl: &[],
};

/// `y = a + b`
pub static ADD: Contract = Contract {
    name: "add",
    formula: "y = a + b",
    args: &[read("a", F32, &['r', 'c']), read("b", F32, &['r', 'c']), write("y", F32, &['r', 'c'])],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6),
    check: no_check,
    flops: |d| (d.size('r') * d.size('c')) as u64,
    reference: reference::add,
    cpu: &[Variant::any("plain", cpu::add)],
    cuda: &[],
    wgsl: &[],
};
