//! The rule that turns measures into a copy and a source.

use crate::error::{Error, Result, in_range};
use crate::score::{chance_ratio, latent_per_dim, scaled_error};
use engine::kernels::philox::{Rng, Stream};

/// Which measure ranks the finished tasks; lower scores are closer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Action error `A`.
    Action,
    /// Symmetric KL of latents, `L`.
    Latent,
    /// `alpha norm(A) + (1 - alpha) norm(L)`; with one candidate the ratio of [`Mode::HybridAbs`], whose limit is 1.
    ///
    /// With min-max normalisation the best score is at most `min(alpha, 1 - alpha)`: the best `A` has `norm(A) = 0`
    /// and the best `L` has `norm(L) = 0`. A higher threshold never spawns a copy once there are two candidates.
    Hybrid,
    /// `alpha A / tau_a + (1 - alpha) L / tau_l` for any number of candidates; the limit is 1.
    HybridAbs,
    /// `1 - C`, with the cosine affinity `C`.
    Cosine,
    /// KL divergence of replayed frames.
    Kl,
}

/// How [`Mode::Hybrid`] makes `A` and `L` comparable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Normalise {
    /// `(x - min) / (max - min)` over the candidates; all zeros if the range is below 1e-12.
    MinMax,
    /// As they are.
    Off,
}

/// The scale of `A` and `L` in scores and thresholds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Units {
    /// `A` in nats or squared action units, `L` in nats.
    Raw,
    /// `A'' = A / A_chance` and `L / E`: thresholds that hold across benchmarks.
    Scaled,
}

/// How the source is chosen once every candidate has a score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// The smallest score; the lowest task index on ties.
    Best,
    /// The first in training order whose score is at most the limit; none may match.
    FirstMatch,
    /// Any, with equal chance: Philox stream `Routing` of the seed, place `(candidates, 2)`.
    Random {
        /// Seed of the run.
        seed: u64,
    },
}

/// When a new copy is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spawn {
    /// When the picked score is above the limit, or nothing matched. Room in a copy plays no part.
    AboveLimit,
    /// When no copy has room for another mask.
    WhenFull,
}

/// Whether the scores of the new task start from the source's mask.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum WarmStart {
    /// Never.
    Never,
    /// Whenever there is a source.
    Always,
    /// If the source's `A''` is at most this: a source worse than chance can trap training.
    AtMost(f64),
}

/// Limits of a score, in the policy's [`Units`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// `tau_a`.
    pub action: f64,
    /// `tau_l`.
    pub latent: f64,
    /// `tau_h`, for [`Mode::Hybrid`] with two or more candidates.
    pub hybrid: f64,
    /// `tau_c`, on `1 - C`.
    pub cosine: f64,
    /// On the divergence of replayed frames.
    pub kl: f64,
}

impl Thresholds {
    /// The official code's defaults for Atari, for [`Units::Raw`].
    pub const ATARI: Thresholds = Thresholds { action: 12.0, latent: 50.0, hybrid: 0.5, cosine: 0.5, kl: 0.25 };
    /// The official code's defaults for Panda, for [`Units::Raw`].
    pub const PANDA: Thresholds = Thresholds { action: 0.05, latent: 25.0, hybrid: 0.5, cosine: 0.5, kl: 0.25 };
    /// For [`Units::Scaled`]: chance level, and Atari's 50 nats over 128 dimensions.
    pub const SCALED: Thresholds = Thresholds { action: 1.0, latent: 50.0 / 128.0, hybrid: 0.5, cosine: 0.5, kl: 0.25 };
}

/// A decision rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// What is ranked.
    pub mode: Mode,
    /// How the source is chosen.
    pub pick: Pick,
    /// When a copy is made.
    pub spawn: Spawn,
    /// Whether masks are inherited.
    pub warm_start: WarmStart,
    /// Applies `warm_start` also where the task does not join the source's copy. Off in all published runs.
    pub warm_start_across_copies: bool,
    /// Limits.
    pub thresholds: Thresholds,
    /// Scale of `A` and `L`.
    pub units: Units,
    /// Weight of `A` in the hybrid modes, in 0..=1.
    pub alpha: f64,
    /// Of [`Mode::Hybrid`].
    pub normalise: Normalise,
    /// Most copies; `None` without limit. At the limit the best source's copy serves.
    pub max_copies: Option<usize>,
}

impl Policy {
    /// The default profile: one copy, the source of smallest `A`, warm start if it is no worse than chance
    /// (`A'' <= 1`), a new copy only when no copy has room for a mask.
    pub fn corrected() -> Policy {
        Policy {
            mode: Mode::Action,
            pick: Pick::Best,
            spawn: Spawn::WhenFull,
            warm_start: WarmStart::AtMost(1.0),
            warm_start_across_copies: false,
            thresholds: Thresholds::SCALED,
            units: Units::Raw,
            alpha: 0.7,
            normalise: Normalise::MinMax,
            max_copies: None,
        }
    }

    /// The profile of the official code: thresholds spawn copies, and a task that joins a copy always starts warm,
    /// except by [`Mode::Kl`].
    pub fn official(mode: Mode, thresholds: Thresholds) -> Policy {
        Policy {
            mode,
            spawn: Spawn::AboveLimit,
            warm_start: if mode == Mode::Kl { WarmStart::Never } else { WarmStart::Always },
            thresholds,
            ..Policy::corrected()
        }
    }
}

/// A finished task, measured against the new one. Measures that no rule needs may be `None`.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Task index; training order.
    pub task: usize,
    /// Copy that holds it.
    pub copy: usize,
    /// The copy's free part is not smaller than a mask.
    pub fits: bool,
    /// `A`: loss on the new task's windows under this task's subnetwork.
    pub action: Option<f64>,
    /// `A_self`: this task's validation loss on its own data at consolidation.
    pub own_error: Option<f64>,
    /// `L`: symmetric KL of the latents, summed over dimensions.
    pub latent: Option<f64>,
    /// `C`: cosine affinity, higher is closer.
    pub cosine: Option<f64>,
    /// KL divergence of replayed frames.
    pub kl: Option<f64>,
}

impl Candidate {
    /// Task `task` in `copy`, which has room, without measures.
    pub fn new(task: usize, copy: usize) -> Candidate {
        Candidate { task, copy, fits: true, action: None, own_error: None, latent: None, cosine: None, kl: None }
    }
}

/// What is known of the new task.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Target {
    /// `A_chance`: [`crate::score::chance_discrete`] or [`crate::score::chance_continuous`].
    pub chance: Option<f64>,
    /// Width `E` of the latents.
    pub width: Option<usize>,
}

/// One line of the report: every measure raw and scaled, and the score that ranked it.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The measures as given.
    pub candidate: Candidate,
    /// `A' = (A - A_self) / (A_chance - A_self)`, where defined.
    pub scaled_error: Option<f64>,
    /// `A'' = A / A_chance`.
    pub chance_ratio: Option<f64>,
    /// `L / E`.
    pub latent_per_dim: Option<f64>,
    /// Score of the policy's mode; lower is closer.
    pub score: f64,
}

/// Where a new task goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Copy to train in.
    pub copy: usize,
    /// Closest finished task; `None` for the first task and where nothing matched.
    pub source: Option<usize>,
    /// `copy` is new.
    pub created: bool,
    /// Start from the source's mask.
    pub warm_start: bool,
    /// A new copy was wanted, but `max_copies` forbids it.
    pub limited: bool,
    /// Limit the scores were held against.
    pub limit: f64,
    /// All candidates in training order.
    pub scores: Vec<Row>,
}

/// Decides for a new task, given all finished ones. Without candidates the task is the first and gets copy 0.
///
/// Copies are numbered `0..=max(candidate.copy)`. Pure, and independent of the order of `candidates`.
///
/// # Errors
/// [`Error::Missing`] if the mode, the units or the warm start need a measure that is `None`; [`Error::Range`] if a
/// measure or threshold is not finite, a loss or level is negative, `alpha` is outside 0..=1, a threshold that divides
/// is not positive, or `max_copies` is 0.
///
/// Source: sections 6.6 to 6.9 of the method.
pub fn decide(policy: &Policy, target: &Target, candidates: &[Candidate]) -> Result<Decision> {
    check(policy, target)?;
    let mut ordered = candidates.to_vec();
    ordered.sort_by_key(|c| c.task);
    let (scores, limit) = score(policy, target, &ordered)?;
    let rows: Vec<Row> = ordered.into_iter().zip(&scores).map(|(c, score)| row(target, c, *score)).collect();
    let Some(best) = lowest(&scores) else {
        let (copy, created) = (0, true);
        return Ok(Decision { copy, source: None, created, warm_start: false, limited: false, limit, scores: rows });
    };
    let picked = match policy.pick {
        Pick::Best => Some(best),
        Pick::FirstMatch => scores.iter().position(|score| *score <= limit),
        Pick::Random { seed } => {
            let n = scores.len();
            Some(Rng::new(seed, Stream::Routing, [n as u32, 2]).below(n as u64) as usize)
        }
    };
    let home = match policy.spawn {
        Spawn::AboveLimit => picked.filter(|at| scores[*at] <= limit).map(|at| rows[at].candidate.copy),
        Spawn::WhenFull => with_room(&rows, picked.unwrap_or(best)),
    };
    let copies = rows.iter().map(|r| r.candidate.copy.saturating_add(1)).max().unwrap_or(0);
    let limited = home.is_none() && policy.max_copies.is_some_and(|most| copies >= most);
    // At the limit the best source takes over, also where nothing matched.
    let source = if limited { Some(best) } else { picked };
    let copy = match home {
        Some(copy) => copy,
        None if limited => rows[best].candidate.copy,
        None => copies,
    };
    let warm_start = match source.map(|at| &rows[at]) {
        Some(row) if row.candidate.copy == copy || policy.warm_start_across_copies => starts_warm(policy, row)?,
        _ => false,
    };
    Ok(Decision {
        copy,
        source: source.map(|at| rows[at].candidate.task),
        created: copy == copies,
        warm_start,
        limited,
        limit,
        scores: rows,
    })
}

fn check(policy: &Policy, target: &Target) -> Result<()> {
    let tau = &policy.thresholds;
    in_range("alpha", policy.alpha, "0..=1", |v| (0.0..=1.0).contains(&v))?;
    for (what, value) in [("tau_a", tau.action), ("tau_l", tau.latent)] {
        let divides = matches!(policy.mode, Mode::Hybrid | Mode::HybridAbs);
        in_range(what, value, "the positive finite numbers", |v| v > 0.0 || !divides)?;
    }
    for (what, value) in [("tau_h", tau.hybrid), ("tau_c", tau.cosine), ("tau_kl", tau.kl)] {
        in_range(what, value, "the finite numbers", |_| true)?;
    }
    if let WarmStart::AtMost(limit) = policy.warm_start {
        in_range("warm start limit", limit, "the finite numbers", |_| true)?;
    }
    if let Some(chance) = target.chance {
        in_range("A_chance", chance, "0..", |v| v >= 0.0)?;
    }
    if policy.max_copies == Some(0) {
        return Err(Error::Range { what: "max_copies".into(), value: 0.0, limit: "1.." });
    }
    Ok(())
}

/// The scores of the policy's mode, and the limit above which they are too far.
fn score(policy: &Policy, target: &Target, candidates: &[Candidate]) -> Result<(Vec<f64>, f64)> {
    let tau = &policy.thresholds;
    let at_least_0 = |v: f64| v >= 0.0;
    let every = |f: &dyn Fn(&Candidate) -> Result<f64>| candidates.iter().map(f).collect::<Result<Vec<f64>>>();
    let given = |value: Option<f64>, what, task| value.ok_or(Error::Missing { what, task: Some(task) });
    let action = |c: &Candidate| {
        let raw = in_range("action error", given(c.action, "action error", c.task)?, "0..", at_least_0)?;
        match (policy.units, target.chance) {
            (Units::Raw, _) => Ok(raw),
            (Units::Scaled, Some(chance)) => Ok(chance_ratio(raw, chance)),
            (Units::Scaled, None) => Err(Error::Missing { what: "chance level", task: None }),
        }
    };
    let latent = |c: &Candidate| {
        let raw = in_range("latent divergence", given(c.latent, "latent divergence", c.task)?, "0..", at_least_0)?;
        match (policy.units, target.width) {
            (Units::Raw, _) => Ok(raw),
            (Units::Scaled, Some(width)) => Ok(latent_per_dim(raw, width)),
            (Units::Scaled, None) => Err(Error::Missing { what: "latent width", task: None }),
        }
    };
    let mix = |a: f64, l: f64| {
        // Not `0 * infinity` where a chance level is 0.
        let part = |weight: f64, value: f64| if weight == 0.0 { 0.0 } else { weight * value };
        part(policy.alpha, a) + part(1.0 - policy.alpha, l)
    };
    let ratio = |c: &Candidate| Ok(mix(action(c)? / tau.action, latent(c)? / tau.latent));
    match policy.mode {
        Mode::Action => Ok((every(&action)?, tau.action)),
        Mode::Latent => Ok((every(&latent)?, tau.latent)),
        Mode::Hybrid if candidates.len() >= 2 => {
            let norm = |values: Vec<f64>| match policy.normalise {
                Normalise::MinMax => min_max(&values),
                Normalise::Off => values,
            };
            let (a, l) = (norm(every(&action)?), norm(every(&latent)?));
            Ok((a.iter().zip(&l).map(|(a, l)| mix(*a, *l)).collect(), tau.hybrid))
        }
        Mode::Hybrid | Mode::HybridAbs => Ok((every(&ratio)?, 1.0)),
        Mode::Cosine => {
            let far = |c: &Candidate| {
                let cosine = given(c.cosine, "cosine affinity", c.task)?;
                let bound = "-1..=1, up to rounding";
                Ok(1.0 - in_range("cosine affinity", cosine, bound, |v| v.abs() <= 1.0 + 1e-5)?)
            };
            Ok((every(&far)?, tau.cosine))
        }
        Mode::Kl => {
            let far = |c: &Candidate| {
                let kl = given(c.kl, "replay divergence", c.task)?;
                in_range("replay divergence", kl, "0..", at_least_0)
            };
            Ok((every(&far)?, tau.kl))
        }
    }
}

/// Values moved and scaled to 0..=1; zeros if they hardly differ. Infinities become 1.
fn min_max(values: &[f64]) -> Vec<f64> {
    let finite = || values.iter().copied().filter(|v| v.is_finite());
    let (low, high) = (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
    let range = high - low;
    let one = |v: f64| match v.is_finite() {
        true if range < 1e-12 => 0.0,
        true => (v - low) / range,
        false if finite().next().is_none() => 0.0,
        false => 1.0,
    };
    values.iter().map(|v| one(*v)).collect()
}

/// Position of the smallest score, the first on ties.
fn lowest(scores: &[f64]) -> Option<usize> {
    (0..scores.len()).min_by(|a, b| scores[*a].total_cmp(&scores[*b]))
}

/// The copy of candidate `at` if a mask fits, else the youngest copy with room.
fn with_room(rows: &[Row], at: usize) -> Option<usize> {
    let own = rows[at].candidate.copy;
    let open = |copy: usize| rows.iter().filter(|r| r.candidate.copy == copy).all(|r| r.candidate.fits);
    if open(own) {
        return Some(own);
    }
    rows.iter().map(|r| r.candidate.copy).filter(|copy| open(*copy)).max()
}

fn starts_warm(policy: &Policy, row: &Row) -> Result<bool> {
    match policy.warm_start {
        WarmStart::Never => Ok(false),
        WarmStart::Always => Ok(true),
        WarmStart::AtMost(limit) => match (row.chance_ratio, row.candidate.action) {
            (Some(ratio), _) => Ok(ratio <= limit),
            (None, None) => Err(Error::Missing { what: "action error", task: Some(row.candidate.task) }),
            (None, Some(_)) => Err(Error::Missing { what: "chance level", task: None }),
        },
    }
}

fn row(target: &Target, candidate: Candidate, score: f64) -> Row {
    let chance = candidate.action.zip(target.chance);
    Row {
        scaled_error: chance.zip(candidate.own_error).and_then(|((a, chance), own)| scaled_error(a, own, chance)),
        chance_ratio: chance.map(|(a, chance)| chance_ratio(a, chance)),
        latent_per_dim: candidate.latent.zip(target.width).map(|(l, width)| latent_per_dim(l, width)),
        candidate,
        score,
    }
}

#[cfg(test)]
mod tests;
