//! A mask for an unseen task from a few demonstrations. Source: method.md 10.6.
//!
//! Every finished task `u` predicts the demonstrations with the loss `A(u)`; `A'(u)` is that loss on the scale of
//! [`affinity::score::scaled_error`]. Masks are made of weights that the copy of the closest task has already claimed, so
//! nothing is claimed and no weight changes; only [`Method::TuneFree`] learns and claims free ones. The task enters the
//! bank as any other, with norms, observation statistics and scale of returns of the closest task.

use crate::bank::{Bank, CopyRecord};
use crate::claim::count;
use crate::error::Error;
use crate::fit::{Fit, Fitted, Kind};
use crate::learner::{Learner, Settled, TaskReport};
use crate::observe::{Event, Observer};
use crate::options::{Options, WarmStart};
use crate::recognise;
use crate::route::{self, Route};
use crate::scores;
use crate::state::State;
use crate::task::Task;
use affinity::score::scaled_error;
use autograd::engine::kernels::BitMask;
use dt::autograd;
use dt::config::{Action, Config, Observation};
use dt::data::episodes::{Actions, Split};
use dt::env::ObsShape;
use std::collections::BTreeMap;
use std::time::Instant;

/// `T` of the softmax over sources.
pub const TEMPERATURE: f64 = 0.1;
/// What a set bit of the composed mask adds to a starting score; the noise has a deviation of 0.02.
const START: f32 = 2.0;

/// How the mask is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The mask of `argmin_u A(u)`.
    Retrieve,
    /// Per tensor the top `k` of `S = Σ_u w_u M_u` with `w = softmax(-A' / T)` over the tasks of the closest one's copy.
    Compose,
    /// Scores from `2 compose + 0.02 N(0, 1)`, trained over occupied weights; everything else is frozen.
    Tune,
    /// As [`Method::Tune`], with free weights and norms: warm-started training on the demonstrations.
    TuneFree,
}

/// Every method, in the order of help texts.
pub const METHODS: [Method; 4] = [Method::Retrieve, Method::Compose, Method::Tune, Method::TuneFree];

impl Method {
    /// Name on the command line and in banks.
    pub fn name(self) -> &'static str {
        match self {
            Method::Retrieve => "retrieve",
            Method::Compose => "compose",
            Method::Tune => "tune",
            Method::TuneFree => "tune-free",
        }
    }

    /// The method of a name.
    ///
    /// # Errors
    /// [`Error::Option`] lists the names.
    pub fn parse(name: &str) -> Result<Method, Error> {
        METHODS.into_iter().find(|m| m.name() == name).ok_or_else(|| Error::Option {
            name: "method",
            found: name.to_owned(),
            allowed: METHODS.map(Method::name).join(", "),
        })
    }

    /// True if it takes training steps.
    pub fn trains(self) -> bool {
        matches!(self, Method::Tune | Method::TuneFree)
    }
}

/// Which episodes are the demonstrations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pick {
    /// The first training episodes.
    #[default]
    First,
    /// Those of largest return, the earlier one on ties.
    Best,
}

/// A finished task as a source of the mask.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Source {
    /// Number of the task.
    pub task: usize,
    /// `A(u)`: its loss on the demonstrations.
    pub error: f64,
    /// `A'(u)`; `None` where the source is no better than chance on its own data.
    pub scaled: Option<f64>,
    /// `w_u`; 0 for tasks of other copies.
    pub weight: f64,
}

/// What adapting did.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapted {
    /// The task in the bank. Its own loss is measured on the demonstrations.
    pub report: TaskReport,
    /// Every finished task.
    pub sources: Vec<Source>,
}

/// Reduces a task to `n` of its training episodes; nothing else of its data is left to be looked at.
///
/// # Errors
/// [`Error::Range`] if there are not so many, or `n` is 0; [`Error::Data`] if rows in a file cannot be read.
pub fn demonstrations(task: &mut Task, n: usize, pick: Pick) -> Result<(), Error> {
    let mut list = task.split.train.clone();
    if n == 0 || n > list.len() {
        let expected = format!("1 to {}, the training episodes of \"{}\"", list.len(), task.name);
        return Err(Error::Range { what: "demonstrations", expected, found: n.to_string() });
    }
    if pick == Pick::Best {
        let returns = task.episodes.returns();
        list.sort_by(|a, b| returns[*b].total_cmp(&returns[*a]).then(a.cmp(b)));
    }
    task.episodes = task.episodes.subset(&list[..n])?;
    task.split = Split { train: (0..n).collect(), held_out: (0..n).collect() };
    Ok(())
}

/// `softmax(-error / temperature)`; 0 for errors that are not defined, all equal if none is.
pub fn mixture(errors: &[Option<f64>], temperature: f64) -> Vec<f64> {
    let least = errors.iter().flatten().copied().fold(f64::INFINITY, f64::min);
    if least == f64::INFINITY {
        return vec![1.0 / errors.len().max(1) as f64; errors.len()];
    }
    let each = |error: &Option<f64>| error.map_or(0.0, |e| ((least - e) / temperature).exp());
    let weights: Vec<f64> = errors.iter().map(each).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|w| w / sum).collect()
}

/// The `k` candidates of largest share `Σ_u w_u M_u`, or all if there are fewer; ties by larger `|value|`, then by lower
/// index. Shapes: masks and candidates `[rows, cols]`, `values[rows * cols]`.
pub fn compose(masks: &[(f64, &BitMask)], values: &[f32], candidates: &BitMask, k: usize) -> BitMask {
    let mut share = vec![0.0f64; values.len()];
    for (weight, mask) in masks {
        share.iter_mut().zip(mask.flags()).filter(|(_, set)| *set).for_each(|(sum, _)| *sum += weight);
    }
    let mut order: Vec<usize> = candidates.flags().enumerate().filter(|(_, set)| *set).map(|(at, _)| at).collect();
    let by_value = |a: &usize, b: &usize| values[*b].abs().total_cmp(&values[*a].abs());
    order.sort_by(|a, b| share[*b].total_cmp(&share[*a]).then(by_value(a, b)).then(a.cmp(b)));
    let mut mask = BitMask::zeros(candidates.rows(), candidates.cols());
    let cols = candidates.cols() as usize;
    order.iter().take(k).for_each(|at| mask.set(at / cols, at % cols));
    mask
}

impl Learner {
    /// Finds a mask for a task whose episodes are demonstrations, and adds the task to the bank; on any error the bank is
    /// as before. The task takes over the scales of its closest source ([`Task::scale_as`]). `steps` counts for methods
    /// that train; 0 leaves the composed mask. Deterministic in the bank, the demonstrations and the seed.
    ///
    /// # Errors
    /// [`Error::Known`]; [`Error::Option`] for a strategy without masks; [`Error::Range`] if the bank is empty or the task
    /// does not fit the model; [`Error::NoRoom`] for [`Method::TuneFree`] in a full copy; else as [`Learner::learn`].
    pub fn adapt(
        &mut self,
        task: &mut Task,
        method: Method,
        steps: u64,
        observer: &mut dyn Observer,
    ) -> Result<Adapted, Error> {
        let begin = Instant::now();
        let number = self.bank.tasks.len();
        if self.bank.tasks.iter().any(|t| t.name == task.name) {
            return Err(Error::Known { task: task.name.clone() });
        }
        if !self.options.strategy.is_masked() {
            let (found, allowed) = (self.options.strategy.name().to_owned(), "one with masks".to_owned());
            return Err(Error::Option { name: "strategy of the bank", found, allowed });
        }
        fits_model(task, &self.config)?;
        observer.event(Event::Task { task: number, name: &task.name })?;
        let sources = self.sources(task)?;
        let closest = sources.iter().min_by(|a, b| a.error.total_cmp(&b.error));
        let Some(closest) = closest.map(|s| s.task) else {
            let expected = "at least 1 to adapt from".to_owned();
            return Err(Error::Range { what: "tasks of the bank", expected, found: "0".into() });
        };
        let source = &self.bank.tasks[closest];
        task.scale_as(source);
        let route = Route { warm_start: true, source: Some(closest), ..Route::fixed(source.copy, false) };
        let copy = self.bank.copies[source.copy].clone();
        let options = Options { steps, ..self.options.clone() };
        let sizes: Vec<(usize, usize)> = copy.masked().map(|(_, o)| (o.len(), o.count())).collect();
        if method == Method::TuneFree && !options.fits(number, sizes.iter().copied()) {
            let (all, set) = sizes.iter().fold((0, 0), |(a, s), (n, o)| (a + n, s + o));
            let free = 1.0 - set as f64 / all.max(1) as f64;
            return Err(Error::NoRoom { task: task.name.clone(), keep_ratio: options.keep_ratio, free });
        }
        let online = recognise::online(task, options.seed, number as u32)?;
        let (mut state, adam_steps) = self.start(task, &[], number, &copy, &route)?;
        let masks = match method {
            Method::Retrieve => copy.masked().map(|(w, _)| w.name.clone()).zip(source.masks.iter().cloned()).collect(),
            _ => composed(&self.bank, source.copy, &copy, &sources, options.ratio(number)),
        };
        let fitted = if method.trains() {
            self.start_scores(&copy, &masks, method, &mut state);
            let kind = if method == Method::Tune { Kind::Scores } else { Kind::Masked { shared_frozen: true } };
            let (device, config, task) = (&self.device, &self.config, &*task);
            let fit = Fit { device, config, options: &options, task, company: &[], number, kind, adam_steps };
            fit.run(state, None, observer)?
        } else {
            Fitted { state, masks, losses: Vec::new() }
        };
        let mut notes = BTreeMap::from([
            ("adapted.method".to_owned(), method.name().to_owned()),
            ("adapted.demonstrations".to_owned(), task.episodes.count().to_string()),
        ]);
        if method.trains() {
            notes.insert("adapted.steps".into(), steps.to_string());
        }
        let route = Route { warm_start: method.trains(), ..route };
        let settled = Settled { task, route, copy, fitted, codebooks: Vec::new(), online, notes, begin };
        let report = self.settle(settled, observer)?;
        Ok(Adapted { report, sources })
    }

    /// Every finished task with its loss on the demonstrations and its weight in the composed mask.
    fn sources(&mut self, task: &Task) -> Result<Vec<Source>, Error> {
        let number = self.bank.tasks.len();
        let chance = route::chance(task, &self.config)?;
        let mut sources = Vec::with_capacity(number);
        for (u, record) in self.bank.tasks.iter().enumerate() {
            let (config, options) = (&self.config, &self.options);
            let measured = route::measure(&mut self.evaluator, config, options, &self.bank, record, task, number)?;
            let Some(error) = measured.action.filter(|error| error.is_finite()) else {
                let (task, value) = (record.name.clone(), f32::NAN);
                return Err(Error::NotFinite { task, step: 0, what: "loss on the demonstrations", value });
            };
            let scaled = scaled_error(error, record.own_loss, chance);
            sources.push(Source { task: u, error, scaled, weight: 0.0 });
        }
        let Some(closest) = sources.iter().min_by(|a, b| a.error.total_cmp(&b.error)) else { return Ok(sources) };
        let copy = self.bank.tasks[closest.task].copy;
        let of_copy = |s: &&mut Source| self.bank.tasks[s.task].copy == copy;
        let errors: Vec<Option<f64>> =
            sources.iter().filter(|s| self.bank.tasks[s.task].copy == copy).map(|s| s.scaled).collect();
        let weights = mixture(&errors, TEMPERATURE);
        sources.iter_mut().filter(of_copy).zip(weights).for_each(|(source, weight)| source.weight = weight);
        Ok(sources)
    }

    /// Scores that choose the composed mask; without free weights no weight can be chosen or written beside occupied ones.
    fn start_scores(&self, copy: &CopyRecord, masks: &BTreeMap<String, BitMask>, method: Method, state: &mut State) {
        let (number, specs) = (self.bank.tasks.len(), self.config.parameters());
        for (weight, occupied) in copy.masked() {
            let name = &weight.name;
            let Some(tensor) = specs.iter().position(|s| s.name == *name) else { continue };
            let warm = masks.get(name).map(|mask| (mask, WarmStart::Replace(START)));
            let scores = scores::start(&specs[tensor], tensor, self.options.seed, number, warm);
            state.put(format!("{name}.score"), &scores);
            if method == Method::Tune {
                let k = count(self.options.ratio(number), occupied.len()).min(occupied.count());
                state.put_bits(format!("{name}.free"), &BitMask::zeros(weight.rows, weight.cols));
                state.put_bits(format!("{name}.occupied"), occupied);
                state.put_u32(format!("{name}.k"), &[0]);
                state.put_u32(format!("{name}.k_occupied"), &[k as u32]);
            }
        }
    }
}

/// The composed mask of every masked tensor of a copy.
fn composed(
    bank: &Bank,
    number: usize,
    copy: &CopyRecord,
    sources: &[Source],
    ratio: f64,
) -> BTreeMap<String, BitMask> {
    let of_copy: Vec<&Source> = sources.iter().filter(|s| bank.tasks[s.task].copy == number).collect();
    let each = copy.masked().enumerate().map(|(at, (weight, occupied))| {
        let masks: Vec<(f64, &BitMask)> = of_copy.iter().map(|s| (s.weight, &bank.tasks[s.task].masks[at])).collect();
        let k = count(ratio, occupied.len());
        (weight.name.clone(), compose(&masks, &weight.values, occupied, k))
    });
    each.collect()
}

/// Refuses a task whose observations or actions the model does not take.
fn fits_model(task: &Task, config: &Config) -> Result<(), Error> {
    let fault = |what, expected: String, found: String| Err(Error::Range { what, expected, found });
    match (config.observation, task.episodes.observations().shape()) {
        (Observation::Vector(n), ObsShape::Vector { dim })
            if n as usize == task.layout.as_ref().map_or(dim, |layout| layout.width) => {}
        (Observation::Image { height, width, .. }, ObsShape::Frame { height: h, width: w })
            if (height as usize, width as usize) == (h, w) => {}
        (expected, found) => {
            return fault(
                "observations of the task",
                format!("{expected:?} of the bank's model"),
                format!("{found:?}"),
            );
        }
    }
    match (config.action, task.episodes.actions()) {
        (Action::Discrete(n), Actions::Discrete { count, .. }) if *count <= n => Ok(()),
        (Action::Continuous(d), Actions::Continuous { dim, .. }) if *dim as u32 <= d => Ok(()),
        (expected, Actions::Discrete { count, .. }) => fault(
            "actions of the task",
            format!("at most {expected:?} of the bank's model"),
            format!("Discrete({count})"),
        ),
        (expected, Actions::Continuous { dim, .. }) => fault(
            "actions of the task",
            format!("at most {expected:?} of the bank's model"),
            format!("Continuous({dim})"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mask(flags: [u8; 6]) -> BitMask {
        BitMask::from_flags(2, 3, flags.map(|f| f == 1))
    }

    #[test]
    fn weights_are_a_softmax_of_scaled_errors() {
        let w = mixture(&[Some(0.1), Some(0.2), None], 0.1);
        let e = (-1.0f64).exp();
        assert!((w[0] - 1.0 / (1.0 + e)).abs() < 1e-15 && (w[1] - e / (1.0 + e)).abs() < 1e-15 && w[2] == 0.0, "{w:?}");
        assert_eq!(mixture(&[Some(1e300), Some(-1e300)], 0.1), [0.0, 1.0]);
        assert_eq!(mixture(&[None, None], 0.1), [0.5, 0.5]);
        assert!(mixture(&[], 0.1).is_empty());
    }

    #[test]
    fn the_composed_mask_by_hand() {
        let (a, b) = (mask([1, 1, 0, 0, 1, 0]), mask([0, 1, 1, 0, 0, 1]));
        let occupied = a.or(&b);
        let values = [0.5, 0.1, -3.0, 9.0, 0.5, 3.0];
        let top = |masks: &[(f64, &BitMask)], k| compose(masks, &values, &occupied, k);
        // Shares 0.7, 1.0, 0.3, -, 0.7, 0.3: a tie of value goes to the lower index, one of share to the larger value.
        let masks = [(0.7, &a), (0.3, &b)];
        assert_eq!(top(&masks, 1), mask([0, 1, 0, 0, 0, 0]));
        assert_eq!(top(&masks, 2), mask([1, 1, 0, 0, 0, 0]));
        assert_eq!(top(&masks, 3), mask([1, 1, 0, 0, 1, 0]));
        assert_eq!(top(&masks, 4), mask([1, 1, 1, 0, 1, 0]));
        // Entry 3 is free: it is never taken, however large.
        assert_eq!(top(&masks, 6), occupied);
        // Sources of no weight leave ties to the values.
        assert_eq!(top(&[(0.0, &a), (0.0, &b)], 2), mask([0, 0, 1, 0, 0, 1]));
        assert_eq!(top(&masks, 0).count(), 0);
    }

    proptest! {
        #[test]
        fn one_source_composes_to_its_own_mask(bits in prop::collection::vec(any::<bool>(), 12), other in prop::collection::vec(any::<bool>(), 12)) {
            let own = BitMask::from_flags(3, 4, bits);
            let occupied = own.or(&BitMask::from_flags(3, 4, other));
            let values: Vec<f32> = (0..12).map(|v| (v * 7 % 5) as f32 - 2.0).collect();
            let made = compose(&[(1.0, &own), (0.0, &occupied)], &values, &occupied, own.count());
            prop_assert_eq!(made, own);
        }
    }

    #[test]
    fn methods_have_names() {
        for method in METHODS {
            assert_eq!(Method::parse(method.name()).unwrap(), method);
        }
        assert!(Method::parse("tuna").unwrap_err().to_string().contains("tune-free"));
    }
}
