//! Fixed lists of cases: the anchors that goals are stated for, and a quick list for comparing revisions.

use super::case::{Case, Twist};
use super::expand::find_op;
use super::row::dtype_name;
use super::steps::{Model, Step, What, manner};
use anyhow::Result;
use std::borrow::Cow;
use tsn::dt::autograd::engine::kernels::{Crossover, DType};

/// Multiply-add peak, in GFLOP/s, of the core that dense goals were stated on. Their share of it carries over.
const ANCHOR_PEAK: f64 = 114.0;

/// A list of cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Suite {
    /// Every anchor that is a kernel call, a training step or a decision.
    Anchors,
    /// About half a minute: one or two cases of each op that a step spends time in.
    Quick,
}

/// One thing to time.
#[derive(Clone, Debug)]
pub(crate) enum Job {
    /// A kernel call.
    Call(Case),
    /// A training step or a decision.
    Step(Step),
}

impl Job {
    /// `gemm/r60_o128_i128_d100`, then the element type unless f32, or the id of a step.
    pub(crate) fn name(&self) -> String {
        match self {
            Job::Call(case) if case.dtype == DType::F32 => format!("{}/{}", case.op.name, case.label()),
            Job::Call(case) => format!("{}/{} {}", case.op.name, case.label(), dtype_name(case.dtype)),
            Job::Step(step) => step.id(manner("cpu", 1)),
        }
    }

    /// The same with a crossover table of one's own.
    pub(crate) fn tuned(self, crossover: Crossover) -> Job {
        let crossover = Cow::Owned(crossover);
        match self {
            Job::Call(case) => Job::Call(Case { crossover, ..case }),
            Job::Step(step) => Job::Step(Step { crossover, ..step }),
        }
    }
}

/// What a median should not exceed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Goal {
    /// Nanoseconds, as stated for another machine.
    Ns(f64),
    /// Share of this machine's multiply-add peak.
    Peak(f64),
}

/// A case of a suite with its goal, if one is stated that does not compare with another program.
pub(crate) type Entry = (Job, Option<Goal>);

/// r, o, i, and goals in GFLOP/s of the anchor machine.
const BF16: &[(u32, u32, u32, f64)] = &[
    (1, 1024, 1024, 60.0),
    (1, 4096, 4096, 17.0),
    (20, 128, 128, 120.0),
    (60, 128, 128, 140.0),
    (60, 512, 128, 140.0),
    (60, 128, 512, 140.0),
    (60, 4096, 4096, 160.0),
    (1280, 128, 128, 170.0),
    (3840, 128, 128, 170.0),
    (3840, 384, 128, 175.0),
    (3840, 512, 128, 175.0),
    (3840, 128, 512, 175.0),
    (3840, 1024, 1024, 200.0),
    (3840, 4096, 4096, 200.0),
];

/// The same in f32.
const DENSE: &[(u32, u32, u32, f64)] = &[
    (1, 128, 128, 40.0),
    (1, 1024, 1024, 32.0),
    (1, 4096, 4096, 9.0),
    (20, 128, 128, 80.0),
    (60, 128, 128, 95.0),
    (60, 512, 128, 95.0),
    (60, 128, 512, 95.0),
    (60, 4096, 4096, 75.0),
    (1280, 128, 128, 100.0),
    (3840, 128, 128, 100.0),
    (3840, 384, 128, 100.0),
    (3840, 512, 128, 100.0),
    (3840, 128, 512, 100.0),
    (3840, 1024, 1024, 103.0),
    (3840, 4096, 4096, 104.0),
];

/// r, o, i, densities.
const MASKED: &[(u32, u32, u32, &[f64])] = &[
    (60, 128, 128, &[0.5, 0.1]),
    (60, 512, 128, &[0.33, 0.1, 0.02]),
    (60, 4096, 4096, &[0.5, 0.1]),
    (3840, 128, 128, &[0.5, 0.33, 0.1, 0.02]),
    (3840, 512, 128, &[0.5, 0.1]),
    (3840, 128, 512, &[0.5]),
    (3840, 1024, 1024, &[0.5, 0.33, 0.1, 0.02]),
    (1280, 4096, 1024, &[0.08]),
];

/// b, h, t, d; milliseconds forward, and forward with backward.
const ATTENTION: &[([u32; 4], f64, Option<f64>)] = &[
    ([64, 4, 60, 32], 1.8, Some(5.2)),
    ([64, 1, 60, 128], 1.2, Some(4.0)),
    ([1, 4, 60, 32], 0.026, None),
    ([8, 8, 1024, 64], 105.0, Some(380.0)),
    ([1, 16, 4096, 64], 400.0, Some(1400.0)),
];

/// Queries, bank, width, milliseconds.
const COSINE: &[(u32, u32, u32, f64)] = &[
    (1, 100, 128, 0.0015),
    (64, 100, 128, 0.03),
    (1024, 100, 128, 0.45),
    (1, 10_000, 128, 0.09),
    (64, 10_000, 128, 2.0),
    (1024, 10_000, 128, 29.0),
    (1, 1_000_000, 128, 28.0),
    (64, 1_000_000, 128, 200.0),
    (1024, 1_000_000, 128, 2800.0),
    (1, 1_000_000, 512, 105.0),
    (64, 1_000_000, 512, 750.0),
    (1024, 1_000_000, 512, 11_000.0),
];

/// Rows and columns of the scores, density, milliseconds.
const TOPK: &[(u32, u32, f64, f64)] =
    &[(100, 1000, 0.5, 0.1), (1000, 1000, 0.5, 0.8), (1000, 10_000, 0.5, 12.0), (1000, 1000, 0.1, 0.8)];

/// Values, milliseconds.
const KMEANS: &[(u32, f64)] = &[(100_000, 2.0), (1_000_000, 25.0)];

/// Density, milliseconds of a training step, milliseconds of a decision.
type StepGoals = &'static [(f64, Option<f64>, Option<f64>)];
const STEPS: &[(Model, StepGoals)] = &[
    (Model::CartPole, &[(1.0, Some(170.0), Some(0.8)), (0.5, Some(150.0), Some(0.55)), (0.1, Some(100.0), None)]),
    (Model::Panda, &[(1.0, Some(155.0), Some(0.8)), (0.5, Some(140.0), Some(0.55)), (0.1, Some(92.0), None)]),
    (Model::Atari, &[(1.0, Some(900.0), Some(1.1)), (0.5, Some(850.0), Some(0.8))]),
];

impl Suite {
    /// The cases in the order of the anchors' sections.
    ///
    /// # Errors
    /// If this build lacks an op.
    pub(crate) fn entries(self, seed: u64) -> Result<Vec<Entry>> {
        let mut list = List { seed, entries: Vec::new() };
        match self {
            Suite::Anchors => list.anchors()?,
            Suite::Quick => list.quick()?,
        }
        Ok(list.entries)
    }
}

struct List {
    seed: u64,
    entries: Vec<Entry>,
}

impl List {
    fn call(&mut self, op: &str, sizes: &[(char, u32)], density: Option<f64>, goal: Option<Goal>) -> Result<()> {
        self.twisted(op, sizes, density, goal, (DType::F32, Twist::Usual))
    }

    fn twisted(
        &mut self,
        op: &str,
        sizes: &[(char, u32)],
        density: Option<f64>,
        goal: Option<Goal>,
        (dtype, twist): (DType, Twist),
    ) -> Result<()> {
        let usual = Case::usual(find_op(op)?).with(sizes);
        let case = Case { seed: self.seed, density: density.or(usual.density), dtype, twist, ..usual };
        self.entries.push((Job::Call(case), goal));
        Ok(())
    }

    fn step(&mut self, model: Model, what: What, density: f64, ms: Option<f64>) {
        let crossover = Cow::Borrowed(Crossover::SHIPPED);
        let step = Step { model, what, density, seed: self.seed, crossover };
        self.entries.push((Job::Step(step), ms.map(millis)));
    }

    fn anchors(&mut self) -> Result<()> {
        for (dtype, list) in [(DType::F32, DENSE), (DType::Bf16, BF16)] {
            for &(r, o, i, gflops) in list {
                // One row is a matter of memory, and its goal a time.
                let flops = 2.0 * f64::from(r) * f64::from(o) * f64::from(i);
                let goal = if r == 1 { Goal::Ns(flops / gflops) } else { Goal::Peak(gflops / ANCHOR_PEAK) };
                let sizes = [('r', r), ('o', o), ('i', i)];
                self.twisted("gemm", &sizes, None, Some(goal), (dtype, Twist::Usual))?;
            }
        }
        for op in ["masked_gemm", "masked_gemm_dx"] {
            for &(r, o, i, densities) in MASKED {
                for density in densities {
                    self.call(op, &[('r', r), ('o', o), ('i', i)], Some(*density), None)?;
                }
            }
        }
        // A gradient of weights is dense while scores learn; so is its goal.
        for &(r, o, i, gflops) in DENSE.iter().filter(|(r, o, ..)| *r >= 1280 && *o <= 1024) {
            let (sizes, goal) = ([('r', r), ('o', o), ('i', i)], Some(Goal::Peak(gflops / ANCHOR_PEAK)));
            self.call("gemm_dx", &sizes, None, goal)?;
            self.call("gemm_dw", &sizes, None, goal)?;
            self.call("masked_gemm_dw", &sizes, None, goal)?;
        }
        for &([b, h, t, d], forward, both) in ATTENTION {
            let sizes = [('b', b), ('h', h), ('t', t), ('d', d)];
            let how = (DType::F32, Twist::NoDropout);
            self.twisted("attention", &sizes, None, Some(millis(forward)), how)?;
            if let Some(both) = both {
                self.twisted("attention_dx", &sizes, None, Some(millis(both - forward)), how)?;
            }
        }
        for &(n, m, d, ms) in COSINE {
            self.call("cosine_topk", &[('n', n), ('m', m), ('d', d), ('k', 10)], None, Some(millis(ms)))?;
        }
        for &(o, i, density, ms) in TOPK {
            self.call("topk", &[('o', o), ('i', i)], Some(density), Some(millis(ms)))?;
        }
        let half = (DType::F32, Twist::HalfFree);
        self.twisted("topk", &[('o', 1000), ('i', 1000)], Some(0.5), Some(millis(0.8)), half)?;
        for &(n, ms) in KMEANS {
            self.call("kmeans", &[('n', n), ('k', 16)], None, Some(millis(ms)))?;
        }
        for &(model, goals) in STEPS {
            goals.iter().for_each(|&(density, ms, _)| self.step(model, What::Train, density, ms));
        }
        for &(model, goals) in STEPS {
            let decisions = goals.iter().filter(|(.., ms)| ms.is_some());
            decisions.for_each(|&(density, _, ms)| self.step(model, What::Decide, density, ms));
        }
        Ok(())
    }

    fn quick(&mut self) -> Result<()> {
        for (r, o, i) in [(60, 128, 128), (3840, 128, 128), (3840, 512, 128)] {
            let sizes = [('r', r), ('o', o), ('i', i)];
            for op in ["gemm", "gemm_dx", "gemm_dw"] {
                self.call(op, &sizes, None, None)?;
            }
            for density in [0.5, 0.1] {
                for op in ["masked_gemm", "masked_gemm_dx"] {
                    self.call(op, &sizes, Some(density), None)?;
                }
            }
            self.call("masked_gemm_dw", &sizes, Some(0.5), None)?;
        }
        self.call("packed_gemm", &[('r', 60), ('o', 512)], Some(0.1), None)?;
        for op in ["attention", "attention_dx"] {
            self.call(op, &[('b', 1)], None, None)?;
            self.call(op, &[('b', 64)], None, None)?;
        }
        let rest = ["conv", "conv_dx", "conv_dw", "layernorm", "layernorm_dx", "gelu", "gelu_dx", "dropout", "adamw"];
        for op in rest.into_iter().chain(["topk", "cross_entropy"]) {
            self.call(op, &[], None, None)?;
        }
        self.call("cosine_topk", &[('n', 64), ('m', 1000)], None, None)?;
        self.call("kmeans", &[('n', 3000)], None, None)?;
        self.step(Model::CartPole, What::Decide, 0.5, None);
        Ok(())
    }
}

fn millis(ms: f64) -> Goal {
    Goal::Ns(ms * 1e6)
}

impl Goal {
    /// Nanoseconds for a call of so many operations on a machine of this peak.
    pub(crate) fn ns(self, flops: u64, peak_gflops: f64) -> f64 {
        match self {
            Goal::Ns(ns) => ns,
            Goal::Peak(share) => flops as f64 / (share * peak_gflops).max(1e-9),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_case_is_valid_and_has_its_own_name() {
        for suite in [Suite::Anchors, Suite::Quick] {
            let entries = suite.entries(0).expect("every op is in the build");
            let mut names = BTreeSet::new();
            for (job, _) in &entries {
                let name = job.name();
                assert!(names.insert(name.clone()), "{name} twice");
            }
        }
        let with_goal = |suite: Suite| suite.entries(0).expect("a list").iter().filter(|(_, g)| g.is_some()).count();
        assert!(with_goal(Suite::Anchors) > 60);
        assert_eq!(with_goal(Suite::Quick), 0);
    }

    #[test]
    fn dense_goals_scale_with_the_peak() {
        // 100 of 114 GFLOP/s, on a machine twice as fast.
        let goal = Goal::Peak(100.0 / ANCHOR_PEAK);
        assert!((goal.ns(200_000, 2.0 * ANCHOR_PEAK) - 1000.0).abs() < 1e-6);
        assert_eq!(millis(0.8).ns(0, 1.0), 800_000.0);
    }
}
