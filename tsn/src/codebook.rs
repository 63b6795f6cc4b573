//! Newly claimed weights replaced by a few shared values, and those values tuned. Source: method.md 5.8.

use crate::bank::Codebook;
use crate::error::Error;
use crate::fit::{Fit, Fitted, frozen, scalar};
use crate::options::Quantise;
use autograd::engine::kernels::BitMask;
use autograd::engine::kernels::ops::kmeans::KMEANS;
use autograd::engine::{Builder, DType, Device, Life, Program};
use autograd::{AdamW, Param, Trainable};
use dt::autograd;
use dt::train::{feed, output, plan_gradients};
use std::collections::BTreeMap;

/// A tensor's claimed weights as codes into centres that are still being tuned.
struct Book {
    tensor: String,
    /// The whole tensor, with every place holding the centre of its code.
    values: Vec<f32>,
    /// Claimed entries, ascending.
    places: Vec<usize>,
    /// One code per place.
    codes: Vec<u8>,
    /// Centres and their two moments: in f64, so that small steps add up.
    centres: Vec<[f64; 3]>,
}

/// Replaces the weights that a trained task claims first (`mask & !occupied`, biases left out) by at most
/// `settings.clusters` values per tensor: exact one-dimensional k-means, then Adam on the centres alone with masks,
/// norms and biases fixed. `occupied` is what earlier tasks own, by tensor name.
///
/// A tensor of fewer than 2 claimed weights or fewer than 2 distinct values is left as it is. Entries that are not
/// claimed keep their bits. Tuning draws the batches that would follow the training steps.
///
/// # Errors
/// [`Error::NotFinite`] if a weight, the loss or a gradient is NaN or infinite; [`Error::Data`], [`Error::Engine`].
///
/// Determinism: bits depend on the trained state, the data, the settings and the number of the task only.
pub fn quantise(
    fit: &Fit<'_>,
    settings: &Quantise,
    occupied: &BTreeMap<String, BitMask>,
    fitted: &mut Fitted,
) -> Result<Vec<Codebook>, Error> {
    let mut books = Vec::new();
    for spec in fit.config.parameters().into_iter().filter(|s| s.name.ends_with(".weight")) {
        let Some((mask, occupied)) = fitted.masks.get(&spec.name).zip(occupied.get(&spec.name)) else { continue };
        let Some(values) = fitted.state.get(&spec.name) else { continue };
        let new = mask.and_not(occupied);
        let places: Vec<usize> = new.flags().enumerate().filter(|(_, set)| *set).map(|(at, _)| at).collect();
        let claimed: Vec<f32> = places.iter().map(|at| values[*at]).collect();
        if let Some(value) = claimed.iter().find(|v| !v.is_finite()) {
            return Err(not_finite(fit, 0, "weight", *value));
        }
        let Some((centres, codes)) = cluster(fit.device, &claimed, settings.clusters)? else { continue };
        let centres = centres.iter().map(|c| [f64::from(*c), 0.0, 0.0]).collect();
        let mut book = Book { tensor: spec.name, values, places, codes, centres };
        book.apply();
        books.push(book);
    }
    for book in &books {
        fitted.state.put(book.tensor.as_str(), &book.values);
    }
    if settings.tune_steps > 0 && !books.is_empty() {
        tune(fit, settings, fitted, &mut books)?;
    }
    let finish = |book: Book| {
        fitted.state.put(book.tensor.as_str(), &book.values);
        let centres = book.centres.iter().map(|c| c[0] as f32).collect();
        Codebook { tensor: book.tensor, centres, codes: book.codes }
    };
    Ok(books.into_iter().map(finish).collect())
}

/// Centres, and the code of each value.
type Clusters = (Vec<f32>, Vec<u8>);

/// Exact centres of some finite values, ascending; `None` if they are not worth a codebook.
fn cluster(device: &Device, values: &[f32], clusters: u32) -> Result<Option<Clusters>, Error> {
    let n = values.len() as u32;
    if n < 2 {
        return Ok(None);
    }
    let k = clusters.min(n);
    let mut builder = Builder::new();
    let mut vector = |name: &str, dtype, cols, life| {
        let buffer = builder.buffer(name, dtype, 1, cols, life);
        Some(builder.whole(buffer))
    };
    let args = [
        vector("x", DType::F32, n, Life::Input),
        None,
        None,
        vector("center", DType::F32, k, Life::Output),
        vector("code", DType::U8, n, Life::Output),
        vector("inertia", DType::F32, 1, Life::Output),
        vector("used", DType::U32, 1, Life::Output),
    ];
    builder.call(&KMEANS, &args, &[])?;
    let mut program = builder.finish()?.bind(device)?;
    program.write("x", values)?;
    program.run()?;
    let used = program.read_vec::<u32>("used")?[0] as usize;
    if used < 2 {
        return Ok(None);
    }
    let mut centres: Vec<f32> = program.read_vec("center")?;
    // Centres past the used ones repeat the last and have no members.
    centres.truncate(used);
    Ok(Some((centres, program.read_vec("code")?)))
}

/// Steps of Adam on the centres.
fn tune(fit: &Fit<'_>, settings: &Quantise, fitted: &Fitted, books: &mut [Book]) -> Result<(), Error> {
    let Fit { device, config, options, task, number, .. } = *fit;
    let plan = plan_gradients(config, options.batch, |spec| {
        let learns = books.iter().any(|book| book.tensor == spec.name);
        Param { trainable: if learns { Trainable::All } else { Trainable::Frozen }, ..frozen(spec, true) }
    })?;
    let mut program = plan.bind(device)?;
    fitted.state.load(&mut program)?;
    let sampler = task.sampler(config, options, options.batch, number as u32)?;
    let mut batch = sampler.batch();
    for step in 0..settings.tune_steps {
        sampler.fill(&mut batch, (options.steps + step) as u32);
        sampler.intact()?;
        feed(&mut program, &batch)?;
        program.run()?;
        let loss = scalar(&program, output::LOSS)?;
        if !loss.is_finite() {
            return Err(not_finite(fit, step, "loss", loss));
        }
        for book in books.iter_mut() {
            let sums = book.gradients(&program)?;
            if let Some(sum) = sums.iter().find(|sum| !sum.is_finite()) {
                return Err(not_finite(fit, step, "gradient of a centre", *sum as f32));
            }
            book.step(&sums, settings.tune_rate, step + 1);
            program.write(&book.tensor, &book.values)?;
        }
    }
    Ok(())
}

fn not_finite(fit: &Fit<'_>, step: u64, what: &'static str, value: f32) -> Error {
    Error::NotFinite { task: fit.task.name.clone(), step: fit.options.steps + step, what, value }
}

impl Book {
    /// Writes the centres into the tensor.
    fn apply(&mut self) {
        for (at, code) in self.places.iter().zip(&self.codes) {
            self.values[*at] = self.centres[usize::from(*code)][0] as f32;
        }
    }

    /// Gradient of each centre: the sum over its members, row major. Zeros if the loss does not reach the tensor.
    fn gradients(&self, program: &Program) -> Result<Vec<f64>, Error> {
        let mut sums = vec![0.0; self.centres.len()];
        let name = format!("{}{}", output::GRAD, self.tensor);
        if program.has(&name) {
            let all: Vec<f32> = program.read_vec(&name)?;
            for (at, code) in self.places.iter().zip(&self.codes) {
                sums[usize::from(*code)] += f64::from(all[*at]);
            }
        }
        Ok(sums)
    }

    /// Adam step number `t` (from 1), without weight decay and without clipping.
    fn step(&mut self, gradients: &[f64], rate: f64, t: u64) {
        let AdamW { beta1, beta2, eps, .. } = AdamW::default();
        let [beta1, beta2, eps] = [beta1, beta2, eps].map(f64::from);
        let [correct1, correct2] = [beta1, beta2].map(|beta| 1.0 - beta.powf(t as f64));
        for ([centre, m, v], g) in self.centres.iter_mut().zip(gradients) {
            *m = beta1 * *m + (1.0 - beta1) * g;
            *v = beta2 * *v + (1.0 - beta2) * g * g;
            *centre -= rate * (*m / correct1) / ((*v / correct2).sqrt() + eps);
        }
        self.apply();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_values_are_not_worth_a_codebook() {
        let device = Device::cpu(1);
        assert_eq!(cluster(&device, &[], 16).unwrap(), None);
        assert_eq!(cluster(&device, &[1.5], 16).unwrap(), None);
        assert_eq!(cluster(&device, &[1.5; 9], 16).unwrap(), None);
        // Three distinct values need no more centres, whatever was asked for.
        let found = cluster(&device, &[2.0, -1.0, 2.0, 0.5, -1.0], 16).unwrap();
        assert_eq!(found, Some((vec![-1.0, 0.5, 2.0], vec![2, 0, 2, 1, 0])));
    }

    #[test]
    fn two_clusters_are_split_at_the_gap() {
        let values = [0.0, 10.0, 1.0, 11.0];
        assert_eq!(cluster(&Device::cpu(1), &values, 2).unwrap(), Some((vec![0.5, 10.5], vec![0, 1, 0, 1])));
    }

    #[test]
    fn a_step_moves_members_together_and_nothing_else() {
        let mut book = Book {
            tensor: "w".into(),
            values: vec![0.25, 7.0, 0.25, -0.5],
            places: vec![0, 2, 3],
            codes: vec![1, 1, 0],
            centres: vec![[-0.5, 0.0, 0.0], [0.25, 0.0, 0.0]],
        };
        // The first step of Adam is one rate long, against the sign of the gradient.
        book.step(&[-3.0, 0.1], 0.125, 1);
        assert!((book.values[3] + 0.375).abs() < 1e-6 && (book.values[0] - 0.125).abs() < 1e-6, "{:?}", book.values);
        assert_eq!((book.values[0].to_bits(), book.values[1]), (book.values[2].to_bits(), 7.0));
    }
}
