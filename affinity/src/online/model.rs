//! Descriptors of the candidates, brought to common units.

use super::describe::{Dynamics, VectorContent, scales};
use super::linear::Cholesky;
use super::signature::{Act, Shape, Signature};
use crate::error::{Error, Result};

/// Added to the variances of first states, in pooled units.
const LEAST_VAR: f64 = 1e-3;
/// Added to the diagonal of residual covariances, in pooled units. Logged data hold the noise that there is, so this is
/// only against rounding: with 1e-3 a transition of CartPole says less than the chance of the first state.
const LEAST_RESIDUAL: f64 = 1e-6;

pub(super) enum Model {
    Vectors { scale: Vec<f64>, tasks: Vec<VectorTask>, dynamics: bool },
    Frames { prototypes: Vec<f32>, ends: Vec<usize>, calibration: Vec<(f64, f64)> },
}

pub(super) struct VectorTask {
    pub(super) all: Gaussian,
    pub(super) first: Gaussian,
    pub(super) dynamics: Option<Linear>,
}

/// A diagonal Gaussian in raw units, its constant part summed.
pub(super) struct Gaussian {
    mean: Vec<f64>,
    precision: Vec<f64>,
    constant: f64,
}

/// `e = (x' - x) / s - W [x, a, 1]` in pooled units, `x` raw.
pub(super) struct Linear {
    weight: Vec<f64>,
    covariance: Cholesky,
    pub(super) log_det: f64,
}

pub(super) fn vectors<'a>(
    signature: &Signature,
    contents: impl Iterator<Item = &'a VectorContent> + Clone,
) -> Result<Model> {
    let d = match signature.observation {
        Shape::Vector(d) => d,
        Shape::Frame { .. } => 0,
    };
    let n = contents.clone().count() as f64;
    // Variance of the mixture of the candidates: mean of the variances and variance of the means.
    let mean = |of: &dyn Fn(&VectorContent) -> f64| contents.clone().map(of).sum::<f64>() / n;
    let pooled = (0..d).map(|j| {
        let centre = mean(&|c| f64::from(c.mean[j]));
        mean(&|c| f64::from(c.var[j]) + (f64::from(c.mean[j]) - centre).powi(2))
    });
    let scale = scales(pooled);
    let mut tasks = Vec::new();
    for content in contents {
        let dynamics = match &content.dynamics {
            Some(dynamics) => Some(Linear::new(signature, content, dynamics, &scale)?),
            None => None,
        };
        let (all, first) = (
            Gaussian::new(&content.mean, &content.var, &scale),
            Gaussian::new(&content.first_mean, &content.first_var, &scale),
        );
        tasks.push(VectorTask { all, first, dynamics });
    }
    // Likelihoods compare only if every candidate has one.
    let dynamics = tasks.iter().all(|task| task.dynamics.is_some());
    Ok(Model::Vectors { scale, tasks, dynamics })
}

impl Gaussian {
    fn new(mean: &[f32], var: &[f32], scale: &[f64]) -> Gaussian {
        let widened = || var.iter().zip(scale).map(|(v, s)| f64::from(*v) / (s * s) + LEAST_VAR);
        Gaussian {
            mean: mean.iter().map(|m| f64::from(*m)).collect(),
            precision: widened().zip(scale).map(|(v, s)| 1.0 / (v * s * s)).collect(),
            constant: widened().map(f64::ln).sum(),
        }
    }

    /// Without the part that all tasks share.
    pub(super) fn log_likelihood(&self, obs: &[f32]) -> f64 {
        let part = |((x, mean), precision): ((&f32, &f64), &f64)| (f64::from(*x) - mean).powi(2) * precision;
        -0.5 * (obs.iter().zip(&self.mean).zip(&self.precision).map(part).sum::<f64>() + self.constant)
    }
}

impl Linear {
    fn new(signature: &Signature, content: &VectorContent, dynamics: &Dynamics, pooled: &[f64]) -> Result<Linear> {
        let (d, columns) = (pooled.len(), pooled.len() + signature.actions.len() + 1);
        let own = scales(content.var.iter().map(|v| f64::from(*v)));
        let mut weight: Vec<f64> = dynamics.weight.iter().map(|w| f64::from(*w)).collect();
        for (i, row) in weight.chunks_exact_mut(columns).enumerate() {
            row.iter_mut().for_each(|w| *w *= own[i] / pooled[i]);
            for j in 0..d {
                row[j] /= own[j];
                row[columns - 1] -= row[j] * f64::from(content.mean[j]);
            }
        }
        let unit = |at: usize| own[at] / pooled[at];
        let mut covariance: Vec<f64> = dynamics.covariance.iter().map(|c| f64::from(*c)).collect();
        for (at, c) in covariance.iter_mut().enumerate() {
            let (i, j) = (at / d, at % d);
            *c = *c * unit(i) * unit(j) + if i == j { LEAST_RESIDUAL } else { 0.0 };
        }
        let Some(covariance) = Cholesky::new(covariance, d) else {
            let why = "is not positive definite".to_owned();
            return Err(Error::Size { what: "residual covariance of a descriptor", why });
        };
        Ok(Linear { weight, log_det: covariance.log_det(), covariance })
    }

    /// `e' C^-1 e` of a transition.
    pub(super) fn distance(
        &self,
        scale: &[f64],
        last: &[f64],
        obs: &[f32],
        action: Act<'_>,
        residual: &mut [f64],
    ) -> f64 {
        let d = scale.len();
        let columns = self.weight.len() / d;
        for (i, (e, w)) in residual.iter_mut().zip(self.weight.chunks_exact(columns)).enumerate() {
            let state: f64 = w.iter().zip(last).map(|(w, x)| w * x).sum();
            let act: f64 = match action {
                Act::Id(id) => w[d + id as usize],
                Act::Vector(a) => w[d..].iter().zip(a).map(|(w, a)| w * f64::from(*a)).sum(),
            };
            *e = (f64::from(obs[i]) - last[i]) / scale[i] - state - act - w[columns - 1];
        }
        self.covariance.whiten(residual);
        residual.iter().map(|e| e * e).sum()
    }
}
