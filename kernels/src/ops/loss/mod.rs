//! Cross-entropy over valid actions and masked squared error.

mod cpu;
mod reference;
#[cfg(test)]
mod tests;

use crate::contract::*;

/// `loss = mean over rows with target != 2^32 - 1 of -log softmax(logits over allowed actions)[target]; 0 if there is none`
///
/// A target that is not an allowed action (2^32 - 1, any other value not below `a`, or a cleared bit) leaves its row
/// out of sum and count. `logprob` of an action that is not allowed is -1e30. Natural logarithms. Order: partial sums
/// of 64 rows in f64, added in order.
pub static CROSS_ENTROPY: Contract = Contract {
    name: "cross_entropy",
    formula: "loss = mean over rows with target != 2^32 - 1 of -log softmax(logits over allowed actions)[target]; 0 if there is none",
    args: &[
        read("logits", F32, &['r', 'a']),
        read("target", U32, &['r']),
        read("allowed", BITS, &['a']).optional(),
        write("loss", F32, &['1']),
        write("logprob", F32, &['r', 'a']).optional(),
    ],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6),
    check: no_check,
    flops: |d| 4 * (d.size('r') * d.size('a')) as u64,
    reference: reference::cross_entropy,
    cpu: &[Variant::any("plain", cpu::cross_entropy).with_scratch(cpu::scratch)],
    cuda: cuda_variants![
        Cuda::any(
            "plain",
            MODULE,
            &[
                Launch::new("cross_entropy_rows", 128, |d| cuda::line(d.size('r'), 128)),
                Launch::new("cross_entropy_combine", 256, |_| [1, 1, 1])
            ]
        )
        .with_work(|d| d.size('r'))
    ],
    wgsl: wgsl_sources![
        Wgsl::any(
            "plain",
            include_str!("cross_entropy.wgsl"),
            &[
                Dispatch { entry: "rows", groups: |d| wgsl::line(d.size('r'), 64) },
                Dispatch { entry: "combine", groups: |_| [1, 1, 1] }
            ]
        )
        .with_work(|d| d.size('r'))
    ],
};

/// `dlogits = dloss (softmax - onehot) / count at counted rows, else 0`
///
/// Counted rows are those of [`CROSS_ENTROPY`]; an action that is not allowed gets 0.
pub static CROSS_ENTROPY_DX: Contract = Contract {
    name: "cross_entropy_dx",
    formula: "dlogits = dloss (softmax - onehot) / count at counted rows, else 0",
    args: &[
        read("logits", F32, &['r', 'a']),
        read("target", U32, &['r']),
        read("allowed", BITS, &['a']).optional(),
        read("dloss", F32, &['1']),
        write("dlogits", F32, &['r', 'a']),
    ],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6),
    check: no_check,
    flops: |d| 4 * (d.size('r') * d.size('a')) as u64,
    reference: reference::cross_entropy_dx,
    cpu: &[Variant::any("plain", cpu::cross_entropy_dx)],
    cuda: cuda_variants![
        Cuda::any(
            "plain",
            MODULE,
            &[
                Launch::new("cross_entropy_dx_count", 256, |_| [1, 1, 1]),
                Launch::new("cross_entropy_dx_rows", 128, |d| cuda::line(d.size('r'), 128))
            ]
        )
        .with_work(|_| 1)
    ],
    wgsl: wgsl_sources![
        Wgsl::any(
            "plain",
            include_str!("cross_entropy_dx.wgsl"),
            &[
                Dispatch { entry: "count", groups: |_| [1, 1, 1] },
                Dispatch { entry: "rows", groups: |d| wgsl::line(d.size('r'), 64) }
            ]
        )
        .with_work(|_| 1)
    ],
};

/// `loss = sum over valid rows of (sum_a active (pred - target)^2 / sum active) / max(1, valid rows)`
///
/// Entries of rows that are not valid and of dimensions with `active` 0 are not read. If `active` sums to 0 that sum
/// counts as 1, so the loss is 0.
pub static MASKED_MSE: Contract = Contract {
    name: "masked_mse",
    formula: "loss = sum over valid rows of (sum_a active (pred - target)^2 / sum active) / max(1, valid rows)",
    args: &[
        read("pred", F32, &['r', 'a']),
        read("target", F32, &['r', 'a']),
        read("valid", U8, &['r']),
        read("active", F32, &['a']).optional(),
        write("loss", F32, &['1']),
    ],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6),
    check: no_check,
    flops: |d| 3 * (d.size('r') * d.size('a')) as u64,
    reference: reference::masked_mse,
    cpu: &[Variant::any("plain", cpu::masked_mse).with_scratch(cpu::scratch)],
    cuda: cuda_variants![
        Cuda::any(
            "plain",
            MODULE,
            &[
                Launch::new("masked_mse_rows", 128, |d| cuda::line(d.size('r'), 128)),
                Launch::new("masked_mse_combine", 256, |_| [1, 1, 1])
            ]
        )
        .with_work(|d| d.size('r'))
    ],
    wgsl: wgsl_sources![
        Wgsl::any(
            "plain",
            include_str!("masked_mse.wgsl"),
            &[
                Dispatch { entry: "rows", groups: |d| wgsl::line(d.size('r'), 64) },
                Dispatch { entry: "combine", groups: |_| [1, 1, 1] }
            ]
        )
        .with_work(|d| d.size('r'))
    ],
};

/// `dpred = dloss 2 active (pred - target) / (sum active max(1, valid rows)) at valid rows, else 0`
///
/// The same entries count as in [`MASKED_MSE`].
pub static MASKED_MSE_DX: Contract = Contract {
    name: "masked_mse_dx",
    formula: "dpred = dloss 2 active (pred - target) / (sum active max(1, valid rows)) at valid rows, else 0",
    args: &[
        read("pred", F32, &['r', 'a']),
        read("target", F32, &['r', 'a']),
        read("valid", U8, &['r']),
        read("active", F32, &['a']).optional(),
        read("dloss", F32, &['1']),
        write("dpred", F32, &['r', 'a']),
    ],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6),
    check: no_check,
    flops: |d| 3 * (d.size('r') * d.size('a')) as u64,
    reference: reference::masked_mse_dx,
    cpu: &[Variant::any("plain", cpu::masked_mse_dx)],
    cuda: cuda_variants![
        Cuda::any(
            "plain",
            MODULE,
            &[
                Launch::new("masked_mse_dx_scale", 256, |_| [1, 1, 1]),
                Launch::new("masked_mse_dx_plain", 256, |d| cuda::line(d.size('r') * d.size('a'), 256))
            ]
        )
        .with_work(|_| 1)
    ],
    wgsl: wgsl_sources![
        Wgsl::any(
            "plain",
            include_str!("masked_mse_dx.wgsl"),
            &[
                Dispatch { entry: "scale", groups: |_| [1, 1, 1] },
                Dispatch { entry: "plain", groups: |d| wgsl::line(d.size('r') * d.size('a'), 64) }
            ]
        )
        .with_work(|_| 1)
    ],
};

#[cfg(feature = "launches")]
const MODULE: cuda::Module = module!("loss", "loss/loss.cu");
