//! Learns tasks one after another into a bank.

use crate::bank::{Bank, Codebook, CopyRecord, Named, Online, TaskRecord, Weight};
use crate::claim::Budget;
use crate::codebook;
use crate::consolidate;
use crate::error::Error;
use crate::evaluate::Evaluator;
use crate::fit::{Checkpoint, Fit, Fitted, Kind};
use crate::observe::{Event, Observer};
use crate::options::{HALF, Options, Profile, Strategy, WarmStart};
use crate::recognise;
use crate::route::{self, Route};
use crate::scores;
use crate::sha256::Sha256;
use crate::state::State;
use crate::task::{Task, action_words};
use autograd::engine::Device;
use autograd::engine::kernels::BitMask;
use dt::autograd;
use dt::config::{Config, Role};
use dt::model::input;
use std::collections::BTreeMap;
use std::time::Instant;

/// Most batches of held-out windows that a task's own loss is measured on.
const OWN_LOSS_BATCHES: usize = 8;

/// What learning one task did.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskReport {
    /// Number in the sequence.
    pub number: usize,
    /// Name.
    pub name: String,
    /// The decision and the scores behind it.
    pub route: Route,
    /// Scores started from the source's mask.
    pub warm_started: bool,
    /// Set mask bits over maskable weights and biases.
    pub density: f64,
    /// Newly claimed weights and biases over all maskable ones.
    pub newly_claimed: f64,
    /// Occupied share of the copy's weights, biases left out.
    pub occupied: f64,
    /// Loss on held-out windows under its own subnetwork.
    pub own_loss: f64,
    /// Mean loss of the first and of the last tenth of the steps of this call.
    pub losses: [f64; 2],
    /// Wall time.
    pub time_s: f64,
    /// Hash of everything that later tasks must leave alone: effective weights, norms, outputs on a fixed batch.
    pub fingerprint: String,
}

/// A bank and how it grows.
pub struct Learner {
    /// Where it runs.
    pub device: Device,
    /// The model.
    pub config: Config,
    /// Settings.
    pub options: Options,
    /// Everything learned.
    pub bank: Bank,
    pub(crate) evaluator: Evaluator,
}

/// A task whose training is over, on its way into the bank.
pub(crate) struct Settled<'a> {
    pub(crate) task: &'a Task,
    pub(crate) route: Route,
    /// The copy before the task.
    pub(crate) copy: CopyRecord,
    pub(crate) fitted: Fitted,
    pub(crate) codebooks: Vec<Codebook>,
    pub(crate) online: Online,
    pub(crate) notes: BTreeMap<String, String>,
    pub(crate) begin: Instant,
}

impl Learner {
    /// An empty bank.
    ///
    /// # Errors
    /// [`Error::Option`], [`Error::Data`] for settings that do not work; [`Error::Engine`].
    pub fn new(device: Device, config: Config, options: Options) -> Result<Learner, Error> {
        Learner::with(device, config, options, Bank::default())
    }

    /// Goes on with a bank.
    ///
    /// # Errors
    /// As [`Learner::new`], and [`Error::Bank`] if the bank was made for another model.
    pub fn with(device: Device, config: Config, options: Options, bank: Bank) -> Result<Learner, Error> {
        options.validate()?;
        config.validate()?;
        bank.check()?;
        let width = config.observation_len() as usize;
        if let Some((at, task)) = bank.tasks.iter().enumerate().find(|(_, t)| ![0, width].contains(&t.obs_mean.len())) {
            let (expected, found) = (format!("{width} values, or none"), task.obs_mean.len().to_string());
            return Err(Error::bank(format!("task {at}, obs_mean"), expected, found));
        }
        for (at, copy) in bank.copies.iter().enumerate() {
            let shapes = |list: &mut dyn Iterator<Item = (&str, u32, u32)>| -> BTreeMap<String, (u32, u32)> {
                list.map(|(name, rows, cols)| (name.to_owned(), (rows, cols))).collect()
            };
            let have = shapes(&mut copy.weights.iter().map(|w| (w.name.as_str(), w.rows, w.cols)));
            let specs = config.parameters();
            let want = shapes(&mut specs.iter().map(|s| (s.name.as_str(), s.rows, s.cols)));
            if let Some((name, shape)) = have.iter().find(|(name, shape)| want.get(*name) != Some(shape)) {
                let expected = format!("{:?} for this model", want.get(name));
                return Err(Error::bank(format!("copy {at}, weight \"{name}\""), expected, format!("{shape:?}")));
            }
        }
        let batch = options.batch.min(64);
        let evaluator = Evaluator::new(&device, &config, options.strategy.is_masked(), batch)?;
        Ok(Learner { device, config, options, bank, evaluator })
    }

    /// The programs that play and measure its tasks.
    pub fn evaluator(&mut self) -> &mut Evaluator {
        &mut self.evaluator
    }

    /// Learns one task and adds it to the bank; on any error the bank is as before.
    ///
    /// # Errors
    /// [`Error::Known`], [`Error::NoRoom`], [`Error::NotFinite`], [`Error::Stopped`], [`Error::Data`],
    /// [`Error::Engine`], and errors of the observer.
    pub fn learn(
        &mut self,
        task: &Task,
        resume: Option<Checkpoint>,
        observer: &mut dyn Observer,
    ) -> Result<TaskReport, Error> {
        self.learn_among(task, &[], resume, observer)
    }

    /// As [`Learner::learn`], with other tasks whose data [`Strategy::Cumulative`] (earlier ones) and
    /// [`Strategy::MultiTask`] (all others) draw on; [`Strategy::company`] picks them from a list.
    ///
    /// # Errors
    /// As [`Learner::learn`].
    pub fn learn_among(
        &mut self,
        task: &Task,
        company: &[&Task],
        resume: Option<Checkpoint>,
        observer: &mut dyn Observer,
    ) -> Result<TaskReport, Error> {
        let begin = Instant::now();
        let number = self.bank.tasks.len();
        if self.bank.tasks.iter().any(|t| t.name == task.name) {
            return Err(Error::Known { task: task.name.clone() });
        }
        observer.event(Event::Task { task: number, name: &task.name })?;
        let route = self.route(task, number)?;
        let copy = match self.bank.copies.get(route.copy) {
            Some(copy) => copy.clone(),
            None => self.fresh_copy(route.copy),
        };
        let shared_frozen = self.bank.tasks.iter().any(|t| t.copy == route.copy);
        let masked = self.options.strategy.is_masked();
        let kind = if masked { Kind::Masked { shared_frozen } } else { Kind::Dense };
        let (start, adam_steps) = self.start(task, company, number, &copy, &route)?;
        let (device, config, options) = (&self.device, &self.config, &self.options);
        // Before the training, so that data that cannot be described cost none.
        let online = recognise::online(task, options.seed, number as u32)?;
        let fit = Fit { device, config, options, task, company, number, kind, adam_steps };
        let mut fitted = fit.run(start.clone(), resume, observer)?;
        consolidate::finish(device, config, options, task, &start, &mut fitted.state)?;
        // Before anything is measured of the task: what is described and hashed is what later tasks find.
        let codebooks = match &self.options.quantise {
            Some(settings) if masked => {
                let occupied = copy.masked().map(|(w, occupied)| (w.name.clone(), occupied.clone())).collect();
                codebook::quantise(&fit, settings, &occupied, &mut fitted)?
            }
            _ => Vec::new(),
        };
        self.settle(Settled { task, route, copy, fitted, codebooks, online, notes: BTreeMap::new(), begin }, observer)
    }

    /// Claims the weights of a fitted task, measures it and puts it into the bank; on any error the bank is as before.
    ///
    /// # Errors
    /// As [`Learner::learn`].
    pub(crate) fn settle(&mut self, settled: Settled<'_>, observer: &mut dyn Observer) -> Result<TaskReport, Error> {
        let Settled { task, route, mut copy, fitted, codebooks, online, notes, begin } = settled;
        let (number, masked) = (self.bank.tasks.len(), self.options.strategy.is_masked());
        let occupied_before: Vec<BitMask> = copy.masked().map(|(_, occupied)| occupied.clone()).collect();
        self.take_weights(&mut copy, &fitted)?;
        let mut record =
            TaskRecord { codebooks, online: Some(online), notes, ..self.record(task, &route, &fitted, &copy)? };
        let (mut claimed, mut set) = (0, 0);
        for ((before, weight), mask) in
            occupied_before.iter().zip(copy.weights.iter_mut().filter(|w| w.occupied.is_some())).zip(&record.masks)
        {
            claimed += mask.and_not(before).count();
            set += mask.count();
            weight.occupied = Some(before.or(mask));
        }
        record.claimed = claimed as u64;

        let mut bank = self.bank.clone();
        if self.options.strategy.goes_on() {
            // The new record carries on; earlier tasks have no more use for what they handed over.
            bank.tasks.iter_mut().for_each(|t| t.extra.retain(|named| !consolidate::is_carried(&named.name)));
        }
        match bank.copies.get_mut(route.copy) {
            Some(slot) => *slot = copy,
            None => bank.copies.push(copy),
        }
        self.describe(task, &bank, &mut record)?;
        let losses = ends(&fitted.losses);
        let maskable: usize =
            self.config.parameters().iter().filter(|s| s.role == Role::Maskable).map(|s| s.len()).sum();
        let occupied = occupied_share(&bank.copies[route.copy]);
        let own_loss = record.own_loss;
        bank.tasks.push(record);
        bank.check()?;
        let fingerprint = self.fingerprint(&bank, number, task)?;
        let report = TaskReport {
            number,
            name: task.name.clone(),
            warm_started: route.warm_start,
            route,
            density: if masked { set as f64 / maskable as f64 } else { 1.0 },
            newly_claimed: if masked { claimed as f64 / maskable as f64 } else { 1.0 },
            occupied,
            own_loss,
            losses,
            time_s: begin.elapsed().as_secs_f64(),
            fingerprint,
        };
        // What routing remembers of single rows is read outside any sampler.
        task.episodes.intact()?;
        // Last, so that an observer's error leaves the bank as it was.
        observer.event(Event::Learned(&report))?;
        self.bank = bank;
        Ok(report)
    }

    fn route(&mut self, task: &Task, number: usize) -> Result<Route, Error> {
        match self.options.strategy {
            Strategy::PackNet => Ok(Route::fixed(0, number == 0)),
            strategy if strategy.goes_on() => Ok(Route::fixed(0, number == 0)),
            Strategy::Single => Ok(Route::fixed(number, true)),
            _ => route::route(&mut self.evaluator, &self.config, &self.options, &self.bank, task, number),
        }
    }

    fn fresh_copy(&self, number: usize) -> CopyRecord {
        // Copy 0 and the dense models start from the same bits, so that strategies differ by their method only.
        let start = if self.options.strategy == Strategy::Single { 0 } else { number };
        let values = State::fresh(&self.config, self.options.seed, start as u32);
        let masked = self.options.strategy.is_masked();
        let weights = self.config.parameters().into_iter().filter(|s| !self.is_per_task(s.role)).map(|spec| Weight {
            values: values.get(&spec.name).unwrap_or_default(),
            occupied: (masked && spec.role == Role::Maskable).then(|| BitMask::zeros(spec.rows, spec.cols)),
            name: spec.name,
            rows: spec.rows,
            cols: spec.cols,
        });
        CopyRecord { weights: weights.collect() }
    }

    /// True for parameters that every task keeps for itself.
    fn is_per_task(&self, role: Role) -> bool {
        role == Role::Norm && self.options.strategy.is_masked() && self.options.profile == Profile::Corrected
    }

    /// Everything training starts from, and the updates its moments have seen.
    pub(crate) fn start(
        &self,
        task: &Task,
        company: &[&Task],
        number: usize,
        copy: &CopyRecord,
        route: &Route,
    ) -> Result<(State, u64), Error> {
        let options = &self.options;
        let mut state = State::fresh(&self.config, options.seed, route.copy as u32);
        for weight in &copy.weights {
            state.put(weight.name.as_str(), &weight.values);
        }
        let source = route.source.map(|u| &self.bank.tasks[u]).filter(|_| route.warm_start);
        for norm in source.map_or(&[][..], |s| &s.norms) {
            state.put(norm.name.as_str(), &norm.values);
        }
        let specs = self.config.parameters();
        for (at, (weight, occupied)) in copy.masked().enumerate() {
            let (name, n) = (&weight.name, occupied.len());
            let Some(tensor) = specs.iter().position(|s| s.name == *name) else { continue };
            let share = if source.is_some() { options.inherit } else { HALF };
            let Budget { k, k_occupied, .. } = options.budget_with(number, n, occupied.count(), share);
            state.put_bits(format!("{name}.free"), &occupied.not());
            state.put_bits(format!("{name}.occupied"), occupied);
            state.put_u32(format!("{name}.k"), &[k]);
            state.put_u32(format!("{name}.k_occupied"), &[k_occupied]);
            if options.strategy == Strategy::PackNet {
                state.put_bits(format!("{name}.mask"), &BitMask::ones(weight.rows, weight.cols));
                continue;
            }
            let warm: Option<(&BitMask, WarmStart)> = source.map(|s| (&s.masks[at], options.warm_start));
            let scores = scores::start(&specs[tensor], tensor, options.seed, number, warm);
            state.put(format!("{name}.score"), &scores);
        }
        // A batch of several tasks is scored over the actions of any of them.
        let kinds = std::iter::once(task).chain(company.iter().copied()).map(|task| task.action(&self.config));
        let (allowed, active) = kinds.map(|kind| action_words(&kind)).reduce(either).unwrap_or_default();
        let bytes = allowed.iter().flat_map(|w| w.to_le_bytes()).collect();
        state.0.insert(input::ALLOWED.into(), (autograd::engine::DType::Bits, bytes));
        state.put(input::ACTIVE, &active);
        let mut adam_steps = 0;
        if options.strategy.goes_on()
            && let Some(last) = self.bank.tasks.last()
        {
            let carried = last.extra.iter().filter(|named| consolidate::is_carried(&named.name));
            carried.for_each(|named| state.put(named.name.as_str(), &named.values));
            adam_steps = number as u64 * options.steps;
        }
        consolidate::begin(&self.config, options.strategy, &mut state);
        Ok((state, adam_steps))
    }

    fn take_weights(&self, copy: &mut CopyRecord, fitted: &Fitted) -> Result<(), Error> {
        for weight in &mut copy.weights {
            // A parameter the loss does not reach has no place in the plan and stays as it was.
            if let Some(values) = fitted.state.get(&weight.name) {
                weight.values = values;
            }
        }
        Ok(())
    }

    fn record(&self, task: &Task, route: &Route, fitted: &Fitted, copy: &CopyRecord) -> Result<TaskRecord, Error> {
        let masks = copy.masked().map(|(w, _)| fitted.masks.get(&w.name).cloned()).collect::<Option<Vec<_>>>();
        let masks = masks.ok_or_else(|| Error::Broken { what: "a masked tensor has no mask".into() })?;
        let own = self.config.parameters().into_iter().filter(|s| self.is_per_task(s.role));
        let norms = own.filter_map(|s| Some(Named::vector(s.name.as_str(), fitted.state.get(&s.name)?))).collect();
        // One model goes on from task to task with its moments; they are no part of what is deployed.
        let goes_on = self.options.strategy.goes_on();
        let names = fitted.state.0.keys().filter(|name| goes_on && consolidate::is_carried(name));
        let extra = names.filter_map(|n| Some(Named::vector(n.as_str(), fitted.state.get(n)?))).collect();
        let (obs_mean, obs_std) = route::slot_moments(task, &self.config);
        Ok(TaskRecord {
            name: task.name.clone(),
            copy: route.copy,
            source: route.source,
            masks,
            norms,
            obs_mean,
            obs_std,
            rtg_scale: f64::from(task.rtg_scale()),
            target_return: task.target_return(),
            action: task.action(&self.config),
            keep_ratio: self.options.ratio(self.bank.tasks.len()),
            latent_mean: Vec::new(),
            latent_var: Vec::new(),
            extra,
            own_loss: 0.0,
            claimed: 0,
            codebooks: Vec::new(),
            online: None,
            notes: BTreeMap::new(),
        })
    }

    /// Measures what routing needs to know of the task under its own subnetwork.
    fn describe(&mut self, task: &Task, bank: &Bank, record: &mut TaskRecord) -> Result<(), Error> {
        let state = State::of_task(bank, record);
        let sampler = task.held_out(&self.config, &self.options, self.evaluator.batch())?;
        let most = sampler.tile_batches().min(OWN_LOSS_BATCHES);
        let measured =
            self.evaluator.measure(&state, &sampler, most, |batch, index| sampler.fill_tile(batch, index))?;
        if !measured.loss.is_finite() {
            let (task, step, value) = (task.name.clone(), self.options.steps, measured.loss as f32);
            return Err(Error::NotFinite { task, step, what: "held-out loss", value });
        }
        record.own_loss = measured.loss;
        if self.options.strategy.is_masked() {
            let number = bank.tasks.len() as u32;
            let latents = route::memory(&mut self.evaluator, &self.config, &self.options, &state, task, number)?;
            let width = self.config.width as usize;
            let rows = &latents[..latents.len().min(route::MEMORY_FRAMES * width)];
            let latent = affinity::Gaussian::from_rows(rows, width)?;
            record.latent_mean = latent.mean().to_vec();
            record.latent_var = latent.var().to_vec();
            route::remember(&self.config, &self.options, task, rows, number, record)?;
        }
        Ok(())
    }

    /// Hash of a finished task's effective weights, norms and outputs on a fixed batch, all bits.
    ///
    /// # Errors
    /// [`Error::Engine`].
    pub fn fingerprint(&mut self, bank: &Bank, number: usize, task: &Task) -> Result<String, Error> {
        let record = &bank.tasks[number];
        let copy = &bank.copies[record.copy];
        let mut hash = Sha256::new();
        let mut masks = record.masks.iter();
        for weight in &copy.weights {
            let mask = weight.occupied.as_ref().and_then(|_| masks.next());
            match mask {
                Some(mask) => weight.values.iter().zip(mask.flags()).filter(|(_, set)| *set).for_each(|(value, _)| {
                    hash.update(&value.to_le_bytes());
                }),
                None => weight.values.iter().for_each(|value| hash.update(&value.to_le_bytes())),
            }
        }
        for value in record.norms.iter().flat_map(|n| &n.values) {
            hash.update(&value.to_le_bytes());
        }
        let sampler = task.held_out(&self.config, &self.options, self.evaluator.batch())?;
        let mut batch = sampler.batch();
        sampler.fill_tile(&mut batch, 0);
        sampler.intact()?;
        let outputs = self.evaluator.outputs(&State::of_task(bank, record), &batch)?;
        outputs.iter().for_each(|value| hash.update(&value.to_le_bytes()));
        Ok(hash.finish_hex())
    }
}

/// Bits and marks that are set in either.
fn either(a: (Vec<u32>, Vec<f32>), b: (Vec<u32>, Vec<f32>)) -> (Vec<u32>, Vec<f32>) {
    let words = a.0.iter().zip(&b.0).map(|(a, b)| a | b);
    let marks = a.1.iter().zip(&b.1).map(|(a, b)| a.max(*b));
    (words.collect(), marks.collect())
}

fn occupied_share(copy: &CopyRecord) -> f64 {
    let weights = || copy.masked().filter(|(w, _)| w.name.ends_with(".weight"));
    let all: usize = weights().map(|(_, o)| o.len()).sum();
    let set: usize = weights().map(|(_, o)| o.count()).sum();
    if all == 0 { 0.0 } else { set as f64 / all as f64 }
}

fn ends(losses: &[f32]) -> [f64; 2] {
    let n = (losses.len() / 10).max(1).min(losses.len());
    let mean = |part: &[f32]| part.iter().map(|l| f64::from(*l)).sum::<f64>() / part.len().max(1) as f64;
    [mean(&losses[..n]), mean(&losses[losses.len() - n..])]
}
