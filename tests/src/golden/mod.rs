//! Golden vectors: cases of a directory, each compared with the engine's results.
//!
//! A directory holds `index.json` and one safetensors file per case (format: `fixtures/golden/README.md`). The first
//! words of a case's name say what it is; everything else (sizes, ratios, steps) is read from the case. Nothing is
//! skipped: an unknown kind, a missing file or tensor, and a tensor that no comparison reads are failures.

mod cartpole;
mod case;
mod layers;
mod model;
mod ops;
#[cfg(test)]
mod tests;

pub use case::{Case, Failure};

use engine::Device;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

type Result<T> = std::result::Result<T, Failure>;
type Kind = fn(&Case, &Device) -> Result<()>;

/// First words of a case's name, and what runs it.
const KINDS: [(&str, Kind); 18] = [
    ("linear", layers::linear),
    ("ste_linear", layers::ste_linear),
    ("ste_conv", layers::ste_conv),
    ("ste_embedding", layers::ste_embedding),
    ("conv2d", layers::conv2d),
    ("layernorm", layers::layernorm),
    ("gelu", layers::gelu),
    ("embedding", layers::embedding),
    ("attention", layers::attention),
    ("cross_entropy", ops::cross_entropy),
    ("masked_mse", ops::masked_mse),
    ("adamw", ops::adamw),
    ("clip_grad_norm", ops::clip_grad_norm),
    ("cosine_matrix", ops::cosine_matrix),
    ("sym_kl", ops::sym_kl),
    ("kmeans1d", ops::kmeans1d),
    ("model", model::run),
    ("env_cartpole", cartpole::run),
];

/// What became of one case.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Name of the case.
    pub case: String,
    /// Largest `|got - expected| / atol` over all outputs; 1 passes.
    pub worst: f64,
    /// Tensor it occurred in; empty if every output was exact.
    pub tensor: String,
    /// What is wrong, each naming its tensor or file; empty if the case passes.
    pub failures: Vec<String>,
}

/// Runs every case of a directory on a device, by name, files that the index does not list last.
///
/// # Errors
/// [`Failure`] if the directory or its index cannot be read. A failed case is an [`Outcome`], not an error.
pub fn run(dir: &Path, device: &Device) -> Result<Vec<Outcome>> {
    let outcomes = case::open_all(dir)?.into_iter().map(|(name, case)| match case {
        Ok(case) => run_case(&case, device),
        Err(failure) => {
            Outcome { case: name, worst: f64::INFINITY, tensor: String::new(), failures: vec![failure.to_string()] }
        }
    });
    Ok(outcomes.collect())
}

fn run_case(case: &Case, device: &Device) -> Outcome {
    let kind = KINDS
        .iter()
        .find(|(words, _)| case.name.strip_prefix(words).is_some_and(|rest| rest.is_empty() || rest.starts_with('_')));
    let result = match kind {
        None => Err(format!("unknown kind of case \"{}\"", case.name).into()),
        // A panic is the failure of this case; the others still report.
        Some((_, kind)) => catch_unwind(AssertUnwindSafe(|| kind(case, device))).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Err(format!("panic: {text}").into())
        }),
    };
    case.outcome(result.err())
}

/// Entries that a mask keeps: `max(1, round(ratio * n))`, half to even, of `n` candidates.
fn keep(ratio: f64, candidates: usize) -> u32 {
    match candidates {
        0 => 0,
        n => (ratio * n as f64).round_ties_even().max(1.0) as u32,
    }
}
