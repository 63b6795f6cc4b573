//! The training loop of one task, for masked and dense models alike.

use crate::error::Error;
use crate::observe::{Event, Flow, Observer};
use crate::options::{Options, Profile, Strategy};
use crate::prune::prune;
use crate::replay::Windows;
use crate::state::State;
use crate::task::Task;
use autograd::engine::kernels::BitMask;
use autograd::engine::{Device, Program};
use autograd::{AdamW, Mask, Param, Select, Trainable};
use dt::autograd;
use dt::config::{Config, Role, Spec};
use dt::train::{Schedule, feed, feed_step, output, plan_masks, plan_step_remembering};
use std::collections::BTreeMap;

/// Steps between two looks at losses on a device where reading waits: a step of a small model takes less than the wait.
const UNREAD: u32 = 16;

/// Where in a task training stands; everything that is needed to go on with the same bits.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Number of the task.
    pub task: usize,
    /// Steps done.
    pub step: u64,
    /// The mask no longer changes.
    pub fixed: bool,
    /// Every state buffer.
    pub state: State,
}

/// How the parameters of a task are masked and trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No masks, everything trained.
    Dense,
    /// Masks; `shared_frozen` if earlier tasks of the copy depend on its unmasked parameters.
    Masked {
        /// Unmasked parameters that several tasks share are not trained.
        shared_frozen: bool,
    },
    /// Masks over occupied weights; scores alone are trained, to the last step.
    Scores,
}

/// What one task is trained with.
pub struct Fit<'a> {
    /// Where.
    pub device: &'a Device,
    /// Model.
    pub config: &'a Config,
    /// Settings.
    pub options: &'a Options,
    /// Data.
    pub task: &'a Task,
    /// Other tasks whose data the strategy draws on.
    pub company: &'a [&'a Task],
    /// Number of the task in the sequence.
    pub number: usize,
    /// Masks.
    pub kind: Kind,
    /// Updates that the moments in the starting state have already seen.
    pub adam_steps: u64,
}

/// A trained task.
#[derive(Debug)]
pub struct Fitted {
    /// Every state buffer at the end.
    pub state: State,
    /// Final mask of every masked tensor.
    pub masks: BTreeMap<String, BitMask>,
    /// Loss of each step of this call.
    pub losses: Vec<f32>,
}

impl Fit<'_> {
    /// Trains from a starting state, or goes on from a checkpoint.
    ///
    /// # Errors
    /// [`Error::Stopped`] if the observer asked for it (after a checkpoint); [`Error::NotFinite`] if loss or gradient
    /// norm is NaN or infinite, found up to 16 steps later where reading waits; [`Error::Range`] for the checkpoint of another task; [`Error::Engine`].
    ///
    /// Determinism: bits depend on the starting state, the data, the settings and the number of the task only.
    pub fn run(&self, start: State, resume: Option<Checkpoint>, observer: &mut dyn Observer) -> Result<Fitted, Error> {
        let steps = self.options.steps;
        let fix_at = match self.kind {
            Kind::Dense => 0,
            Kind::Scores => steps,
            Kind::Masked { .. } => (steps as f64 * self.options.fix_mask_after).round() as u64,
        };
        let (mut state, mut step, mut fixed) = match resume {
            Some(c) if c.task != self.number || c.step > steps => {
                let expected = format!("task {}, at most {steps} steps", self.number);
                let found = format!("task {}, {} steps", c.task, c.step);
                return Err(Error::Range { what: "checkpoint", expected, found });
            }
            Some(c) => (c.state, c.step, c.fixed),
            None => (start, 0, matches!(self.kind, Kind::Dense)),
        };
        let mut losses = Vec::new();
        while step < steps || !fixed {
            if !fixed && step >= fix_at {
                state = self.form_masks(&state)?;
                fixed = true;
                continue;
            }
            let until = if fixed { steps } else { fix_at };
            (state, step) = self.phase(state, step, until, fixed, &mut losses, observer)?;
        }
        let masks = self.read_masks(&state)?;
        Ok(Fitted { state, masks, losses })
    }

    /// Runs steps `step .. until` with scores learning or with a fixed mask.
    fn phase(
        &self,
        state: State,
        mut step: u64,
        until: u64,
        fixed: bool,
        losses: &mut Vec<f32>,
        observer: &mut dyn Observer,
    ) -> Result<(State, u64), Error> {
        let adamw = self.adamw();
        let most = if self.device.reading_waits() { UNREAD } else { 1 };
        let choose = |spec: &Spec| self.choose(spec, fixed);
        let plan = plan_step_remembering(most, self.config, self.options.batch, &adamw, choose)?;
        let mut program = plan.bind(self.device)?;
        state.load(&mut program)?;
        drop(state);
        let windows = Windows::new(self.config, self.options, self.task, self.company, self.number)?;
        let mut batch = windows.batch();
        let Options { lr, warmup, floor, steps, seed, .. } = *self.options;
        let schedule = Schedule { rate: lr, warmup: warmup.min(steps / 4), steps, floor };
        let mut unread = Vec::new(); // rates of steps
        while step < until {
            windows.fill(&mut batch, step as u32);
            windows.intact()?;
            feed(&mut program, &batch)?;
            let (place, rate) = ([self.number as u32, step as u32], schedule.at(step));
            feed_step(&mut program, &adamw, seed, place, rate, self.adam_steps + step + 1)?;
            program.run()?;
            step += 1;
            unread.push(rate);
            if unread.len() < most as usize && step < until {
                continue;
            }
            let flow = self.tell(&program, step - unread.len() as u64, &unread, losses, observer)?;
            unread.clear();
            if flow != Flow::Continue && step < steps {
                let checkpoint = Checkpoint { task: self.number, step, fixed, state: kept(&program)? };
                observer.event(Event::Checkpoint(&checkpoint))?;
                if flow == Flow::Stop {
                    return Err(Error::Stopped { task: self.task.name.clone(), step });
                }
            }
        }
        Ok((kept(&program)?, step))
    }

    /// Reads loss and norm of the last steps, from `step` on, and tells of each; `rates` are theirs.
    fn tell(
        &self,
        program: &Program,
        step: u64,
        rates: &[f64],
        losses: &mut Vec<f32>,
        observer: &mut dyn Observer,
    ) -> Result<Flow, Error> {
        let (task, steps) = (self.number, self.options.steps);
        let new = last(program, [output::LOSSES, output::LOSS], rates.len())?;
        let norms = last(program, [output::GRAD_NORMS, output::GRAD_NORM], rates.len())?;
        let mut flow = Flow::Continue;
        for (((step, rate), loss), norm) in (step..).zip(rates).zip(new).zip(norms) {
            for (what, value) in [("loss", loss), ("gradient norm", norm)] {
                if !value.is_finite() {
                    return Err(Error::NotFinite { task: self.task.name.clone(), step, what, value });
                }
            }
            losses.push(loss);
            let event = Event::Step { task, step: step + 1, steps, loss, norm, rate: *rate };
            flow = flow.max(observer.event(event)?);
        }
        Ok(flow)
    }

    fn adamw(&self) -> AdamW {
        let strategy = self.options.strategy;
        AdamW {
            pull: matches!(strategy, Strategy::Ewc | Strategy::Si).then_some(self.options.baseline.strength),
            path_integral: strategy == Strategy::Si,
            weight_decay: self.options.weight_decay,
            max_norm: self.options.max_norm,
            score_lr_scale: self.options.score_lr_scale,
            ..AdamW::default()
        }
    }

    /// Masks of the current scores, or of the weights where those are pruned, written into the state.
    fn form_masks(&self, state: &State) -> Result<State, Error> {
        if self.options.strategy == Strategy::PackNet {
            return prune(self.device, self.config, self.options, self.number, state);
        }
        let mut program = plan_masks(self.config, |spec| self.choose(spec, false))?.bind(self.device)?;
        state.load(&mut program)?;
        program.run()?;
        let mut state = state.clone();
        state.extend(State(State::of(&program)?.0.into_iter().filter(|(name, _)| name.ends_with(".mask")).collect()));
        Ok(state)
    }

    fn read_masks(&self, state: &State) -> Result<BTreeMap<String, BitMask>, Error> {
        let mut masks = BTreeMap::new();
        if self.kind == Kind::Dense {
            return Ok(masks);
        }
        for spec in self.config.parameters().into_iter().filter(|s| s.role == Role::Maskable) {
            let words = state.words(&format!("{}.mask", spec.name)).unwrap_or_default();
            let mask = BitMask::from_words(spec.rows, spec.cols, words);
            let mask = mask.ok_or_else(|| Error::Broken { what: format!("mask of {} has pad bits", spec.name) })?;
            masks.insert(spec.name, mask);
        }
        Ok(masks)
    }

    fn choose(&self, spec: &Spec, fixed: bool) -> Param {
        choose(spec, self.kind, fixed, self.options)
    }
}

/// The parameter a training plan declares for a spec.
fn choose(spec: &Spec, kind: Kind, fixed: bool, options: &Options) -> Param {
    let official = options.profile == Profile::Official;
    let (mask, trainable) = match (kind, spec.role) {
        (Kind::Dense, _) => (Mask::Dense, Trainable::All),
        // The starting state has no free entry and asks for none, so no weight is ever written.
        (Kind::Scores, Role::Maskable) => {
            (if fixed { Mask::Fixed } else { Mask::Learned(Select::Split) }, Trainable::Free)
        }
        (Kind::Scores, _) => (Mask::Dense, Trainable::Frozen),
        (Kind::Masked { .. }, Role::Maskable) => {
            let fixed = fixed || options.strategy == Strategy::PackNet;
            (if fixed { Mask::Fixed } else { Mask::Learned(options.select()) }, Trainable::Free)
        }
        (Kind::Masked { shared_frozen }, role) => {
            let own = role == Role::Norm && !official;
            (Mask::Dense, if shared_frozen && !own { Trainable::Frozen } else { Trainable::All })
        }
    };
    let Spec { name, rows, cols, .. } = spec;
    Param { name: name.clone(), rows: *rows, cols: *cols, mask, trainable, ties: official, restrict_score: !official }
}

/// The parameter that an evaluation plan declares for a spec.
pub fn frozen(spec: &Spec, masked: bool) -> Param {
    let mask = if masked && spec.role == Role::Maskable { Mask::Fixed } else { Mask::Dense };
    let Spec { name, rows, cols, .. } = spec;
    let trainable = Trainable::Frozen;
    Param { name: name.clone(), rows: *rows, cols: *cols, mask, trainable, ties: false, restrict_score: true }
}

/// The last values of a measure that a program remembers under the first name, or has the newest of under the second.
fn last(program: &Program, [all, newest]: [&str; 2], count: usize) -> Result<Vec<f32>, Error> {
    if !program.has(all) {
        return Ok(vec![scalar(program, newest)?]);
    }
    let mut values: Vec<f32> = program.read_vec(all)?;
    Ok(values.split_off(values.len().saturating_sub(count)))
}

/// Every state but what is remembered of the last steps.
fn kept(program: &Program) -> Result<State, Error> {
    let mut state = State::of(program)?;
    state.0.retain(|name, _| name != output::LOSSES && name != output::GRAD_NORMS);
    Ok(state)
}

pub(crate) fn scalar(program: &Program, name: &str) -> Result<f32, Error> {
    let mut value = [0.0];
    program.read(name, &mut value)?;
    Ok(value[0])
}
