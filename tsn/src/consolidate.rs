//! What a dense model notes after a task so that the next one changes it less: how important every weight is.
//! Source: method.md 7.

use crate::error::Error;
use crate::fit::frozen;
use crate::options::{Baseline, Fisher, Options, Strategy};
use crate::state::State;
use crate::task::Task;
use autograd::engine::Device;
use autograd::engine::kernels::philox::{Rng, Stream};
use autograd::{Mask, Param, Trainable};
use dt::autograd;
use dt::config::{Config, Spec};
use dt::train::{feed, output, plan_gradients};

/// Suffixes of what is carried from task to task beside weights. The anchor of a task is the weights it starts from.
const CARRIED: [&str; 3] = [".m", ".v", ".importance"];

/// True for a state that one dense model hands on to the next task.
pub(crate) fn is_carried(name: &str) -> bool {
    CARRIED.iter().any(|suffix| name.ends_with(suffix))
}

/// Adds what training with a penalty starts from: no importance before the first task, and the weights as they are.
pub(crate) fn begin(config: &Config, strategy: Strategy, state: &mut State) {
    if !matches!(strategy, Strategy::Ewc | Strategy::Si) {
        return;
    }
    for spec in config.parameters() {
        let weights = state.get(&spec.name).unwrap_or_default();
        let name = |suffix: &str| format!("{}{suffix}", spec.name);
        if state.get(&name(".importance")).is_none() {
            state.put(name(".importance"), &vec![0.0; weights.len()]);
        }
        state.put(name(".anchor"), &weights);
        if strategy == Strategy::Si {
            state.put(name(".path"), &vec![0.0; weights.len()]);
            state.put(name(".last"), &weights);
        }
    }
}

/// After a task: adds its importance. `before` are the states the task started from.
///
/// # Errors
/// [`Error::Engine`]; [`Error::Data`] where settings do not fit the data.
pub(crate) fn finish(
    device: &Device,
    config: &Config,
    options: &Options,
    task: &Task,
    before: &State,
    after: &mut State,
) -> Result<(), Error> {
    let fisher = match options.strategy {
        Strategy::Ewc => Some(fisher(device, config, options, task, after)?),
        Strategy::Si => None,
        _ => return Ok(()),
    };
    let Baseline { accumulate, damping, cap, .. } = options.baseline;
    for spec in config.parameters() {
        let name = |suffix: &str| format!("{}{suffix}", spec.name);
        let (Some(weights), Some(mut importance)) = (after.get(&spec.name), after.get(&name(".importance"))) else {
            continue;
        };
        match &fisher {
            Some(fisher) => {
                let new = fisher.get(&spec.name).unwrap_or_else(|| vec![0.0; weights.len()]);
                importance.iter_mut().zip(new).for_each(|(all, f)| *all = if accumulate { *all + f } else { f });
            }
            None => {
                let (path, start) = (after.get(&name(".path")), before.get(&spec.name));
                let (path, start) = (path.unwrap_or_default(), start.unwrap_or_default());
                for (((all, path), start), end) in importance.iter_mut().zip(path).zip(start).zip(&weights) {
                    let change = end - start;
                    *all += (path / (change * change + damping)).max(0.0);
                    *all = all.min(cap.unwrap_or(f32::INFINITY));
                }
            }
        }
        after.put(name(".importance"), &importance);
    }
    Ok(())
}

/// The diagonal of a task's Fisher information at its final weights, without dropout, on windows drawn from its
/// training episodes. Sums in f64, in the order of the windows.
fn fisher(device: &Device, config: &Config, options: &Options, task: &Task, state: &State) -> Result<State, Error> {
    let [batches, windows] = options.baseline.fisher_batches;
    let (count, size) = match options.baseline.fisher {
        Fisher::BatchMean => (batches, windows),
        Fisher::PerWindow => (batches * windows, 1),
    };
    let dense = |spec: &Spec| Param { mask: Mask::Dense, trainable: Trainable::All, ..frozen(spec, false) };
    let mut program = plan_gradients(config, size, dense)?.bind(device)?;
    state.load(&mut program)?;
    let sampler = task.sampler(config, options, size, 0)?;
    let mut batch = sampler.batch();
    let specs = config.parameters();
    let reached: Vec<&Spec> = specs.iter().filter(|s| program.has(&format!("{}{}", output::GRAD, s.name))).collect();
    let mut sums: Vec<Vec<f64>> = reached.iter().map(|s| vec![0.0; s.len()]).collect();
    let mut gradient = Vec::new();
    for at in 0..count {
        // A stream of its own: the windows of training are not seen again.
        let mut rng = Rng::new(options.seed, Stream::Replay, [1, at]);
        (0..size as usize).for_each(|slot| sampler.fill_slot(&mut batch, slot, &mut rng));
        sampler.intact()?;
        feed(&mut program, &batch)?;
        program.run()?;
        for (spec, sum) in reached.iter().zip(&mut sums) {
            gradient.resize(spec.len(), 0.0);
            program.read(&format!("{}{}", output::GRAD, spec.name), &mut gradient)?;
            sum.iter_mut().zip(&gradient).for_each(|(sum, g)| *sum += f64::from(*g) * f64::from(*g));
        }
    }
    let mut fisher = State::default();
    for (spec, sum) in reached.iter().zip(&sums) {
        let mean: Vec<f32> = sum.iter().map(|sum| (sum / f64::from(count)) as f32).collect();
        fisher.put(spec.name.as_str(), &mean);
    }
    Ok(fisher)
}
