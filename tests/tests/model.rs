//! Laws of the model: what a step may see, where padding lies, which head reads it, and that a running episode looks
//! like the windows it was trained on.

use dt::config::{Action, Config, Observation};
use dt::data::batch::{ActionBatch, Batch, Layout, ObsBatch, Padding, Sampler, Sampling};
use dt::data::episodes::{Actions, Episodes, Moments, Observations, Rewards};
use dt::decision::{feed_newest, plan_act};
use dt::env::{Action as Move, ActionSpace, Env, Native, ObsShape, Step};
use dt::history::{History, Preprocess};
use dt::model::input;
use dt::rollout::{Goal, rollout};
use dt::train::{feed, output, plan_loss};
use engine::{Device, Program};
use kernels::BitMask;
use kernels::philox::{Rng, Stream};
use tsn::fit::frozen;
use tsn::state::State;

const K: usize = 5;
const LENGTHS: [u32; 6] = [1, 3, 5, 10, 15, 12];

/// Small models with a dataset each: vectors with ids, vectors with numbers, frames.
fn cases() -> Vec<(Config, Episodes)> {
    let rows = LENGTHS.iter().sum::<u32>() as usize;
    let mut rng = Rng::new(3, Stream::Data, [0, 0]);
    let mut floats = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.normal() as f32).collect() };
    let ids = || Actions::Discrete { count: 3, ids: (0..rows as u32).map(|i| i * 5 / 2 % 3).collect() };
    let numbers = Actions::Continuous { dim: 2, values: floats(rows * 2) };
    let vectors = |values| Observations::Vectors { dim: 3, values };
    let bytes = floats(rows * 36 * 36).iter().map(|v| (v * 60.0 + 120.0) as u8).collect();
    let frames = Observations::Frames { height: 36, width: 36, bytes };
    let image = Observation::Image { channels: 3, height: 36, width: 36 };
    let model = |observation, action| Config {
        width: 32,
        layers: 2,
        heads: 2,
        context: K as u32,
        max_ep_len: 9,
        ..Config::new(observation, action)
    };
    let data = |observations, actions| {
        let rewards = (0..rows).map(|i| (i % 4) as f32 - 1.0).collect();
        Episodes::new(observations, actions, rewards, &LENGTHS, Rewards::AsStored).expect("valid episodes")
    };
    vec![
        (model(Observation::Vector(6), Action::Discrete(4)), data(vectors(floats(rows * 3)), ids())),
        (model(Observation::Vector(6), Action::Continuous(3)), data(vectors(floats(rows * 3)), numbers)),
        (model(image, Action::Discrete(3)), data(frames, ids())),
    ]
}

fn preprocess(data: &Episodes) -> Preprocess {
    let moments = data.moments();
    let layout = moments.as_ref().map(|_| Layout { width: 6, places: vec![4, 0, 3] });
    Preprocess { moments, layout, rtg_scale: 3.0, max_ep_len: 9 }
}

fn sampler<'e>(config: &Config, data: &'e Episodes, b: usize, padding: Padding) -> Sampler<'e> {
    let Preprocess { moments, layout, rtg_scale, max_ep_len } = preprocess(data);
    let how = Sampling {
        stack: match config.observation {
            Observation::Vector(_) => 1,
            Observation::Image { channels, .. } => channels as usize,
        },
        action_width: match config.action {
            Action::Discrete(_) => None,
            Action::Continuous(d) => Some(d as usize),
        },
        ..Sampling { padding, moments, layout, rtg_scale, max_ep_len, ..Sampling::new(b, K) }
    };
    Sampler::new(data, &[0, 1, 2, 3, 4, 5], how).expect("valid sampling")
}

fn load(config: &Config, program: &mut Program) {
    let mut state = State::fresh(config, 1, 0);
    match config.action {
        Action::Discrete(n) => state.put_bits(input::ALLOWED, &BitMask::ones(1, n)),
        Action::Continuous(d) => state.put(input::ACTIVE, &vec![1.0; d as usize]),
    }
    // Larger than fresh weights, so that every dependence shows; not so large that attention is all or nothing.
    for spec in config.parameters().iter().filter(|s| s.name.starts_with("dt.") && s.name.ends_with("weight")) {
        let values: Vec<f32> = state.get(&spec.name).expect("a parameter").iter().map(|v| v * 4.0).collect();
        state.put(spec.name.as_str(), &values);
    }
    state.load(program).expect("sizes agree");
}

fn outputs(program: &mut Program, batch: &Batch) -> Vec<f32> {
    feed(program, batch).expect("the batch fits");
    program.run().expect("a cpu runs");
    program.read_vec(output::OUTPUT).expect("an output")
}

fn losses(config: &Config, b: u32) -> Program {
    let mut program = plan_loss(config, b, |s| frozen(s, false)).and_then(|p| p.bind(&Device::cpu(1))).expect("binds");
    load(config, &mut program);
    program
}

#[test]
fn a_step_sees_nothing_later_than_its_state() {
    for (config, data) in cases() {
        let mut program = losses(&config, 1);
        let sampler = sampler(&config, &data, 1, Padding::Left);
        let mut batch = sampler.batch();
        let full = (0..).find(|&step| {
            sampler.fill(&mut batch, step);
            batch.valid.iter().all(|v| *v == 1)
        });
        assert!(full.is_some());
        let width = config.action.outputs() as usize;
        let before = outputs(&mut program, &batch);
        for step in 0..K {
            // The action of a step is first seen by the step after it; its state and return by the step itself.
            for (part, first) in [("action", step + 1), ("state", step), ("return", step), ("time", step)] {
                let mut other = batch.clone();
                match part {
                    "action" => match &mut other.actions {
                        ActionBatch::Discrete { ids, .. } => ids[step] = (ids[step] + 1) % 3,
                        ActionBatch::Continuous { values } => values[step * width] += 1.0,
                    },
                    "state" => match &mut other.obs {
                        ObsBatch::Vectors(values) => values[step * 6] += 1.0,
                        ObsBatch::Frames(bytes) => {
                            bytes[step * 3 * 36 * 36..][..36 * 36].iter_mut().for_each(|b| *b ^= 255)
                        }
                    },
                    "return" => other.rtg[step] += 1.0,
                    _ => other.timesteps[step] = (other.timesteps[step] + 1) % 9,
                }
                let after = outputs(&mut program, &other);
                let same = |row: usize| before[row * width..][..width] == after[row * width..][..width];
                assert!((0..first).all(same), "{part} of step {step} is seen too early");
                assert!((first..K).all(|row| !same(row)), "{part} of step {step} is not seen, {:?}", config.action);
            }
        }
    }
}

#[test]
fn neither_the_side_of_the_padding_nor_what_it_holds_matters() {
    for (config, data) in cases() {
        let mut program = losses(&config, 4);
        let [left, right] = [Padding::Left, Padding::Right].map(|side| sampler(&config, &data, 4, side));
        let (mut a, mut b) = (left.batch(), right.batch());
        let width = config.action.outputs() as usize;
        let mut padded = 0;
        for index in 0..left.tile_batches() {
            left.fill_tile(&mut a, index);
            right.fill_tile(&mut b, index);
            padded += a.valid.iter().filter(|v| **v == 0).count();
            let real = |batch: &Batch, out: &[f32]| -> Vec<f32> {
                let rows = out.chunks_exact(width).zip(&batch.valid).filter(|(_, v)| **v == 1);
                rows.flat_map(|(row, _)| row.to_vec()).collect()
            };
            let mut outs = |batch: &Batch| {
                let out = outputs(&mut program, batch);
                let loss = program.read_vec::<f32>(output::LOSS).expect("a loss")[0];
                (real(batch, &out), loss)
            };
            let ((x, loss_x), (y, loss_y)) = (outs(&a), outs(&b));
            assert!(x.iter().zip(&y).all(|(x, y)| (x - y).abs() <= 1e-4 * x.abs().max(1.0)) && x.len() == y.len());
            assert!((loss_x - loss_y).abs() <= 1e-4 * loss_x.abs().max(1.0), "{loss_x} {loss_y}");
            for row in (0..4 * K).filter(|&row| a.valid[row] == 0) {
                (a.rtg[row], a.timesteps[row]) = (77.0, 5);
                if let ObsBatch::Vectors(values) = &mut a.obs {
                    values[row * 6..][..6].fill(-50.0);
                }
                match &mut a.actions {
                    ActionBatch::Discrete { ids, .. } => ids[row] = 2,
                    ActionBatch::Continuous { values } => values[row * width..][..width].fill(9.0),
                }
            }
            let filled = outs(&a);
            assert_eq!((filled.0, filled.1.to_bits()), (x, loss_x.to_bits()));
        }
        assert!(padded > 0);
    }
}

/// Random masks, the same for every program of one model.
fn load_masks(config: &Config, program: &mut Program) {
    for (at, spec) in config.parameters().iter().enumerate() {
        let name = format!("{}.mask", spec.name);
        if program.has(&name) {
            let mut rng = Rng::new(4, Stream::Scores, [at as u32, 0]);
            let flags = (0..spec.len()).map(|_| rng.unit() < 0.5);
            let mask = BitMask::from_flags(spec.rows, spec.cols, flags);
            program.write(&name, mask.words()).expect("the mask's size");
        }
    }
}

#[test]
fn a_running_episode_decides_as_the_windows_it_was_trained_on() {
    for (config, data) in cases() {
        for (layers, masked, workers) in [(1, true, 1), (2, false, 1), (3, true, 2)] {
            decides_as_trained(&Config { layers, ..config }, &data, masked, workers);
        }
    }
}

/// Plays logged episodes through a decision program, and holds its outputs against those of training windows.
fn decides_as_trained(config: &Config, data: &Episodes, masked: bool, workers: usize) {
    let how = preprocess(data);
    let sampler = sampler(config, data, 1, Padding::Left);
    let loss = plan_loss(config, 1, |s| frozen(s, masked)).and_then(|p| p.bind(&Device::cpu(1)));
    let act = plan_act(config, 2, |s| frozen(s, masked)).and_then(|p| p.bind(&Device::cpu(workers)));
    let (mut trained, mut program) = (loss.expect("binds"), act.expect("binds"));
    for program in [&mut trained, &mut program] {
        load(config, program);
        load_masks(config, program);
    }
    let width = config.action.outputs() as usize;
    let mut history = History::new(config, 2);
    let mut window = sampler.batch();
    let (mut index, mut compared) = (0, 0);
    for episode in 0..data.count() {
        let rows = data.rows_of(episode);
        // What the episode before left behind must not be seen.
        history.clear(1);
        let mut decided: Vec<Vec<f32>> = Vec::new();
        let mut to_go = data.returns_to_go()[rows.start];
        for (step, row) in rows.clone().enumerate() {
            let obs = data.observations().row(row);
            history.observe(1, &how, &obs, to_go, step as u32);
            feed_newest(&mut program, &history).expect("two slots");
            program.run().expect("a cpu runs");
            let both: Vec<f32> = program.read_vec(output::OUTPUT).expect("an output");
            decided.push(both[width..].to_vec());
            match data.actions() {
                Actions::Discrete { ids, .. } => history.act_discrete(1, ids[row]),
                Actions::Continuous { dim, values } => history.act_continuous(1, &values[row * dim..][..*dim]),
            }
            to_go -= data.rewards()[row];
            // The list of windows that covers the data ends with this step, and nothing came before its first.
            if step % K == K - 1 || row + 1 == rows.end {
                sampler.fill_tile(&mut window, index);
                index += 1;
                if step % K == K - 1 || step < K {
                    let all = outputs(&mut trained, &window);
                    // A window of an episode's first steps is what its steps saw; of a later one, only the last's.
                    for at in (0..K).filter(|at| window.valid[*at] == 1 && (step < K || at + 1 == K)) {
                        let (want, got) = (&all[at * width..][..width], &decided[step + 1 + at - K]);
                        let most = all.iter().fold(0.0f32, |most, x| most.max(x.abs()));
                        assert!(most > 0.0);
                        let close = want.iter().zip(got).all(|(a, b)| (a - b).abs() <= 1e-5 * most);
                        assert!(close, "episode {episode} step {step} position {at}: {want:?} {got:?}");
                        compared += 1;
                    }
                }
            }
        }
    }
    // Lengths 1, 3, 5, 10, 15, 12: every step of the first windows, and the last of 1 + 2 + 1 later ones.
    assert_eq!((index, compared), (sampler.tile_batches(), 1 + 3 + 5 * 4 + 4));
}

/// An environment of any shape that ends at once.
struct Shaped(ObsShape, ActionSpace);

impl Env for Shaped {
    fn obs_shape(&self) -> ObsShape {
        self.0
    }

    fn action_space(&self) -> ActionSpace {
        self.1
    }

    fn step_limit(&self) -> u32 {
        1
    }

    fn reset(&mut self, _: u64, obs: &mut [f32]) -> Result<(), dt::Error> {
        obs.fill(1.0);
        Ok(())
    }

    fn step(&mut self, _: Move<'_>, _: &mut [f32]) -> Result<Step, dt::Error> {
        Ok(Step { reward: 1.0, terminated: true, truncated: false, success: None, lives: None })
    }
}

#[test]
fn environments_that_do_not_fit_are_errors() {
    let (config, data) = cases().swap_remove(0);
    let act = plan_act(&config, 2, |s| frozen(s, false)).and_then(|p| p.bind(&Device::cpu(1)));
    let mut program = act.expect("binds");
    load(&config, &mut program);
    let own = preprocess(&data);
    let vector = |dim| ObsShape::Vector { dim };
    let mut play = |shapes: [ObsShape; 2], spaces: [ActionSpace; 2], preprocess: &Preprocess| {
        let envs = vec![Shaped(shapes[0], spaces[0]), Shaped(shapes[1], spaces[1])];
        let goal = Goal { target: 1.0, preprocess: preprocess.clone(), clip_rewards: false, fire: None };
        Native::new(envs).and_then(|mut envs| rollout(&mut program, &config, &mut envs, &[1, 2, 3], &goal)).is_ok()
    };
    let two = [ActionSpace::Discrete(2); 2];
    let plain = Preprocess { moments: None, layout: None, ..own.clone() };
    assert!(play([vector(3); 2], two, &own) && play([vector(6); 2], two, &plain) && play([vector(2); 2], two, &plain));
    assert!(!play([vector(7); 2], two, &plain) && !play([vector(4); 2], two, &own));
    assert!(!play([vector(3), vector(4)], two, &plain));
    assert!(!play([ObsShape::Frame { height: 1, width: 3 }; 2], two, &plain));
    assert!(!play([vector(3); 2], [ActionSpace::Discrete(2), ActionSpace::Discrete(5)], &own));
    assert!(!play([vector(3); 2], [ActionSpace::Discrete(0); 2], &own));
    let far = Layout { width: 9, places: vec![0, 1, 8] };
    assert!(!play([vector(3); 2], two, &Preprocess { layout: Some(far), ..own.clone() }));
    let short = Moments { mean: vec![0.0; 3], std: vec![1.0; 2] };
    assert!(!play([vector(3); 2], two, &Preprocess { moments: Some(short), ..own.clone() }));
    assert!(!play([vector(3); 2], two, &Preprocess { max_ep_len: 0, ..own }));
}
