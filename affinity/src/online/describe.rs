//! What a finished task keeps so that it can be recognised: fitted once from its own training data.

use super::linear::Cholesky;
use super::{Shape, Signature};
use crate::cluster::{Origin, Prototypes};
use crate::error::{Error, Result, in_range};
use std::ops::Range;

/// Most transitions that the dynamics are fitted to.
const TRANSITIONS: usize = 8000;
/// Most frames that prototypes are fitted to, and most that the calibration is measured on.
const FRAMES: usize = 4096;
/// Prototypes of a task of frames.
const PROTOTYPES: usize = 16;
/// Ridge of the dynamics, times the number of transitions, on standardised observations.
const RIDGE: f64 = 1e-6;
/// Deviations below this are constants and count as 1.
pub(super) const LEAST_SCALE: f64 = 1e-3;
/// Widest observation whose dynamics are kept: the residual covariance grows with its square.
pub const WIDEST_DYNAMICS: usize = 256;
/// A frame is averaged to at most this many blocks a side.
const BLOCKS: usize = 12;

/// How a task looks from outside. Sizes belong to the signature; [`Descriptor::check`] compares them.
#[derive(Clone, Debug, PartialEq)]
pub struct Descriptor {
    /// What its environment shows before it is played.
    pub signature: Signature,
    /// What its states are like.
    pub content: Content,
}

/// The content of a [`Descriptor`].
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Of observations that are vectors.
    Vector(VectorContent),
    /// Of observations that are frames.
    Frame(FrameContent),
}

/// Moments and dynamics of `d` numbers, in the units of the environment.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorContent {
    /// Mean over all states, `[d]`.
    pub mean: Vec<f32>,
    /// Population variance over all states, `[d]`.
    pub var: Vec<f32>,
    /// Mean over the first states of episodes, `[d]`.
    pub first_mean: Vec<f32>,
    /// Population variance over the first states of episodes, `[d]`.
    pub first_var: Vec<f32>,
    /// How states follow each other; `None` if no episode has two states or observations are wider than
    /// [`WIDEST_DYNAMICS`].
    pub dynamics: Option<Dynamics>,
}

/// `x' - x = W [x, u, 1] + e` with `x` standardised by the task's own moments (deviations below 1e-3 count as 1) and `u`
/// the action, one-hot if it is one of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Dynamics {
    /// `W[d, d + a + 1]`.
    pub weight: Vec<f32>,
    /// Covariance of `e`, `[d, d]`.
    pub covariance: Vec<f32>,
}

/// Directions of block averages of a frame, and how close own states come to them.
#[derive(Clone, Debug, PartialEq)]
pub struct FrameContent {
    /// Unit vectors, `[m, blocks]`.
    pub prototypes: Vec<f32>,
    /// Mean over own held-out states of the largest cosine with a prototype.
    pub mean: f32,
    /// Standard deviation of the same, positive.
    pub sd: f32,
}

/// Actions of all rows.
#[derive(Clone, Copy, Debug)]
pub enum Executed<'a> {
    /// `ids[n]`.
    Ids(&'a [u32]),
    /// `values[n, a]`.
    Values(&'a [f32]),
}

/// Observations of all rows, wherever they lie: [`Descriptor`] asks for one row at a time.
#[derive(Clone, Copy)]
pub struct States<'a> {
    /// How many there are.
    pub rows: usize,
    /// Writes a row: the numbers of a vector, or the pixels of a frame from 0 to 255.
    pub read: &'a dyn Fn(usize, &mut [f32]),
}

impl Descriptor {
    /// Describes a task by its training episodes, ranges of rows of some vectors.
    ///
    /// Deterministic: of more than 8 000 transitions, equally spaced ones are taken; sums in order of rows, in f64.
    ///
    /// # Errors
    /// [`Error::Size`] if rows, ranges and signature disagree, [`Error::Empty`] without states, [`Error::Range`] for
    /// values that are not finite.
    ///
    /// Source: section 10.3 of the method.
    pub fn of_vectors(
        signature: Signature,
        obs: States<'_>,
        executed: Executed<'_>,
        episodes: &[Range<usize>],
    ) -> Result<Descriptor> {
        let Shape::Vector(d) = signature.observation else {
            return Err(disagree("descriptor", format!("vectors in an environment of {signature}")));
        };
        rows_within("observations", obs.rows, d, episodes)?;
        let held = match executed {
            Executed::Ids(ids) => ids.len(),
            Executed::Values(values) => values.len() / signature.actions.len().max(1),
        };
        if held != obs.rows {
            return Err(disagree("actions", format!("{held} for {} states", obs.rows)));
        }
        let (mean, var) = moments(d, obs, episodes.iter().flat_map(Range::clone))?;
        let (first_mean, first_var) = moments(d, obs, episodes.iter().filter(|e| !e.is_empty()).map(|e| e.start))?;
        let mut content = VectorContent { mean, var, first_mean, first_var, dynamics: None };
        if d <= WIDEST_DYNAMICS {
            content.dynamics = dynamics(&signature, &content, obs, executed, episodes);
        }
        let descriptor = Descriptor { signature, content: Content::Vector(content) };
        descriptor.check()?;
        Ok(descriptor)
    }

    /// Describes a task by frames: prototypes of its training episodes, calibrated on the held-out ones (on the training
    /// episodes if there are none).
    ///
    /// Deterministic in `(seed, task)`. At most 4 096 equally spaced frames of each list are read.
    ///
    /// # Errors
    /// As [`Descriptor::of_vectors`].
    pub fn of_frames(
        signature: Signature,
        obs: States<'_>,
        train: &[Range<usize>],
        held_out: &[Range<usize>],
        seed: u64,
        task: u32,
    ) -> Result<Descriptor> {
        let Shape::Frame { height, width } = signature.observation else {
            return Err(disagree("descriptor", format!("frames in an environment of {signature}")));
        };
        for list in [train, held_out] {
            rows_within("frames", obs.rows, height * width, list)?;
        }
        let pooled = |list: &[Range<usize>]| {
            let mut rows = Vec::new();
            let mut pixels = vec![0.0; height * width];
            for at in spaced(list, FRAMES) {
                (obs.read)(at, &mut pixels);
                let start = rows.len();
                rows.resize(start + pooled_len(height, width), 0.0);
                pool_frame(height, width, &pixels, &mut rows[start..]);
            }
            rows
        };
        let (rows, d) = (pooled(train), pooled_len(height, width));
        let fit = Prototypes::fit(&rows, d, PROTOTYPES, Origin::Zero, seed, task)?;
        let own = pooled(held_out);
        let own = if own.is_empty() { rows } else { own };
        let cosines = own.chunks_exact(d).map(|row| fit.affinity(row)).collect::<Result<Vec<f64>>>()?;
        let n = cosines.len() as f64;
        let mean = cosines.iter().sum::<f64>() / n;
        let sd = (cosines.iter().map(|c| (c - mean).powi(2)).sum::<f64>() / n).sqrt().max(1e-6);
        let content = FrameContent { prototypes: fit.center().to_vec(), mean: mean as f32, sd: sd as f32 };
        Ok(Descriptor { signature, content: Content::Frame(content) })
    }

    /// Checks what was stored: sizes against the signature, finite values, positive variances.
    ///
    /// # Errors
    /// [`Error::Size`], [`Error::Range`].
    pub fn check(&self) -> Result<()> {
        let bad = |what, expected: usize, found: usize| match expected == found {
            true => Ok(()),
            false => Err(disagree(what, format!("{found} values, expected {expected}"))),
        };
        let list = match (&self.content, self.signature.observation) {
            (Content::Vector(content), Shape::Vector(d)) => {
                let VectorContent { mean, var, first_mean, first_var, dynamics } = content;
                for values in [mean, var, first_mean, first_var] {
                    bad("moments of a descriptor", d, values.len())?;
                }
                for value in var.iter().chain(first_var) {
                    in_range("variance of a descriptor", f64::from(*value), "the numbers from 0", |v| v >= 0.0)?;
                }
                let mut list = vec![mean, first_mean];
                if let Some(Dynamics { weight, covariance }) = dynamics {
                    // Checked sizes: a signature may come from a damaged file.
                    let columns = d.saturating_add(self.signature.actions.len()).saturating_add(1);
                    bad("weights of the dynamics", d.saturating_mul(columns), weight.len())?;
                    bad("covariance of the dynamics", d.saturating_mul(d), covariance.len())?;
                    list.extend([weight, covariance]);
                }
                list
            }
            (Content::Frame(content), Shape::Frame { height, width }) => {
                let d = pooled_len(height, width);
                if content.prototypes.is_empty() || !content.prototypes.len().is_multiple_of(d) {
                    return bad("prototypes of a descriptor", d, content.prototypes.len());
                }
                in_range("calibration mean", f64::from(content.mean), "the finite numbers", |_| true)?;
                in_range("calibration deviation", f64::from(content.sd), "the positive numbers", |sd| sd > 0.0)?;
                vec![&content.prototypes]
            }
            _ => return Err(disagree("descriptor", format!("content of another kind than {}", self.signature))),
        };
        for value in list.into_iter().flatten() {
            in_range("value of a descriptor", f64::from(*value), "the finite numbers", |_| true)?;
        }
        Ok(())
    }

    /// Numbers stored, 4 bytes each.
    pub fn values(&self) -> usize {
        match &self.content {
            Content::Vector(c) => {
                let dynamics = c.dynamics.as_ref().map_or(0, |d| d.weight.len() + d.covariance.len());
                4 * c.mean.len() + dynamics
            }
            Content::Frame(c) => c.prototypes.len() + 2,
        }
    }
}

/// Numbers of a frame after [`pool_frame`].
pub(super) fn pooled_len(height: usize, width: usize) -> usize {
    let blocks = |n: usize| n.div_ceil(n.div_ceil(BLOCKS).max(1)).max(1);
    blocks(height) * blocks(width)
}

/// Averages a frame over square-ish blocks, 12 a side or fewer: 7 x 7 pixels of 84 x 84.
pub(super) fn pool_frame(height: usize, width: usize, pixels: &[f32], out: &mut [f32]) {
    let (tall, wide) = (height.div_ceil(BLOCKS).max(1), width.div_ceil(BLOCKS).max(1));
    let across = width.div_ceil(wide);
    for (at, mean) in out.iter_mut().enumerate() {
        let (top, left) = (at / across * tall, at % across * wide);
        let (bottom, right) = ((top + tall).min(height), (left + wide).min(width));
        let sum: f32 = (top..bottom).map(|r| pixels[r * width..][left..right].iter().sum::<f32>()).sum();
        *mean = sum / ((bottom - top) * (right - left)) as f32;
    }
}

fn disagree(what: &'static str, why: String) -> Error {
    Error::Size { what, why }
}

/// Refuses ranges outside some rows of `d` numbers.
fn rows_within(what: &'static str, rows: usize, d: usize, ranges: &[Range<usize>]) -> Result<()> {
    if d == 0 || rows == 0 || ranges.iter().all(Range::is_empty) && !ranges.is_empty() {
        return Err(Error::Empty { what });
    }
    match ranges.iter().any(|r| r.start > r.end || r.end > rows) {
        true => Err(disagree(what, format!("{rows} rows do not hold every episode"))),
        false => Ok(()),
    }
}

/// Mean and population variance of rows; two passes in f64.
fn moments(d: usize, obs: States<'_>, rows: impl Iterator<Item = usize> + Clone) -> Result<(Vec<f32>, Vec<f32>)> {
    let n = rows.clone().count() as f64;
    if n == 0.0 {
        return Err(Error::Empty { what: "states of the training episodes" });
    }
    let (mut mean, mut var) = (vec![0.0; d], vec![0.0; d]);
    let mut row = vec![0.0; d];
    for at in rows.clone() {
        (obs.read)(at, &mut row);
        mean.iter_mut().zip(&row).for_each(|(mean, x)| *mean += f64::from(*x) / n);
    }
    for at in rows {
        (obs.read)(at, &mut row);
        var.iter_mut().zip(&mean).zip(&row).for_each(|((var, mean), x)| *var += (f64::from(*x) - mean).powi(2) / n);
    }
    let narrow = |values: Vec<f64>| values.into_iter().map(|v| v as f32).collect();
    Ok((narrow(mean), narrow(var)))
}

/// Deviations with constants counted as 1.
pub(super) fn scales(var: impl Iterator<Item = f64>) -> Vec<f64> {
    var.map(|v| if v.sqrt() < LEAST_SCALE { 1.0 } else { v.sqrt() }).collect()
}

/// Ridge regression of the next state's change.
fn dynamics(
    signature: &Signature,
    content: &VectorContent,
    obs: States<'_>,
    executed: Executed<'_>,
    episodes: &[Range<usize>],
) -> Option<Dynamics> {
    let (d, columns) = (content.mean.len(), content.mean.len() + signature.actions.len() + 1);
    let scale = scales(content.var.iter().map(|v| f64::from(*v)));
    // Rows that have a successor.
    let pairs: Vec<Range<usize>> = episodes.iter().map(|e| e.start..e.end.max(e.start + 1) - 1).collect();
    let rows: Vec<usize> = spaced(&pairs, TRANSITIONS).collect();
    if rows.is_empty() {
        return None;
    }
    let (mut before, mut after) = (vec![0.0; d], vec![0.0; d]);
    let mut fill = |row: usize, z: &mut [f64], y: &mut [f64]| {
        (obs.read)(row, &mut before);
        (obs.read)(row + 1, &mut after);
        for j in 0..d {
            let (now, next) = (f64::from(before[j]), f64::from(after[j]));
            z[j] = (now - f64::from(content.mean[j])) / scale[j];
            y[j] = (next - now) / scale[j];
        }
        action_columns(signature, executed, row, &mut z[d..columns - 1]);
        z[columns - 1] = 1.0;
    };
    let (mut z, mut y) = (vec![0.0; columns], vec![0.0; d]);
    let (mut gram, mut cross) = (vec![0.0; columns * columns], vec![0.0; columns * d]);
    for row in &rows {
        fill(*row, &mut z, &mut y);
        for (i, z_i) in z.iter().enumerate().filter(|(_, z)| **z != 0.0) {
            gram[i * columns..][..=i].iter_mut().zip(&z).for_each(|(sum, z_j)| *sum += z_i * z_j);
            cross[i * d..][..d].iter_mut().zip(&y).for_each(|(sum, y)| *sum += z_i * y);
        }
    }
    let n = rows.len() as f64;
    (0..columns).for_each(|i| gram[i * columns + i] += RIDGE * n);
    let factor = Cholesky::new(gram, columns)?;
    let mut weight = vec![0.0; d * columns];
    for (j, row) in weight.chunks_exact_mut(columns).enumerate() {
        row.iter_mut().enumerate().for_each(|(i, w)| *w = cross[i * d + j]);
        factor.solve(row);
    }
    // The residuals of what is stored, not of what was solved.
    let weight: Vec<f32> = weight.into_iter().map(|w| w as f32).collect();
    let mut covariance = vec![0.0; d * d];
    for row in &rows {
        fill(*row, &mut z, &mut y);
        for (y, w) in y.iter_mut().zip(weight.chunks_exact(columns)) {
            *y -= w.iter().zip(&z).map(|(w, z)| f64::from(*w) * z).sum::<f64>();
        }
        for (i, y_i) in y.iter().enumerate() {
            covariance[i * d..][..d].iter_mut().zip(&y).for_each(|(sum, y_j)| *sum += y_i * y_j / n);
        }
    }
    Some(Dynamics { weight, covariance: covariance.into_iter().map(|c| c as f32).collect() })
}

/// The action of a row as the dynamics take it.
fn action_columns(signature: &Signature, executed: Executed<'_>, row: usize, out: &mut [f64]) {
    match executed {
        Executed::Ids(ids) => {
            out.fill(0.0);
            if let Some(hot) = out.get_mut(ids[row] as usize) {
                *hot = 1.0;
            }
        }
        Executed::Values(values) => {
            let a = signature.actions.len();
            out.iter_mut().zip(&values[row * a..][..a]).for_each(|(to, from)| *to = f64::from(*from));
        }
    }
}

/// At most `most` equally spaced rows of some ranges, in order.
fn spaced(ranges: &[Range<usize>], most: usize) -> impl Iterator<Item = usize> + '_ {
    let total: usize = ranges.iter().map(Range::len).sum();
    let taken = total.min(most);
    ranges
        .iter()
        .flat_map(Range::clone)
        .enumerate()
        .filter(move |(at, _)| {
            // The rows floor(i total / taken), i below taken.
            let (at, total, taken) = (*at as u64, total as u64, taken as u64);
            (at * taken).div_ceil(total) * total / taken == at
        })
        .map(|(_, row)| row)
}
