//! Small models in training: every kind of observation and action, masks from scores, dropout, padding.

use autograd::{AdamW, Mask, Param, Select, Trainable};
use dt::config::{Action, Config, Init, Observation, Role, Spec};
use dt::data::batch::{Batch, Sampler, Sampling};
use dt::data::episodes::{Actions, Episodes, Observations, Rewards};
use dt::model::input;
use dt::train::{feed, feed_step, plan_step};
use engine::{Device, Plan, Program};
use kernels::BitMask;
use kernels::philox::{Rng, Stream};
use std::ops::Range;

/// Windows in a batch.
pub const BATCH: u32 = 3;
const SEED: u64 = 11;
const LENGTHS: [u32; 4] = [1, 3, 9, 20];

/// A model, its data and its program.
pub struct Training {
    config: Config,
    data: Episodes,
    adamw: AdamW,
    program: Program,
    batch: Batch,
}

/// A training step on so many windows.
///
/// # Panics
/// If the configuration is bad.
pub fn plan(config: &Config, batch: u32) -> Plan {
    plan_step(config, batch, &AdamW::default(), choose).expect("the model records")
}

/// The three kinds of model with a name each: vectors and discrete actions, vectors and continuous ones, images.
pub fn models() -> [(&'static str, Config); 3] {
    let small = |observation, action| Config {
        width: 32,
        layers: 2,
        heads: 2,
        context: 5,
        dropout: 0.1,
        max_ep_len: 50,
        ..Config::new(observation, action)
    };
    let image = Observation::Image { channels: 2, height: 40, width: 44 };
    [
        ("vector, discrete", small(Observation::Vector(4), Action::Discrete(3))),
        ("vector, continuous", small(Observation::Vector(7), Action::Continuous(2))),
        ("image, discrete", small(image, Action::Discrete(5))),
    ]
}

impl Training {
    /// Binds a training step with fresh weights and scores.
    ///
    /// # Panics
    /// If the configuration is bad or the device refuses: nothing here comes from outside.
    pub fn new(config: &Config, device: &Device) -> Training {
        let data = episodes(config);
        let adamw = AdamW::default();
        let mut program = plan(config, BATCH).bind(device).expect("memory for a small model");
        fresh(config, &mut program);
        let batch = sampler(config, &data).batch();
        Training { config: *config, data, adamw, program, batch }
    }

    /// Draws batches `from .. to`, feeds and runs them.
    ///
    /// # Panics
    /// If a batch does not fit the plan.
    pub fn run(&mut self, from: u32, to: u32) {
        self.measured(from, to, |work| work());
    }

    /// The same, every call submitted on its own.
    ///
    /// # Panics
    /// If a batch does not fit the plan.
    pub fn run_apart(&mut self, from: u32, to: u32) {
        let sampler = sampler(&self.config, &self.data);
        let Training { program, adamw, batch, .. } = self;
        run(program, adamw, batch, &sampler, from..to, Program::run_apart);
    }

    /// The same; `measure` is handed the loop over the steps, without the sampler that it needs once.
    ///
    /// # Panics
    /// If a batch does not fit the plan.
    pub fn measured<T>(&mut self, from: u32, to: u32, measure: impl FnOnce(&mut dyn FnMut()) -> T) -> T {
        let sampler = sampler(&self.config, &self.data);
        let Training { program, adamw, batch, .. } = self;
        measure(&mut || run(program, adamw, batch, &sampler, from..to, Program::run))
    }

    /// Loss of the last batch.
    ///
    /// # Panics
    /// If the plan has no loss.
    pub fn loss(&self) -> f32 {
        self.program.read_vec::<f32>(dt::train::output::LOSS).expect("a training step has a loss")[0]
    }

    /// Bytes of states and of everything that a step needs.
    pub fn arena_bytes(&self) -> [usize; 2] {
        let [state, step, _] = self.program.arena_bytes();
        [state, step]
    }

    /// Name and bytes of every mask.
    ///
    /// # Panics
    /// If the device is lost.
    pub fn masks(&self) -> Vec<(String, Vec<u8>)> {
        let states = self.program.states().expect("the device keeps its states");
        let masks = states.iter().filter(|(name, ..)| name.ends_with(".mask"));
        masks.map(|(name, _, bytes)| ((*name).to_owned(), bytes.to_vec())).collect()
    }

    /// FNV-1a over the bytes of all state buffers in name order.
    pub fn digest(&self) -> u64 {
        let states = self.program.states().expect("a CPU keeps its states");
        let bytes = states.iter().flat_map(|(_, _, bytes)| &**bytes);
        bytes.fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3))
    }
}

fn run(
    program: &mut Program,
    adamw: &AdamW,
    batch: &mut Batch,
    sampler: &Sampler<'_>,
    steps: Range<u32>,
    run: fn(&mut Program) -> engine::Result<()>,
) {
    for step in steps {
        sampler.fill(batch, step);
        feed(program, batch).expect("the batch fits");
        feed_step(program, adamw, SEED, [0, step], 1e-3, u64::from(step) + 1).expect("the step fits");
        run(program).expect("a program runs");
    }
}

/// Backbone weights masked by scores over free entries; norms dense.
fn choose(spec: &Spec) -> Param {
    let (mask, trainable) = match spec.role {
        Role::Maskable => (Mask::Learned(Select::Free), Trainable::Free),
        _ => (Mask::Dense, Trainable::All),
    };
    Param::new(spec.name.clone(), spec.rows, spec.cols, mask, trainable)
}

/// Weights, scores, a third of all entries occupied, half of the free ones chosen.
fn fresh(config: &Config, program: &mut Program) {
    for (at, spec) in (0..).zip(config.parameters()) {
        let mut rng = Rng::new(SEED, Stream::Init, [0, at]);
        let values = |init: Init, rng: &mut Rng| -> Vec<f32> {
            let one = |_| match init {
                Init::Constant(value) => value,
                Init::Normal(std) => (std * rng.normal()) as f32,
                Init::Uniform(bound) => rng.uniform(-bound, bound) as f32,
            };
            (0..spec.len()).map(one).collect()
        };
        program.write(&spec.name, &values(spec.init, &mut rng)).expect("the weight exists");
        if spec.role == Role::Maskable {
            let scores = values(spec.score_init, &mut rng);
            let free = BitMask::from_flags(spec.rows, spec.cols, (0..spec.len()).map(|i| i % 3 != 0));
            program.write(&format!("{}.score", spec.name), &scores).expect("the score exists");
            program.write(&format!("{}.free", spec.name), free.words()).expect("the free bits exist");
            program.write(&format!("{}.k", spec.name), &[free.count() as u32 / 2]).expect("the count exists");
        }
    }
    program.write(input::TIME, &config.time_table()).expect("the time table exists");
    match config.action {
        Action::Discrete(n) => program.write(input::ALLOWED, BitMask::ones(1, n).words()),
        Action::Continuous(d) => program.write(input::ACTIVE, &vec![1.0f32; d as usize]),
    }
    .expect("the loss has its actions");
}

fn episodes(config: &Config) -> Episodes {
    let mut rng = Rng::new(SEED, Stream::Data, [0, 0]);
    let rows = LENGTHS.iter().sum::<u32>() as usize;
    let observations = match config.observation {
        Observation::Vector(n) => {
            let dim = n as usize;
            Observations::Vectors { dim, values: (0..rows * dim).map(|_| rng.normal() as f32).collect() }
        }
        Observation::Image { height, width, .. } => {
            let (height, width) = (height as usize, width as usize);
            Observations::Frames { height, width, bytes: (0..rows * height * width).map(|_| rng.u32() as u8).collect() }
        }
    };
    let actions = match config.action {
        Action::Discrete(count) => {
            Actions::Discrete { count, ids: (0..rows).map(|_| rng.below(u64::from(count)) as u32).collect() }
        }
        Action::Continuous(d) => {
            let dim = d as usize;
            Actions::Continuous { dim, values: (0..rows * dim).map(|_| rng.uniform(-1.0, 1.0) as f32).collect() }
        }
    };
    Episodes::new(observations, actions, vec![1.0; rows], &LENGTHS, Rewards::AsStored).expect("valid episodes")
}

fn sampler<'e>(config: &Config, data: &'e Episodes) -> Sampler<'e> {
    let stack = match config.observation {
        Observation::Vector(_) => 1,
        Observation::Image { channels, .. } => channels as usize,
    };
    let how = Sampling {
        stack,
        rtg_scale: 10.0,
        max_ep_len: config.max_ep_len,
        seed: SEED,
        ..Sampling::new(BATCH as usize, config.context as usize)
    };
    Sampler::new(data, &[0, 1, 2, 3], how).expect("valid sampling")
}
