//! What the profiler must know of an op besides its contract: letters, usual sizes, and how the rest follows.
//!
//! Most ops need no entry in [`OPS`]: letters are those of the contract. An entry says which letters a user gives
//! instead, in the order of ids, and sets the other letters and the scalars.

use super::case::Shape;
use tsn::dt::autograd::engine::kernels::{Access, Contract, DType, Dims};

/// An op whose letters follow from others.
struct Op {
    names: &'static [&'static str],
    /// Letters that a user may give, with the size that is usual in this project.
    letters: &'static [(char, u32)],
    /// Sets the other letters and the scalars.
    derive: fn(&mut Shape) -> Result<(), String>,
}

/// Optional arguments that are part of the usual call.
const USUAL: &[(&str, &[&str])] =
    &[("masked_gemm_dw", &["score", "ds"]), ("layernorm", &["b"]), ("layernorm_dx", &["dw"]), ("embed_dw", &["w"])];

const FEATURES: &[(char, u32)] = &[('r', 3840), ('o', 128), ('i', 128)];
const ATTENTION: &[(char, u32)] = &[('b', 64), ('t', 60), ('h', 4), ('d', 32)];
/// Images, channels, side of the image, outputs, side of the kernel, stride.
const CONV: &[(char, u32)] = &[('n', 64), ('c', 4), ('s', 84), ('o', 32), ('k', 8), ('t', 4)];

const OPS: &[Op] = &[
    Op {
        names: &["gemm", "gemm_dx", "gemm_dw", "masked_gemm", "masked_gemm_dx", "masked_gemm_dw"],
        letters: FEATURES,
        derive: |_| Ok(()),
    },
    Op {
        names: &["packed_gemm"],
        letters: FEATURES,
        derive: |s| match s.size('i') {
            0..=65536 => s.pack(),
            i => Err(format!("i is {i}, but columns of packed rows are 16-bit: at most 65536")),
        },
    },
    Op {
        names: &["bias_dw", "masked_bias_dw"],
        letters: &[('r', 3840), ('o', 128), ('j', 1)],
        derive: |s| {
            s.scalar("inner", s.size('j'));
            s.product('e', &['o', 'j'], 1)
        },
    },
    Op {
        names: &["attention", "attention_dx"],
        letters: ATTENTION,
        derive: |s| {
            s.scalar("heads", s.size('h'));
            s.scalar("drop", 0.1f32.to_bits());
            s.product('r', &['b', 't'], 1)?;
            s.product('c', &['h', 'd'], 1)?;
            s.product('e', &['h', 'd'], 3)
        },
    },
    Op {
        names: &["attend"],
        letters: &[('b', 1), ('t', 60), ('h', 4), ('d', 32)],
        derive: |s| {
            s.scalar("heads", s.size('h'));
            s.product('r', &['b', 't'], 1)?;
            s.product('c', &['h', 'd'], 1)?;
            s.product('e', &['h', 'd'], 2)
        },
    },
    Op {
        // Groups, rows of a window, new rows of a group.
        names: &["slide"],
        letters: &[('b', 1), ('t', 60), ('j', 3), ('c', 128)],
        derive: |s| {
            s.scalar("b", s.size('b'));
            s.product('r', &['b', 'j'], 1)?;
            s.product('q', &['b', 't'], 1)
        },
    },
    Op { names: &["conv", "conv_dx", "conv_dw"], letters: CONV, derive: convolution },
    Op { names: &["cosine"], letters: &[('n', 64), ('m', 1024), ('d', 128)], derive: |_| Ok(()) },
    Op {
        names: &["cosine_topk"],
        letters: &[('n', 64), ('m', 10_000), ('d', 128), ('k', 10)],
        derive: |s| match s.size('k') <= s.size('m') {
            true => Ok(()),
            false => Err(format!("k is {} but there are only m = {} vectors", s.size('k'), s.size('m'))),
        },
    },
    Op { names: &["kmeans"], letters: &[('n', 100_000), ('k', 16)], derive: |_| Ok(()) },
    Op { names: &["topk"], letters: &[('o', 1000), ('i', 1000)], derive: |_| Ok(()) },
    Op {
        names: &["interleave", "interleave_dx"],
        letters: &[('r', 1280), ('c', 128)],
        derive: |s| s.product('q', &['r'], 3),
    },
    Op {
        names: &["select", "select_dx"],
        letters: &[('r', 1280), ('c', 128), ('s', 3)],
        derive: |s| {
            s.scalar("stride", s.size('s'));
            s.scalar("offset", s.size('s') - 1);
            s.product('q', &['r', 's'], 1)
        },
    },
    Op { names: &["cross_entropy", "cross_entropy_dx"], letters: &[('r', 1280), ('a', 18)], derive: |_| Ok(()) },
    Op { names: &["masked_mse", "masked_mse_dx"], letters: &[('r', 1280), ('a', 4)], derive: |_| Ok(()) },
    Op { names: &["embed", "embed_dw"], letters: &[('r', 1280), ('v', 10_000), ('c', 128)], derive: |_| Ok(()) },
    Op { names: &["adamw", "sumsq"], letters: &[('o', 512), ('i', 128)], derive: |_| Ok(()) },
];

fn convolution(s: &mut Shape) -> Result<(), String> {
    let [side, kernel, stride] = ['s', 'k', 't'].map(|letter| s.size(letter));
    let Some(over) = side.checked_sub(kernel) else {
        return Err(format!("the kernel's side k is {kernel}, more than the image's side s = {side}"));
    };
    let out = over / stride + 1;
    s.scalar("channels", s.size('c'));
    ["height", "width"].iter().for_each(|name| s.scalar(name, side));
    ["kernel_h", "kernel_w"].iter().for_each(|name| s.scalar(name, kernel));
    s.scalar("stride", stride);
    s.product('a', &['c', 's', 's'], 1)?;
    s.product('j', &['c', 'k', 'k'], 1)?;
    // Sides of the output have no letter of their own.
    let pixels = out.checked_mul(out).ok_or("the output has too many pixels")?;
    s.product('e', &['o'], pixels)
}

fn entry(op: &Contract) -> Option<&'static Op> {
    OPS.iter().find(|entry| entry.names.contains(&op.name))
}

/// Letters that a user may give, in the order of ids, with usual sizes.
pub(crate) fn letters(op: &Contract) -> Vec<(char, u32)> {
    if let Some(entry) = entry(op) {
        return entry.letters.to_vec();
    }
    let mut all: Vec<(char, u32)> = Vec::new();
    for &letter in op.args.iter().flat_map(|arg| arg.dims) {
        if !letter.is_ascii_digit() && all.iter().all(|(l, _)| *l != letter) {
            all.push((letter, if letter == 'r' { 3840 } else { 128 }));
        }
    }
    all
}

/// Sets what follows from the letters given.
pub(crate) fn derive(shape: &mut Shape) -> Result<(), String> {
    entry(shape.op).map_or(Ok(()), |entry| (entry.derive)(shape))
}

/// True if an optional argument is part of the usual call.
pub(crate) fn is_usual(op: &Contract, arg: &str) -> bool {
    USUAL.iter().any(|(name, args)| *name == op.name && args.contains(&arg))
}

/// The argument that says which weights count, if the op has one.
pub(crate) fn mask_arg(op: &Contract) -> Option<usize> {
    let named = |arg: &str| ["mask", "trainable", "select"].contains(&arg);
    op.args.iter().position(|a| a.access == Access::Read && a.dtypes == [DType::Bits] && named(a.name))
}

/// Density that is measured unless the user says another; `None` if the op has none.
pub(crate) fn usual_density(op: &Contract) -> Option<f64> {
    match (mask_arg(op), op.name) {
        (_, "packed_gemm" | "topk") => Some(0.5),
        (Some(at), _) => Some(if op.args[at].optional { 1.0 } else { 0.5 }),
        (None, _) => None,
    }
}

/// Share of the arithmetic that a mask of a density leaves. Gradients of weights are computed for every weight, because
/// the scores of all of them learn.
pub(crate) fn kept_share(op: &Contract, density: f64) -> f64 {
    match op.name {
        "masked_gemm" | "masked_gemm_dx" | "conv" | "conv_dx" | "packed_gemm" => density,
        _ => 1.0,
    }
}

/// The letter along which outputs do not depend on each other, so that some of them can be held against f64 alone.
pub(crate) fn separable(op: &Contract) -> Option<char> {
    match op.name {
        "gemm" | "gemm_dx" | "masked_gemm" | "masked_gemm_dx" | "packed_gemm" => Some('r'),
        "gemm_dw" | "masked_gemm_dw" => Some('o'),
        "layernorm" | "layernorm_dx" | "gelu" | "gelu_dx" | "add" | "cross_entropy_dx" => Some('r'),
        "cosine" | "cosine_topk" | "conv" | "conv_dx" => Some('n'),
        _ => None,
    }
}

/// Least traffic of a call. Contracts count whole arguments; these ops touch only the rows they are asked for.
pub(crate) fn least_bytes(op: &Contract, dims: &Dims, whole: u64) -> u64 {
    let rows = |letter: char| (dims.size(letter) * dims.size('c')) as u64;
    match op.name {
        "embed" => 4 * (dims.size('r') as u64 + 2 * rows('r')),
        "select" => 8 * rows('r'),
        _ => whole,
    }
}
