//! Whole training steps and decisions of the standard models, on made-up data.

use super::case::density_label;
use super::measure::Cache;
use super::row::{About, Manner};
use anyhow::Result;
use std::borrow::Cow;
use std::collections::BTreeMap;
use tsn::claim::count;
use tsn::dt::autograd::engine::kernels::philox::{Rng, Stream};
use tsn::dt::autograd::engine::kernels::{BitMask, Contract, Crossover};
use tsn::dt::autograd::engine::{Cost, Device, Plan, Program};
use tsn::dt::autograd::{AdamW, Mask, Param, Select, Trainable, adamw_step};
use tsn::dt::config::{Action, Config, Observation, Role, Spec, Time};
use tsn::dt::decision::plan_act;
use tsn::dt::model::input;
use tsn::dt::train::plan_step;
use tsn::fit::frozen;
use tsn::state::State;

/// What is observed: the published model (width 128, 3 blocks, 20 steps, learned time table) for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Model {
    /// 4 numbers, 2 actions, 4 heads.
    CartPole,
    /// 25 numbers, 4 continuous actions, 1 head.
    Panda,
    /// 4 stacked frames of 84 x 84, 18 actions, 4 heads.
    Atari,
}

/// What is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// Forward, backward, clip and AdamW on 64 windows; below full density masks are learned.
    Train,
    /// The action for a full history under a fixed mask.
    Decide,
}

/// A step of a suite.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub model: Model,
    pub what: What,
    pub density: f64,
    pub seed: u64,
    /// Where one way to compute overtakes another.
    pub crossover: Cow<'static, Crossover>,
}

const BATCH: u32 = 64;

impl Model {
    fn name(self) -> &'static str {
        match self {
            Model::CartPole => "cartpole",
            Model::Panda => "panda",
            Model::Atari => "atari",
        }
    }

    fn config(self) -> Config {
        let (observation, action, heads, max_ep_len) = match self {
            Model::CartPole => (Observation::Vector(4), Action::Discrete(2), 4, 10_000),
            Model::Panda => (Observation::Vector(25), Action::Continuous(4), 1, 50),
            Model::Atari => {
                (Observation::Image { channels: 4, height: 84, width: 84 }, Action::Discrete(18), 4, 27_001)
            }
        };
        Config { heads, max_ep_len, time: Time::Learned, ..Config::new(observation, action) }
    }
}

impl Step {
    /// `step/cpu_f32_train/cartpole_b64_d50` or `act/cpu_f32_decision/cartpole_k20_d50`.
    pub(crate) fn id(&self, manner: Manner) -> String {
        let (name, density) = (self.model.name(), density_label(self.density));
        let shape = match self.what {
            What::Train => format!("step/{}_f32_train/{name}_b{BATCH}", manner.backend),
            What::Decide => format!("act/{}_f32_decision/{name}_k{}", manner.backend, self.model.config().context),
        };
        format!("{shape}_{density}{}", manner.suffix())
    }

    /// Windows of a run.
    fn batch(&self) -> u32 {
        if self.what == What::Train { BATCH } else { 1 }
    }

    /// Records the step for some windows.
    fn plan(&self, batch: u32) -> Result<Plan> {
        let (config, masked) = (self.model.config(), self.density < 1.0);
        Ok(match self.what {
            What::Decide => plan_act(&config, batch, |spec| frozen(spec, masked))?,
            What::Train => plan_step(&config, batch, &AdamW::default(), |spec: &Spec| {
                let (mask, trainable) = match masked && spec.role == Role::Maskable {
                    true => (Mask::Learned(Select::Any), Trainable::Free),
                    false => (Mask::Dense, Trainable::All),
                };
                Param::new(spec.name.as_str(), spec.rows, spec.cols, mask, trainable)
            })?,
        })
    }

    /// A program with fresh parameters, masks or scores of the density, and windows without padding.
    fn bind(&self, device: &Device, batch: u32) -> Result<Program> {
        let config = self.model.config();
        let device = device.clone().with_crossover(self.crossover.clone().into_owned());
        let mut program = self.plan(batch)?.bind(&device)?;
        for (name, (_, bytes)) in &State::fresh(&config, self.seed, 0).0 {
            if program.has(name) {
                program.write_state_bytes(name, bytes)?;
            }
        }
        for (at, spec) in config.parameters().iter().enumerate() {
            let (name, n) = (&spec.name, spec.len());
            let mut rng = Rng::new(self.seed, Stream::Scores, [at as u32, 0]);
            let scores: Vec<f32> = (0..n).map(|_| rng.uniform(-1.0, 1.0) as f32).collect();
            if program.has(&format!("{name}.score")) {
                program.write(&format!("{name}.k"), &[count(self.density, n) as u32])?;
                program.write(&format!("{name}.free"), BitMask::ones(spec.rows, spec.cols).words())?;
                program.write(&format!("{name}.score"), &scores)?;
            } else if program.has(&format!("{name}.mask")) {
                let flags = scores.iter().map(|s| f64::from(s.abs()) < self.density);
                program.write(&format!("{name}.mask"), BitMask::from_flags(spec.rows, spec.cols, flags).words())?;
            }
        }
        if program.has("step") {
            program.write("rng", &[1u32, 2, 3, 0])?;
            // A small rate: thousands of repeats leave the weights finite.
            program.write("step", &adamw_step(1e-6, 0.9, 0.999, 10))?;
        }
        self.feed(&mut program, batch)?;
        Ok(program)
    }

    fn feed(&self, program: &mut Program, batch: u32) -> Result<()> {
        let config = self.model.config();
        let windows = (batch * config.context) as usize;
        // A decision is given the newest step of its window alone.
        let rows = if self.what == What::Decide { batch as usize } else { windows };
        let n = rows * config.observation_len() as usize;
        let mut rng = Rng::new(self.seed, Stream::Batch, [0, 0]);
        match config.observation {
            Observation::Image { .. } => {
                program.write(input::OBS, &(0..n).map(|_| rng.u32() as u8).collect::<Vec<u8>>())?;
            }
            Observation::Vector(_) => {
                program.write(input::OBS, &(0..n).map(|_| rng.uniform(-1.0, 1.0) as f32).collect::<Vec<f32>>())?;
            }
        }
        let rtg: Vec<f32> = (0..rows).map(|_| rng.unit() as f32).collect();
        let timesteps: Vec<u32> = (0..rows as u32).map(|row| row % config.context).collect();
        program.write(input::RTG, &rtg)?;
        program.write(input::TIMESTEPS, &timesteps)?;
        write_if(program, input::TIMESTEPS_BEFORE, &timesteps)?;
        program.write(input::VALID, &vec![1u8; 3 * windows])?;
        match config.action {
            Action::Discrete(outputs) => {
                let ids: Vec<u32> = (0..rows).map(|_| rng.below(u64::from(outputs)) as u32).collect();
                write_if(program, input::ACTIONS, &ids)?;
                write_if(program, input::TARGET, &ids)?;
                write_if(program, input::ALLOWED, &[(1u32 << outputs) - 1])
            }
            Action::Continuous(width) => {
                let n = rows * width as usize;
                let values: Vec<f32> = (0..n).map(|_| rng.uniform(-1.0, 1.0) as f32).collect();
                write_if(program, input::ACTIONS, &values)?;
                write_if(program, input::TARGET, &values)?;
                write_if(program, input::STEP_VALID, &vec![1u8; rows])?;
                write_if(program, input::ACTIVE, &vec![1.0f32; width as usize])
            }
        }
    }

    /// The program to time, and what is known about it.
    ///
    /// # Errors
    /// Those of recording and binding.
    pub(crate) fn make(&self, device: &Device, manner: Manner) -> Result<(Program, About)> {
        let batch = self.batch();
        let program = self.bind(device, batch)?;
        let masked = |op: &Contract| op.args.iter().any(|arg| arg.name == "mask") && !op.name.ends_with("_dw");
        let share = |op: &Contract| if masked(op) { self.density } else { 1.0 };
        let add = |(dense, kept, bytes): (u64, f64, u64), c: Cost| {
            (dense + c.flops, kept + c.flops as f64 * share(c.op), bytes + c.bytes)
        };
        let (dense_flops, kept, bytes) = program.plan().costs().fold((0, 0.0, 0), add);
        let config = self.model.config();
        let about = About {
            id: self.id(manner),
            op: if self.what == What::Train { "step" } else { "act" }.to_owned(),
            dtype: "f32".to_owned(),
            variant: if self.what == What::Train { "train" } else { "decision" }.to_owned(),
            shape: BTreeMap::from([('b', batch), ('t', 3 * config.context), ('h', config.heads), ('c', config.width)]),
            mask_kind: if self.density < 1.0 { "random" } else { "none" }.to_owned(),
            density: self.density,
            seed: self.seed,
            manner,
            prepare_ns: None,
            dense_flops,
            kept_flops: kept as u64,
            bytes,
        };
        Ok((program, about))
    }

    /// Holds every call of the step on one window against f64, and says so.
    ///
    /// # Errors
    /// The first call that is too far off.
    pub(crate) fn verify(&self, device: &Device) -> Result<String> {
        self.bind(device, 1)?.check()?;
        Ok("every call, b 1".to_owned())
    }
}

/// A step leaves its own data in the caches, and prepares what its changes of weights demand.
pub(crate) fn manner(backend: &'static str, threads: usize) -> Manner {
    Manner { backend, threads, cache: Cache::Warm, fresh: false }
}

fn write_if<T: tsn::dt::autograd::engine::Element>(program: &mut Program, name: &str, data: &[T]) -> Result<()> {
    if program.has(name) {
        program.write(name, data)?;
    }
    Ok(())
}
