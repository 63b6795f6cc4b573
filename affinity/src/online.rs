//! Which finished task is being played? A Bayes filter over what an environment shows, without a task id.
//!
//! A [`Router`] holds the descriptors of all tasks that fit an environment's [`Signature`]; a [`Filter`] is one episode.
//! Per state and candidate the filter adds evidence to a score `Q`:
//!
//! ```text
//! vectors  first state   log N(x; mean, var + 1e-3), diagonal, of the task's first states
//!          transition    -1/2 (e' C^-1 e + ln det C), e = x' - x - W [x, a, 1], C = its covariance + 1e-6 I
//! frames   every state   largest cosine of the block averages with 16 prototypes
//! ```
//!
//! in units of the standard deviation pooled over the candidates (1 where it is below 1e-3). The task of the largest `Q`
//! is played, the lowest index on ties. No network is run, and nothing is allocated after set-up. Source: section 10.3 of
//! the method.

use crate::error::{Error, Result, in_range};
use crate::single::Single;
use describe::{pool_frame, pooled_len};
use model::{Model, vectors};
use signature::check;

pub mod describe;
mod linear;
mod model;
mod signature;
pub mod terms;
#[cfg(test)]
mod tests;

pub use describe::{Content, Descriptor, Dynamics, Executed, FrameContent, States, VectorContent};
pub use signature::{Act, Actions, Shape, Signature};

/// A state is unlike a task of frames if its cosine lies further below the task's own, in deviations.
const FAR_FRAME: f64 = -3.0;
/// Transitions are unlike a task of vectors if the mean of `e' C^-1 e / d` is above this.
const FAR_VECTOR: f64 = 10.0;

/// What counts as evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// The rule of the module.
    Filter,
    /// The newest state alone, by its Gaussian or its nearest prototype: no dynamics, no memory.
    Nearest,
}

/// How evidence becomes a choice. The defaults changed nothing in trials where they were varied.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// What counts.
    pub evidence: Evidence,
    /// `Q` is multiplied by this before evidence is added; 1 forgets nothing.
    pub keep: f64,
    /// The current task stays unless another's `Q` is larger by more than this; 0 is a plain argmax.
    pub margin: f64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { evidence: Evidence::Filter, keep: 1.0, margin: 0.0 }
    }
}

/// The candidates of an environment.
pub struct Router {
    signature: Signature,
    settings: Settings,
    tasks: Vec<usize>,
    model: Model,
}

impl Router {
    /// The candidates among described tasks, numbered by the caller, for an environment.
    ///
    /// # Errors
    /// [`Error::Unknown`] if no task has the signature; [`Error::Range`] for settings outside their range;
    /// [`Error::Size`], [`Error::Range`] for descriptors that contradict themselves.
    pub fn new<'a>(
        signature: Signature,
        described: impl Iterator<Item = (usize, &'a Descriptor)> + Clone,
        settings: Settings,
    ) -> Result<Router> {
        in_range("share of the score that is kept", settings.keep, "0..=1", |v| (0.0..=1.0).contains(&v))?;
        in_range("margin", settings.margin, "the numbers from 0", |v| v >= 0.0)?;
        let fitting = || described.clone().filter(|(_, d)| d.signature == signature);
        let tasks: Vec<usize> = fitting().map(|(task, _)| task).collect();
        if tasks.is_empty() {
            let mut known: Vec<String> = described.map(|(_, d)| d.signature.to_string()).collect();
            known.sort();
            known.dedup();
            return Err(Error::Unknown { signature: signature.to_string(), known: known.join(", ") });
        }
        fitting().try_for_each(|(_, d)| d.check())?;
        let model = match signature.observation {
            Shape::Vector(_) => vectors(
                &signature,
                fitting().filter_map(|(_, d)| match &d.content {
                    Content::Vector(content) => Some(content),
                    Content::Frame(_) => None,
                }),
            )?,
            Shape::Frame { height, width } => {
                let (mut prototypes, mut ends, mut calibration) = (Vec::new(), Vec::new(), Vec::new());
                for (_, descriptor) in fitting() {
                    let Content::Frame(content) = &descriptor.content else { continue };
                    prototypes.extend_from_slice(&content.prototypes);
                    ends.push(prototypes.len() / pooled_len(height, width));
                    calibration.push((f64::from(content.mean), f64::from(content.sd)));
                }
                Model::Frames { prototypes, ends, calibration }
            }
        };
        Ok(Router { signature, settings, tasks, model })
    }

    /// Numbers of the candidates, in the order of every list of a [`Filter`].
    pub fn tasks(&self) -> &[usize] {
        &self.tasks
    }

    /// An episode that has not begun. Allocates everything that following it needs.
    ///
    /// # Errors
    /// [`Error::Size`] for more prototypes than a kernel takes.
    pub fn start(&self) -> Result<Filter> {
        let t = self.tasks.len();
        let (cosine, prototypes, d) = match &self.model {
            Model::Vectors { scale, .. } => (None, 0, scale.len()),
            Model::Frames { prototypes, ends, .. } => {
                let m = ends.last().copied().unwrap_or(0);
                let d = prototypes.len() / m.max(1);
                (Some(Single::cosine(1, m, d)?), m, d)
            }
        };
        Ok(Filter {
            score: vec![0.0; t],
            gain: vec![0.0; t],
            fit: vec![0.0; t],
            misfit: vec![0.0; t],
            posterior: vec![0.0; t],
            last: vec![0.0; d],
            residual: vec![0.0; if cosine.is_none() { d } else { 0 }],
            pooled: vec![0.0; d],
            cosines: vec![0.0; prototypes],
            cosine,
            states: 0,
            measured: 0,
            current: 0,
        })
    }
}

/// One episode: scores of the candidates so far.
pub struct Filter {
    score: Vec<f64>,
    gain: Vec<f64>,
    fit: Vec<f64>,
    misfit: Vec<f64>,
    posterior: Vec<f64>,
    last: Vec<f64>,
    residual: Vec<f64>,
    pooled: Vec<f32>,
    cosines: Vec<f32>,
    cosine: Option<Single>,
    states: u64,
    measured: u64,
    current: usize,
}

/// What is played now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision {
    /// Place of the task among the candidates.
    pub at: usize,
    /// Number of the task.
    pub task: usize,
    /// It is another one than before (false for the first state).
    pub switched: bool,
    /// What was seen so far is unlike every candidate.
    pub unknown: bool,
}

impl Filter {
    /// Forgets the episode.
    pub fn clear(&mut self) {
        for list in [&mut self.score, &mut self.gain, &mut self.fit, &mut self.misfit] {
            list.fill(0.0);
        }
        (self.states, self.measured, self.current) = (0, 0, 0);
    }

    /// Takes the newest raw observation (pixel values for frames) and the action that led to it, which is absent at the
    /// first state; without it a later transition is no evidence.
    ///
    /// # Errors
    /// [`Error::Size`] if a length is not the signature's, [`Error::Range`] for an action that does not exist or a value
    /// that is not finite; the filter is then as it was.
    pub fn observe(&mut self, router: &Router, action: Option<Act<'_>>, obs: &[f32]) -> Result<Decision> {
        check(&router.signature, action, obs)?;
        let settings = &router.settings;
        let nearest = settings.evidence == Evidence::Nearest;
        self.gain.fill(0.0);
        match &router.model {
            Model::Vectors { scale, tasks, dynamics } => {
                for (at, task) in tasks.iter().enumerate() {
                    if nearest {
                        self.gain[at] = task.all.log_likelihood(obs);
                    } else if self.states == 0 {
                        self.gain[at] = task.first.log_likelihood(obs);
                    }
                }
                if let (true, true, Some(action)) = (*dynamics, self.states > 0, action) {
                    self.measured += 1;
                    for (at, task) in tasks.iter().enumerate() {
                        let Some(linear) = &task.dynamics else { continue };
                        let far = linear.distance(scale, &self.last, obs, action, &mut self.residual);
                        self.fit[at] = far / scale.len() as f64;
                        self.misfit[at] += self.fit[at];
                        if !nearest {
                            self.gain[at] -= 0.5 * (far + linear.log_det);
                        }
                    }
                }
                self.last.iter_mut().zip(obs).for_each(|(to, from)| *to = f64::from(*from));
            }
            Model::Frames { prototypes, ends, calibration } => {
                let Shape::Frame { height, width } = router.signature.observation else { unreachable!("checked") };
                pool_frame(height, width, obs, &mut self.pooled);
                if let Some(cosine) = &mut self.cosine {
                    cosine.scores(&self.pooled, prototypes, &mut self.cosines);
                }
                self.measured += 1;
                let mut first = 0;
                for (at, (end, (mean, sd))) in ends.iter().zip(calibration).enumerate() {
                    let best = self.cosines[first..*end].iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    first = *end;
                    self.gain[at] = f64::from(best);
                    self.fit[at] = (self.gain[at] - mean) / sd;
                    self.misfit[at] += self.fit[at];
                }
            }
        }
        self.states += 1;
        Ok(self.decide(router))
    }

    /// Adds evidence of the caller's, one number per candidate, to the state observed last, and decides again.
    ///
    /// # Errors
    /// [`Error::Length`] for another number of candidates; [`Error::Range`] if a number is not finite.
    pub fn add(&mut self, router: &Router, evidence: &[f64]) -> Result<Decision> {
        if evidence.len() != self.score.len() {
            return Err(Error::Length { what: "evidence", expected: self.score.len(), found: evidence.len() });
        }
        for value in evidence {
            in_range("evidence", *value, "the finite numbers", |_| true)?;
        }
        let current = self.current;
        self.score.iter_mut().zip(evidence).for_each(|(score, more)| *score += more);
        Ok(self.choose(router, current, self.states <= 1))
    }

    fn decide(&mut self, router: &Router) -> Decision {
        let keep = if router.settings.evidence == Evidence::Nearest { 0.0 } else { router.settings.keep };
        self.score.iter_mut().zip(&self.gain).for_each(|(score, gain)| *score = keep * *score + gain);
        self.choose(router, self.current, self.states == 1)
    }

    fn choose(&mut self, router: &Router, current: usize, first: bool) -> Decision {
        let mut best = 0;
        for (at, score) in self.score.iter().enumerate() {
            if *score > self.score[best] {
                best = at;
            }
        }
        let margin = router.settings.margin;
        if !first && margin > 0.0 && self.score[best] - self.score[current] <= margin {
            best = current;
        }
        self.current = best;
        Decision {
            at: best,
            task: router.tasks[best],
            switched: !first && best != current,
            unknown: self.unknown(router),
        }
    }

    /// True if the states so far are unlike every candidate: frames whose cosine lies on average more than three
    /// deviations below the task's own, or transitions whose squared error is on average ten times what it should be.
    pub fn unknown(&self, router: &Router) -> bool {
        let far = |sum: &f64| match router.model {
            Model::Vectors { .. } => sum / self.measured as f64 > FAR_VECTOR,
            Model::Frames { .. } => sum / (self.measured as f64) < FAR_FRAME,
        };
        self.measured > 0 && self.misfit.iter().all(far)
    }

    /// `Q` of every candidate, in nats (frames: summed cosines).
    pub fn scores(&self) -> &[f64] {
        &self.score
    }

    /// What the last state added to `Q`.
    pub fn gains(&self) -> &[f64] {
        &self.gain
    }

    /// How well the last state fits each candidate: deviations of the cosine from the task's own mean (frames), or
    /// `e' C^-1 e / d`, 1 for a perfect model (vectors).
    pub fn fits(&self) -> &[f64] {
        &self.fit
    }

    /// Mean of [`Filter::fits`] over the episode; 0 before the first measure.
    pub fn misfit(&self, at: usize) -> f64 {
        self.misfit[at] / self.measured.max(1) as f64
    }

    /// `exp Q`, normalised over the candidates: their probabilities for vectors; for frames a relative weight only.
    pub fn posterior(&mut self) -> &[f64] {
        let most = self.score.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        self.posterior.iter_mut().zip(&self.score).for_each(|(p, score)| *p = (score - most).exp());
        let sum: f64 = self.posterior.iter().sum();
        self.posterior.iter_mut().for_each(|p| *p /= sum);
        &self.posterior
    }
}
