//! One-dimensional k-means: the exact optimum, or Lloyd's rounds from given centres.
//!
//! Equal values count as one value with a weight, so at most as many centres as distinct values are used. A selected
//! value that is NaN or infinite takes no part: it gets code 0 and makes the inertia NaN, so that it is seen. A centre
//! of `init` that is not finite counts as 0.

mod cpu;
mod cpu_narrow;
mod reference;
#[cfg(test)]
mod tests;

use crate::contract::*;

/// Most centres: codes are bytes.
const MOST: usize = 256;
/// Most rounds from `init`; fewer if the clusters stop changing.
const ROUNDS: usize = 100;

/// `k centres of the selected x in one dimension: the exact optimum, or Lloyd from init; used = min(k, distinct values)`
///
/// `center` ascends; without `init` the unused ones repeat the last used one, with `init` an empty cluster keeps its
/// centre. `code` is the nearest centre as stored, the lower one on ties, and 0 where not selected. `inertia` is
/// `sum (x - center[code])^2` over the selected. Without a selected value everything is 0.
pub static KMEANS: Contract = Contract {
    name: "kmeans",
    formula: "k centres of the selected x in one dimension: the exact optimum, or Lloyd from init; used = min(k, distinct values)",
    args: &[
        read("x", F32, &['n']),
        read("select", BITS, &['n']).optional(),
        read("init", F32, &['k']).optional(),
        write("center", F32, &['k']),
        write("code", U8, &['n']),
        write("inertia", F32, &['1']),
        write("used", U32, &['1']),
    ],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6),
    check,
    flops,
    reference: reference::kmeans,
    cpu: &[
        Variant::any("plain", cpu::kmeans).with_scratch(cpu::scratch),
        Variant::any("narrow", cpu_narrow::kmeans).with_scratch(cpu::scratch),
    ],
    cuda: cuda_variants![
        Cuda::any("plain", MODULE, &[Launch::new("kmeans_plain", 256, |_| [1, 1, 1])]).with_work(launch_words),
    ],
    wgsl: wgsl_sources![
        Wgsl::any("plain", include_str!("kmeans.wgsl"), &[Dispatch { entry: "plain", groups: |_| [1, 1, 1] }])
            .with_work(words)
            .fits(|d| words(d) <= WORDS),
    ],
};

fn check(d: &Dims) -> Result<(), String> {
    match d.size('k') {
        0 => Err("dim `k` is 0 but at least one centre is needed".into()),
        k if k > MOST => Err(format!("dim `k` is {k} but codes are bytes: at most {MOST}")),
        _ => Ok(()),
    }
}

#[cfg(feature = "launches")]
const MODULE: cuda::Module = module!("kmeans", "kmeans/kmeans.cu");

/// Two sums and two costs of two words, and `k` cuts, per value; centres of two words, runs; keys padded to a power of
/// two.
#[cfg(feature = "launches")]
fn launch_words(d: &Dims) -> usize {
    let (n, k) = (d.size('n'), d.size('k'));
    (8 + k) * (n + 1) + 3 * k + 1 + n.next_power_of_two()
}

/// Most words of workspace of the WGSL source, 128 MiB.
#[cfg(feature = "wgsl")]
const WORDS: usize = 1 << 25;

/// Keys padded to a power of two; two sums and two costs of two words, and `k` cuts, per value; runs and centres.
#[cfg(feature = "wgsl")]
fn words(d: &Dims) -> usize {
    let (n, k) = (d.size('n'), d.size('k'));
    n.next_power_of_two() + (8 + k) * (n + 1) + 3 * k + 1
}

/// The dynamic program, upper bound: `k` layers, `n log2 n` split costs each, all done twice, 7 operations a cost.
fn flops(d: &Dims) -> u64 {
    let (n, k) = (d.size('n') as u64, d.size('k') as u64);
    14 * k * n * u64::from(n.max(1).ilog2() + 1)
}
