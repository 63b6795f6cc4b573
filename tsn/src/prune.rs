//! Masks by magnitude: of the free weights the largest stay, the others become zero. Source: Mallya and Lazebnik,
//! PackNet: Adding Multiple Tasks to a Single Network by Iterative Pruning (2018).

use crate::error::Error;
use crate::options::Options;
use crate::state::State;
use autograd::engine::Device;
use autograd::engine::kernels::BitMask;
use autograd::{Mask, Param, Select, Trainable};
use dt::autograd;
use dt::config::{Config, Role, Spec};
use dt::train::plan_masks;

/// Prunes every masked tensor to the largest free weights, as many as the budget of task `number` allows; the mask is
/// those and all occupied ones. Pruned weights and their moments become zero.
///
/// # Errors
/// [`Error::Engine`]; [`Error::Broken`] if a state has no free bits.
pub(crate) fn prune(
    device: &Device,
    config: &Config,
    options: &Options,
    number: usize,
    state: &State,
) -> Result<State, Error> {
    let masked = |spec: &Spec| spec.role == Role::Maskable;
    let by_magnitude = |spec: &Spec| {
        let mask = if masked(spec) { Mask::Learned(Select::Free) } else { Mask::Dense };
        Param::new(spec.name.as_str(), spec.rows, spec.cols, mask, Trainable::Frozen)
    };
    let mut program = plan_masks(config, by_magnitude)?.bind(device)?;
    let mut state = state.clone();
    let specs: Vec<Spec> = config.parameters().into_iter().filter(masked).collect();
    let bits = |from: &State, Spec { name, rows, cols, .. }: &Spec, suffix: &str| {
        let words = from.words(&format!("{name}{suffix}")).unwrap_or_default();
        let found = BitMask::from_words(*rows, *cols, words);
        found.ok_or_else(|| Error::Broken { what: format!("bits {name}{suffix}") })
    };
    let mut input = state.clone();
    for spec in &specs {
        let (name, free) = (&spec.name, bits(&state, spec, ".free")?);
        let budget = options.budget(number, free.len(), free.len() - free.count());
        input.put(format!("{name}.score"), &state.get(name).unwrap_or_default());
        input.put_u32(format!("{name}.k"), &[budget.k]);
    }
    input.load(&mut program)?;
    program.run()?;
    let chosen = State::of(&program)?;
    for spec in &specs {
        let (name, kept, free) = (&spec.name, bits(&chosen, spec, ".mask")?, bits(&state, spec, ".free")?);
        let pruned = free.and_not(&kept);
        for suffix in ["", ".m", ".v"] {
            let Some(mut values) = state.get(&format!("{name}{suffix}")) else { continue };
            values.iter_mut().zip(pruned.flags()).filter(|(_, pruned)| *pruned).for_each(|(value, _)| *value = 0.0);
            state.put(format!("{name}{suffix}"), &values);
        }
        state.put_bits(format!("{name}.mask"), &kept.or(&free.not()));
    }
    Ok(state)
}
