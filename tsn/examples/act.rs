//! Opens a bank and acts once, cold, then many times at full context, on one core.
//!
//! ```text
//! cargo run --release -p tsn --example act -- BANK [task] [threads] [decisions]
//! cargo run --release -p tsn --example act -- BANK make [cartpole|panda|atari] [keep] [tasks]
//! ```
//!
//! The bank is one that the program saved (`bank.tsn` of a run), or one of untrained weights made by the second line.
#![expect(clippy::print_stdout, reason = "a tool for the terminal")]

use dt::autograd::engine::kernels::BitMask;
use dt::autograd::engine::kernels::philox::{Rng, Stream};
use dt::autograd::engine::{Device, Program};
use dt::config::{Action, Config, Observation, Role};
use dt::data::episodes::Moments;
use dt::decision::{feed_newest, plan_act};
use dt::history::{History, Preprocess};
use dt::train::output;
use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::time::Instant;
use tsn::bank::{ActionKind, CopyRecord, Named, TaskRecord, Weight};
use tsn::fit::frozen;
use tsn::state::State;
use tsn::{Bank, dt};

fn main() -> Result<(), Box<dyn Error>> {
    let begin = Instant::now();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let arg = |at: usize, default: &'static str| args.get(at).map_or(default, String::as_str);
    let path = Path::new(args.first().ok_or("the path of a bank is missing")?);
    if arg(1, "0") == "make" {
        return make(path, arg(2, "cartpole"), arg(3, "0.5").parse()?, arg(4, "4").parse()?);
    }
    let (task, threads): (usize, usize) = (arg(1, "0").parse()?, arg(2, "1").parse()?);
    let decisions: u32 = arg(3, "2000").parse()?;

    let mut times = vec![("start", begin)];
    let bank = Bank::open(path)?;
    times.push(("open bank", Instant::now()));
    let config = bank.model()?;
    let record = bank.tasks.get(task).ok_or("there is no such task")?;
    let masked = !record.masks.is_empty();
    let mut program = plan_act(&config, 1, |spec| frozen(spec, masked))?.bind(&Device::cpu(threads))?;
    times.push(("build", Instant::now()));
    let mut state = State::of_task(&bank, record);
    state.put_time(&config);
    state.load(&mut program)?;
    times.push(("load task", Instant::now()));
    let mut actor = Actor::new(config, record, program);
    actor.act(0)?;
    times.push(("first decision", Instant::now()));

    for pair in times.windows(2) {
        println!("{:<16}{:9.3} ms", pair[1].0, (pair[1].1 - pair[0].1).as_secs_f64() * 1e3);
    }
    println!("{:<16}{:9.3} ms", "start to action", (times[times.len() - 1].1 - begin).as_secs_f64() * 1e3);
    if decisions == 0 {
        return Ok(());
    }
    (1..config.context).try_for_each(|step| actor.act(step))?;
    let mut spent = Vec::new();
    for step in 0..decisions {
        let begin = Instant::now();
        actor.act(config.context + step)?;
        spent.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    spent.sort_by(f64::total_cmp);
    println!("{:<16}{:9.3} ms, least {:.3} ms", "decision, median", spent[spent.len() / 2], spent[0]);
    Ok(())
}

/// One episode of one task.
struct Actor {
    program: Program,
    history: History,
    how: Preprocess,
    obs: Vec<f32>,
    output: Vec<f32>,
}

impl Actor {
    fn new(config: Config, record: &TaskRecord, program: Program) -> Actor {
        let values = match config.observation {
            Observation::Vector(n) => n,
            Observation::Image { height, width, .. } => height * width,
        };
        let moments = (!record.obs_mean.is_empty())
            .then(|| Moments { mean: record.obs_mean.clone(), std: record.obs_std.clone() });
        let rtg_scale = record.rtg_scale as f32;
        Actor {
            program,
            history: History::new(&config, 1),
            how: Preprocess { moments, layout: None, rtg_scale, max_ep_len: config.max_ep_len },
            obs: vec![0.5; values as usize],
            output: vec![0.0; config.action.outputs() as usize],
        }
    }

    /// Observation in, action out: everything of a step but the environment.
    fn act(&mut self, step: u32) -> Result<(), Box<dyn Error>> {
        self.history.observe(0, &self.how, &self.obs, 1.0, step);
        feed_newest(&mut self.program, &self.history)?;
        self.program.run()?;
        self.program.read(output::OUTPUT, &mut self.output)?;
        self.history.act_discrete(0, dt::rollout::argmax(&self.output));
        self.history.act_continuous(0, &self.output);
        Ok(())
    }
}

/// Saves untrained weights with random masks.
fn make(path: &Path, model: &str, keep: f64, tasks: u32) -> Result<(), Box<dyn Error>> {
    let config = match model {
        "cartpole" => Config::new(Observation::Vector(4), Action::Discrete(2)),
        "panda" => Config { heads: 1, ..Config::new(Observation::Vector(25), Action::Continuous(4)) },
        "atari" => Config::new(Observation::Image { channels: 4, height: 84, width: 84 }, Action::Discrete(18)),
        other => return Err(format!("there is no model {other:?}").into()),
    };
    let (observation, action, outputs) = match (config.observation, config.action) {
        (Observation::Vector(n), action) => (format!("[{n}]"), action, action.outputs()),
        (Observation::Image { channels, height, width }, action) => {
            (format!("[{channels},{height},{width}]"), action, action.outputs())
        }
    };
    let discrete = matches!(action, Action::Discrete(_));
    let settings = [
        ("observation", observation),
        ("action", if discrete { "\"discrete\"" } else { "\"continuous\"" }.to_owned()),
        ("action_width", outputs.to_string()),
        ("width", config.width.to_string()),
        ("layers", config.layers.to_string()),
        ("heads", config.heads.to_string()),
        ("context", config.context.to_string()),
        ("max_ep_len", config.max_ep_len.to_string()),
        ("time", "\"sinusoidal\"".to_owned()),
    ];
    let fresh = State::fresh(&config, 1, 0);
    let (mut weights, mut norms) = (Vec::new(), Vec::new());
    for spec in config.parameters() {
        let values = fresh.get(&spec.name).ok_or("a fresh state has every parameter")?;
        match spec.role {
            Role::Maskable => {
                let occupied = Some(BitMask::zeros(spec.rows, spec.cols));
                weights.push(Weight { name: spec.name, rows: spec.rows, cols: spec.cols, values, occupied });
            }
            _ => norms.push(Named::vector(spec.name, values)),
        }
    }
    let mut bank = Bank {
        config: settings.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        copies: vec![CopyRecord { weights }],
        ..Bank::default()
    };
    for t in 0..tasks {
        let mut rng = Rng::new(1, Stream::Scores, [t, 0]);
        let (mut masks, mut claimed) = (Vec::new(), 0);
        for weight in &mut bank.copies[0].weights {
            let occupied = weight.occupied.get_or_insert_with(|| BitMask::zeros(weight.rows, weight.cols));
            let before = occupied.count();
            let mask = BitMask::from_flags(weight.rows, weight.cols, weight.values.iter().map(|_| rng.unit() < keep));
            *occupied = occupied.or(&mask);
            claimed += (occupied.count() - before) as u64;
            masks.push(mask);
        }
        bank.tasks.push(TaskRecord {
            name: format!("task {t}"),
            copy: 0,
            source: None,
            masks,
            norms: norms.clone(),
            obs_mean: Vec::new(),
            obs_std: Vec::new(),
            rtg_scale: 100.0,
            target_return: 100.0,
            action: match discrete {
                true => ActionKind::Discrete { n: outputs, valid: (0..outputs).collect() },
                false => ActionKind::Continuous { d: outputs, active: (0..outputs).collect() },
            },
            keep_ratio: keep,
            latent_mean: Vec::new(),
            latent_var: Vec::new(),
            extra: Vec::new(),
            own_loss: 0.0,
            claimed,
            codebooks: Vec::new(),
            online: None,
            notes: BTreeMap::new(),
        });
    }
    let hash = bank.save(path)?;
    println!("{} of {model}, {tasks} tasks at keep {keep}: {hash}", path.display());
    Ok(())
}
