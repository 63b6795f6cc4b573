//! Programs of whole steps with made-up data.

use autograd::engine::{Cost, Device, Plan, Program, Result};
use autograd::{AdamW, Mask, Param, Select, Trainable, adamw_step};
use dt::config::{Action, Config, Observation, Role, Spec};
use dt::decision::plan_act;
use dt::model::input;
use dt::train::{plan_loss, plan_step};
use kernels::philox::{Rng, Stream};
use kernels::{BitMask, Contract};
use tsn::claim::count;
use tsn::fit::frozen;
use tsn::state::State;

/// What is observed: the standard model (width 128, 3 blocks, 20 steps, 4 heads, dropout 0.1) for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// 4 numbers, 2 actions.
    CartPole,
    /// 25 numbers, 4 continuous actions, one head.
    Panda,
    /// 4 stacked frames of 84 x 84, 18 actions.
    Atari,
}

impl Model {
    /// The model.
    pub fn config(self) -> Config {
        match self {
            Model::CartPole => Config::new(Observation::Vector(4), Action::Discrete(2)),
            Model::Panda => Config { heads: 1, ..Config::new(Observation::Vector(25), Action::Continuous(4)) },
            Model::Atari => {
                Config::new(Observation::Image { channels: 4, height: 84, width: 84 }, Action::Discrete(18))
            }
        }
    }
}

/// A recorded step, not yet bound.
#[derive(Debug)]
pub struct Step {
    plan: Plan,
    model: Model,
    batch: u32,
    density: f64,
}

impl Step {
    /// One training step on `batch` windows. A density below 1 learns masks: top-k, score gradients and updates.
    ///
    /// # Errors
    /// Those of recording.
    pub fn training(model: Model, batch: u32, density: f64) -> Result<Step> {
        let (mask, trainable) = match density < 1.0 {
            true => (Mask::Learned(Select::Any), Trainable::Free),
            false => (Mask::Dense, Trainable::All),
        };
        let choose = |spec: &Spec| match spec.role {
            Role::Maskable => Param::new(spec.name.as_str(), spec.rows, spec.cols, mask, trainable),
            _ => Param::new(spec.name.as_str(), spec.rows, spec.cols, Mask::Dense, Trainable::All),
        };
        let plan = plan_step(&model.config(), batch, &AdamW::default(), choose)?;
        Ok(Step { plan, model, batch, density })
    }

    /// The loss of `batch` windows under a fixed mask: what routing measures of an earlier task.
    ///
    /// # Errors
    /// Those of recording.
    pub fn loss(model: Model, batch: u32, density: f64) -> Result<Step> {
        let plan = plan_loss(&model.config(), batch, |spec| frozen(spec, density < 1.0))?;
        Ok(Step { plan, model, batch, density })
    }

    /// One decision of one agent with a full history, under a fixed mask.
    ///
    /// # Errors
    /// Those of recording.
    pub fn decision(model: Model, density: f64) -> Result<Step> {
        let plan = plan_act(&model.config(), 1, |spec| frozen(spec, density < 1.0))?;
        Ok(Step { plan, model, batch: 1, density })
    }

    /// Flops over kept weights and least bytes of one run. Calls with a mask count their density's share.
    pub fn work(&self) -> (u64, u64) {
        let share = |op: &Contract| if op.args.iter().any(|arg| arg.name == "mask") { self.density } else { 1.0 };
        let add = |(flops, bytes): (f64, u64), c: Cost| (flops + c.flops as f64 * share(c.op), bytes + c.bytes);
        let (flops, bytes) = self.plan.costs().fold((0.0, 0), add);
        (flops as u64, bytes)
    }

    /// A program with fresh parameters, masks or scores of the density, and a batch without padding.
    ///
    /// # Errors
    /// [`autograd::engine::Error::Memory`].
    pub fn bind(&self, workers: usize) -> Result<Program> {
        let config = self.model.config();
        let mut program = self.plan.bind(&Device::cpu(workers))?;
        for (name, (_, bytes)) in &State::fresh(&config, 1, 0).0 {
            if program.has(name) {
                program.write_state_bytes(name, bytes)?;
            }
        }
        for (at, spec) in config.parameters().iter().enumerate() {
            let (name, n) = (&spec.name, spec.len());
            let mut rng = Rng::new(2, Stream::Scores, [at as u32, 0]);
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
        if program.has(input::ALLOWED) {
            program.write(input::ALLOWED, &[(1u32 << config.action.outputs()) - 1])?;
        }
        if program.has(input::ACTIVE) {
            program.write(input::ACTIVE, &vec![1.0f32; config.action.outputs() as usize])?;
        }
        if program.has("step") {
            program.write("rng", &[1u32, 2, 3, 0])?;
            // A small rate: thousands of repeats leave the weights finite.
            program.write("step", &adamw_step(1e-6, 0.9, 0.999, 10))?;
        }
        feed(&mut program, self.model, self.batch)?;
        Ok(program)
    }
}

/// A batch without padding; for a decision, the newest step of each window.
fn feed(program: &mut Program, model: Model, batch: u32) -> Result<()> {
    let config = model.config();
    let decides = program.has(input::TIMESTEPS_BEFORE);
    let rows = (if decides { batch } else { batch * config.context }) as usize;
    let mut rng = Rng::new(3, Stream::Batch, [0, 0]);
    let mut floats = |n: u32| -> Vec<f32> { (0..rows * n as usize).map(|_| rng.uniform(-1.0, 1.0) as f32).collect() };
    let obs = floats(config.observation_len());
    match config.observation {
        Observation::Vector(_) => program.write(input::OBS, &obs)?,
        Observation::Image { .. } => {
            let pixels: Vec<u8> = obs.iter().map(|v| (v * 127.0 + 128.0) as u8).collect();
            program.write(input::OBS, &pixels)?;
        }
    }
    program.write(input::RTG, &floats(1))?;
    let target = program.has(input::TARGET);
    match config.action {
        Action::Discrete(n) => {
            let ids: Vec<u32> = (0..rows as u32).map(|row| row * 7 % n).collect();
            program.write(input::ACTIONS, &ids)?;
            if target {
                program.write(input::TARGET, &ids)?;
            }
        }
        Action::Continuous(d) => {
            let values = floats(d);
            program.write(input::ACTIONS, &values)?;
            if target {
                program.write(input::TARGET, &values)?;
                program.write(input::STEP_VALID, &vec![1u8; rows])?;
            }
        }
    }
    let timesteps: Vec<u32> = (0..rows as u32).map(|row| row % config.context).collect();
    program.write(input::TIMESTEPS, &timesteps)?;
    if decides {
        program.write(input::TIMESTEPS_BEFORE, &timesteps)?;
    }
    program.write(input::VALID, &vec![1u8; (3 * batch * config.context) as usize])
}
