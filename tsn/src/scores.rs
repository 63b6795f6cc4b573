//! Mask scores at the start of a task. Source: method.md 5.2, 6.7.

use crate::options::WarmStart;
use crate::state::draw;
use autograd::engine::kernels::BitMask;
use autograd::engine::kernels::philox::{Rng, Stream};
use dt::autograd;
use dt::config::Spec;

/// Scores of one tensor: fresh, or warm-started from a source's mask. Deterministic in `(seed, task, tensor)`.
pub fn start(spec: &Spec, tensor: usize, seed: u64, task: usize, source: Option<(&BitMask, WarmStart)>) -> Vec<f32> {
    let mut rng = Rng::new(seed, Stream::Scores, [task as u32, tensor as u32]);
    let Some((mask, warm)) = source else { return draw(spec.score_init, spec.len(), &mut rng) };
    match warm {
        WarmStart::Never => draw(spec.score_init, spec.len(), &mut rng),
        WarmStart::Nudge(amount) => {
            let mut scores = draw(spec.score_init, spec.len(), &mut rng);
            for (score, set) in scores.iter_mut().zip(mask.flags()) {
                if set {
                    *score += amount.copysign(*score);
                }
            }
            scores
        }
        WarmStart::Replace(amount) => {
            mask.flags().map(|set| (0.02 * rng.normal()) as f32 + if set { amount } else { 0.0 }).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claim::count;
    use dt::config::{Action, Config, Observation};

    #[test]
    fn the_official_warm_start_reproduces_the_source_mask() {
        let config = Config::new(Observation::Vector(4), Action::Discrete(2));
        let spec = &config.parameters()[4];
        let mut rng = Rng::new(1, Stream::Data, [0, 0]);
        let k = count(0.33, spec.len());
        let mut order: Vec<usize> = (0..spec.len()).collect();
        order.sort_by_cached_key(|_| rng.u32());
        let mut source = BitMask::zeros(spec.rows, spec.cols);
        order[..k].iter().for_each(|&i| source.set(i / spec.cols as usize, i % spec.cols as usize));
        let scores = start(spec, 4, 7, 1, Some((&source, WarmStart::Replace(2.0))));
        let mut ranked: Vec<usize> = (0..spec.len()).collect();
        ranked.sort_by(|&a, &b| scores[b].abs().total_cmp(&scores[a].abs()));
        let flags: Vec<bool> = source.flags().collect();
        assert!(ranked[..k].iter().all(|&i| flags[i]));
    }
}
