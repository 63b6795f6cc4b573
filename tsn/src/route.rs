//! Measures a new task under every earlier subnetwork, and lets the affinity rules decide. Source: method.md 6.

use crate::bank::{ActionKind, Bank, Named, TaskRecord};
use crate::error::Error;
use crate::evaluate::Evaluator;
use crate::options::{Options, Profile, Strategy, WarmStart};
use crate::state::State;
use crate::task::{Task, action_words};
use affinity::{Candidate, Decision, Gaussian, Mode, Origin, Pick, Policy, Prototypes, Row, Target, Units, score};
use autograd::engine::DType;
use autograd::engine::kernels::philox::{Rng, Stream};
use dt::autograd;
use dt::config::Config;
use dt::data::batch::Sampler;
use dt::data::episodes::{Actions, Moments};
use dt::env::ObsShape;
use dt::model::input;

/// Batches that an action affinity is averaged over.
const BATCHES: usize = 4;
/// Frames that describe a task: by their latents, or kept as they are (KL routing).
pub(crate) const MEMORY_FRAMES: usize = 256;
/// Prototypes per task (cosine routing).
const PROTOTYPES: usize = 16;
/// Batches for routing are drawn under a task number that training never uses.
const ROUTING: u32 = 1 << 31;

/// Where a task goes, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Copy to train in.
    pub copy: usize,
    /// Closest earlier task.
    pub source: Option<usize>,
    /// The copy is new.
    pub created: bool,
    /// Scores start from the source's mask.
    pub warm_start: bool,
    /// Measures of every earlier task.
    pub scores: Vec<Row>,
}

impl Route {
    /// A decision that needed no measure.
    pub(crate) fn fixed(copy: usize, created: bool) -> Route {
        Route { copy, source: None, created, warm_start: false, scores: Vec::new() }
    }
}

/// Decides where a new task goes.
///
/// # Errors
/// [`Error::NoRoom`] if no copy has room and none may be added; [`Error::Affinity`], [`Error::Engine`].
pub(crate) fn route(
    evaluator: &mut Evaluator,
    config: &Config,
    options: &Options,
    bank: &Bank,
    task: &Task,
    number: usize,
) -> Result<Route, Error> {
    let fits: Vec<bool> = bank
        .copies
        .iter()
        .map(|copy| options.fits(number, copy.masked().map(|(_, occupied)| (occupied.len(), occupied.count()))))
        .collect();
    let route = if options.strategy == Strategy::Tsn {
        let copy = fits.iter().rposition(|fits| *fits).unwrap_or(bank.copies.len());
        Route::fixed(copy, copy == bank.copies.len())
    } else {
        let mut candidates = Vec::new();
        for (u, record) in bank.tasks.iter().enumerate() {
            let measured = measure(evaluator, config, options, bank, record, task, number)?;
            candidates.push(Candidate { task: u, copy: record.copy, fits: fits[record.copy], ..measured });
        }
        let chance = Some(chance(task, config)?);
        let target = Target { chance, width: Some(config.width as usize) };
        let decision = affinity::decide(&policy(options), &target, &candidates)?;
        let Decision { copy, source, created, warm_start, scores, .. } = decision;
        Route { copy, source, created, warm_start, scores }
    };
    let over = options.max_copies.is_some_and(|most| route.created && bank.copies.len() >= most);
    if over || (!route.created && fits.get(route.copy) == Some(&false)) {
        let free = |copy: &crate::bank::CopyRecord| {
            let (all, set) = copy.masked().fold((0, 0), |(a, s), (_, o)| (a + o.len(), s + o.count()));
            1.0 - set as f64 / all.max(1) as f64
        };
        let free = bank.copies.iter().map(free).fold(0.0, f64::max);
        return Err(Error::NoRoom { task: task.name.clone(), keep_ratio: options.keep_ratio, free });
    }
    Ok(route)
}

/// What ranks earlier tasks.
fn mode(options: &Options) -> Mode {
    if options.strategy == Strategy::TsnKl { Mode::Kl } else { options.mode }
}

/// The decision rule that the options describe.
fn policy(options: &Options) -> Policy {
    let mode = mode(options);
    let base = match options.profile {
        // One limit of A'': what first match takes is what may start warm.
        Profile::Corrected => Policy {
            mode,
            units: Units::Scaled,
            warm_start: affinity::WarmStart::AtMost(options.thresholds.action),
            ..Policy::corrected()
        },
        Profile::Official => Policy::official(mode, options.thresholds),
    };
    Policy {
        pick: match options.strategy {
            Strategy::FirstMatch => Pick::FirstMatch,
            Strategy::Random => Pick::Random { seed: options.seed },
            _ => Pick::Best,
        },
        warm_start: match options.warm_start {
            WarmStart::Never => affinity::WarmStart::Never,
            _ => base.warm_start,
        },
        thresholds: options.thresholds,
        max_copies: options.max_copies,
        ..base
    }
}

/// Every measure of one earlier task that the options ask for.
pub(crate) fn measure(
    evaluator: &mut Evaluator,
    config: &Config,
    options: &Options,
    bank: &Bank,
    record: &TaskRecord,
    task: &Task,
    number: usize,
) -> Result<Candidate, Error> {
    let mut state = State::of_task(bank, record);
    let mut kind = task.action(config);
    if let (Profile::Official, ActionKind::Discrete { n, valid }) = (options.profile, &mut kind) {
        *valid = (0..*n).collect();
    }
    let (allowed, active) = action_words(&kind);
    let bytes = allowed.iter().flat_map(|w| w.to_le_bytes()).collect();
    state.0.insert(input::ALLOWED.into(), (DType::Bits, bytes));
    state.put(input::ACTIVE, &active);
    let sampler = routing_sampler(config, options, evaluator.batch(), task, number as u32, Some(record))?;
    let measured = evaluator.measure(&state, &sampler, BATCHES, |batch, index| sampler.fill(batch, index as u32))?;
    let width = config.width as usize;
    let frames = measured.latents.len().min(MEMORY_FRAMES * width);
    let latents = &measured.latents[..frames];
    let reference = Gaussian::new(record.latent_mean.clone(), record.latent_var.clone())?;
    let extra = |name: &str| record.extra.iter().find(|named| named.name == name).map(|named| named.values.clone());
    let cosine = match (extra("prototypes"), extra("prototypes.mean")) {
        (Some(centers), Some(mean)) => Some(Prototypes::new(mean, centers)?.affinity(latents)?),
        _ => None,
    };
    let kl = match extra("memory") {
        Some(old) => {
            let (new, d) = replay_memory(config, options, task, number as u32);
            let rows = old.len().min(new.len()) / d.max(1) * d;
            Some(score::kl_reuse(&new[..rows], &old[..rows], d)?)
        }
        None => None,
    };
    Ok(Candidate {
        action: Some(measured.loss),
        own_error: Some(record.own_loss),
        latent: Some(affinity::sym_kl(&Gaussian::from_rows(latents, width)?, &reference)?),
        cosine,
        kl,
        ..Candidate::new(0, 0)
    })
}

/// Latents of frames of a task under a state.
///
/// # Errors
/// [`Error::Data`], [`Error::Engine`].
pub(crate) fn memory(
    evaluator: &mut Evaluator,
    config: &Config,
    options: &Options,
    state: &State,
    task: &Task,
    number: u32,
) -> Result<Vec<f32>, Error> {
    let sampler = routing_sampler(config, options, evaluator.batch(), task, number, None)?;
    Ok(evaluator.measure(state, &sampler, 1, |batch, index| sampler.fill(batch, index as u32))?.latents)
}

/// Stores what the options' measure needs of a finished task beyond its latent statistics.
pub(crate) fn remember(
    config: &Config,
    options: &Options,
    task: &Task,
    latents: &[f32],
    number: u32,
    record: &mut TaskRecord,
) -> Result<(), Error> {
    let width = config.width as usize;
    if mode(options) == Mode::Cosine {
        let m = PROTOTYPES.min(latents.len() / width);
        let prototypes = Prototypes::fit(latents, width, m, Origin::Mean, options.seed, number)?;
        let (shape, values) = (vec![m as u64, width as u64], prototypes.center().to_vec());
        record.extra.push(Named { name: "prototypes".into(), shape, values });
        record.extra.push(Named::vector("prototypes.mean", prototypes.mean().to_vec()));
    }
    if mode(options) == Mode::Kl {
        let (values, d) = replay_memory(config, options, task, number);
        let shape = vec![(values.len() / d) as u64, d as u64];
        record.extra.push(Named { name: "memory".into(), shape, values });
    }
    Ok(())
}

fn routing_sampler<'t>(
    config: &Config,
    options: &Options,
    batch: u32,
    task: &'t Task,
    number: u32,
    under: Option<&TaskRecord>,
) -> Result<Sampler<'t>, Error> {
    let mut sampling = task.sampling(config, options, batch, ROUTING | number);
    if let (Some(record), Some(own)) = (under.filter(|r| !r.obs_mean.is_empty()), &mut sampling.moments) {
        let place = |j: usize| task.layout.as_ref().map_or(j, |layout| layout.places[j]);
        for j in 0..own.mean.len() {
            own.mean[j] = record.obs_mean[place(j)];
            own.std[j] = record.obs_std[place(j)];
        }
    }
    Ok(Sampler::new(&task.episodes, &task.split.train, sampling)?)
}

/// Observation statistics of a task at the places of the model's observation; mean 0 and deviation 1 elsewhere.
pub(crate) fn slot_moments(task: &Task, config: &Config) -> (Vec<f32>, Vec<f32>) {
    let Some(Moments { mean, std }) = task.moments() else { return (Vec::new(), Vec::new()) };
    let width = config.observation_len() as usize;
    let (mut means, mut stds) = (vec![0.0; width], vec![1.0; width]);
    for j in 0..mean.len() {
        let place = task.layout.as_ref().map_or(j, |layout| layout.places[j]);
        (means[place], stds[place]) = (mean[j], std[j]);
    }
    (means, stds)
}

/// Loss of a guess that knows nothing of the state.
pub(crate) fn chance(task: &Task, config: &Config) -> Result<f64, Error> {
    match (task.action(config), task.episodes.actions()) {
        (ActionKind::Discrete { valid, .. }, _) => Ok(score::chance_discrete(valid.len())?),
        (ActionKind::Continuous { active, .. }, Actions::Continuous { dim, values }) => {
            let active: Vec<bool> = (0..*dim as u32).map(|a| active.contains(&a)).collect();
            Ok(score::chance_continuous(values, &active)?)
        }
        _ => Err(Error::Broken { what: format!("the actions of {} are not the model's", task.name) }),
    }
}

/// Raw frames drawn without replacement over the whole dataset, and their length. Vectors take their places in the
/// model's observation, so that tasks of different widths pair the same quantities.
fn replay_memory(config: &Config, options: &Options, task: &Task, number: u32) -> (Vec<f32>, usize) {
    let rows = task.episodes.rows();
    let mut rng = Rng::new(options.seed, Stream::Routing, [number, 0]);
    // Reservoir sampling: every row has the same chance, in one pass.
    let mut chosen: Vec<usize> = (0..rows.min(MEMORY_FRAMES)).collect();
    for row in MEMORY_FRAMES..rows {
        let at = rng.below(row as u64 + 1) as usize;
        if at < MEMORY_FRAMES {
            chosen[at] = row;
        }
    }
    let observations = task.episodes.observations();
    match observations.shape() {
        ObsShape::Vector { .. } => {
            let width = config.observation_len() as usize;
            let mut frames = vec![0.0; chosen.len() * width];
            for (frame, row) in frames.chunks_exact_mut(width).zip(&chosen) {
                for (j, value) in observations.row(*row).into_iter().enumerate() {
                    frame[task.layout.as_ref().map_or(j, |layout| layout.places[j])] = value;
                }
            }
            (frames, width)
        }
        ObsShape::Frame { height, width } => {
            let pixels = |row: &usize| observations.row(*row).into_iter().map(|pixel| pixel / 255.0);
            (chosen.iter().flat_map(pixels).collect(), height * width)
        }
    }
}
