//! Making the datasets of a benchmark: CartPole by its regulator, arms and games by the controllers of `dt-io`.

use super::Negative;
use crate::args::Make;
use crate::benchmark::Benchmark;
use crate::files::{make_dir, note, print, write_json};
use crate::monitor::stop_on_signals;
use crate::problem::specs_of;
use crate::settings::{SCHEMA, Settings};
use crate::simulators::interpreter;
use anyhow::{Context as _, Result, bail};
use dt_io::bridge::packages;
use dt_io::make::{Error, Made, Maker, Recipe, Tier};
use dt_io::{Extras, TaskSpec, save_npz_with};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tsn::dt::data::episodes::Episodes;
use tsn::dt::env::expert::{Demonstrations, USUAL_MIX, generate_up_to};
use tsn::suite::Suite;

/// Steps after which an episode of a game is cut, where nothing else is said: sets of minutes, not hours.
const GAME_STEPS: usize = 400;

/// Makes the datasets, then the spec that names them.
pub(crate) fn make(args: &Make) -> Result<()> {
    let specs = match args.suite == Suite::Demo.name() {
        true => specs_of(Suite::Demo),
        false => Benchmark::open(&args.suite)?.tasks,
    };
    let spec_path = args.out.join("tasks.json");
    let files = specs.iter().map(|spec| args.out.join(&spec.name).join("trajs.npz"));
    if let Some(path) = std::iter::once(spec_path.clone()).chain(files).find(|path| path.exists()) {
        bail!("{} exists already: name another directory, or remove it", path.display());
    }
    let python = interpreter(args.python.as_deref());
    // All of them before the first set is made: an hour later is too late for a missing package.
    let sources = specs.iter().map(|spec| Source::of(spec, &python)).collect::<Result<Vec<Source>>>()?;
    let versions = match sources.iter().any(|source| matches!(source, Source::Simulator(_))) {
        true => versions(&python)?,
        false => Value::Null,
    };
    let stop = Arc::default();
    stop_on_signals(&stop)?;
    for (number, (spec, source)) in specs.iter().zip(&sources).enumerate() {
        // Each task has data of its own, also where two have the same physics.
        let seed = args.seed.wrapping_mul(1000).wrapping_add(number as u64);
        let Some(set) = source.make(spec, args, seed, &stop)? else {
            let finished = format!("{number} of {} tasks are finished", specs.len());
            return Err(Negative(format!("stopped: {finished}, and {} is not written", spec_path.display())).into());
        };
        let folder = args.out.join(&spec.name);
        make_dir(&folder)?;
        let mut meta = set.meta;
        meta.insert("schema".into(), json!(SCHEMA));
        meta.insert("program".into(), json!(env!("CARGO_PKG_VERSION")));
        meta.insert("task".into(), json!(spec.name));
        meta.insert("env_id".into(), json!(spec.env_id));
        meta.insert("params".into(), json!(spec.params));
        meta.insert("seed".into(), json!(seed));
        if matches!(source, Source::Simulator(_)) {
            meta.insert("simulators".into(), versions.clone());
        }
        write_json(&folder.join("meta.json"), &meta)?;
        let path = folder.join("trajs.npz");
        let extras = Extras { success: set.success.as_deref(), lives: set.lives.as_deref() };
        save_npz_with(&set.episodes, extras, &path)?;
        let s = set.episodes.summary();
        let best = format!("{}: {} episodes, {} rows, best return {:.2}", path.display(), s.episodes, s.rows, s.max);
        print(&format!("{best}\n{}", set.told))?;
    }
    let spec = |s: &TaskSpec| json!({"name": s.name, "env_id": s.env_id, "seed": s.seed, "params": s.params});
    // Last, so that a spec never names data that are not there.
    write_json(&spec_path, &specs.iter().map(spec).collect::<Vec<Value>>())?;
    print(&format!("{}: {} tasks\n", spec_path.display(), specs.len()))
}

/// What makes the data of a task.
enum Source {
    CartPole,
    Simulator(Box<Maker>),
}

/// A dataset, and what is told of it.
struct Set {
    episodes: Episodes,
    success: Option<Vec<bool>>,
    lives: Option<Vec<u8>>,
    meta: Map<String, Value>,
    told: String,
}

impl Source {
    fn of(spec: &TaskSpec, python: &Path) -> Result<Source> {
        if spec.env_id == "CartPole-v1" {
            return Ok(Source::CartPole);
        }
        match Maker::new(spec, python) {
            Ok(maker) => Ok(Source::Simulator(Box::new(maker))),
            Err(Error::Simulator(error)) if error.is_absence() => {
                bail!("task \"{}\": {error}; the packages are listed in dt/io/bridge/requirements.txt", spec.name)
            }
            Err(error) => bail!("task \"{}\": {error}", spec.name),
        }
    }

    /// Nothing if the user asked to stop.
    fn make(&self, spec: &TaskSpec, args: &Make, seed: u64, stop: &AtomicBool) -> Result<Option<Set>> {
        let game = spec.env_id.starts_with("ALE/");
        let cut = args.frames.or(game.then_some(GAME_STEPS)).map_or(u32::MAX, |steps| steps as u32);
        match self {
            Source::CartPole if stop.load(Ordering::Relaxed) => Ok(None),
            Source::CartPole => {
                let physics =
                    spec.cartpole(Settings::derived(args.profile)).map_err(|kind| anyhow::anyhow!("{kind}"))?;
                let Demonstrations { episodes, keep, .. } =
                    generate_up_to(cut, &physics, seed, args.episodes.unwrap_or(60), &USUAL_MIX)?;
                let mut meta = meta_of(&episodes);
                meta.insert("controller_probability_per_episode".into(), json!(keep));
                Ok(Some(Set { episodes, success: None, lives: None, meta, told: String::new() }))
            }
            Source::Simulator(maker) => {
                let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
                let workers = if args.jobs == 0 { cores } else { args.jobs };
                let episodes = args.episodes.unwrap_or(if game { 10 } else { 200 });
                let recipe = Recipe { seed, episodes, most_steps: cut, workers };
                let bar = progress(&spec.name);
                let made = maker.make(&recipe, stop, |done, all| {
                    bar.set_length(all);
                    bar.set_position(done);
                });
                bar.finish_and_clear();
                let made = made.with_context(|| format!("task \"{}\"", spec.name))?;
                Ok(made.map(|made| Set::of(made, &maker.tiers())))
            }
        }
    }
}

impl Set {
    fn of(made: Made, tiers: &[Tier]) -> Set {
        let mut meta = meta_of(&made.episodes);
        let returns = made.episodes.returns();
        let (mut by_tier, mut told) = (Map::new(), String::new());
        for tier in tiers {
            let own: Vec<usize> = (0..made.tiers.len()).filter(|e| made.tiers[*e] == *tier).collect();
            if own.is_empty() {
                continue;
            }
            let mean = |of: &dyn Fn(usize) -> f64| own.iter().map(|e| of(*e)).sum::<f64>() / own.len() as f64;
            let (score, length) = (mean(&|e| returns[e]), mean(&|e| made.episodes.rows_of(e).len() as f64));
            let success = made.success.as_ref().map(|s| mean(&|e| f64::from(u8::from(s[e]))));
            told += &format!(
                "  {:<8}{:>4} episodes, mean return {score:.2}, mean length {length:.1}",
                tier.name,
                own.len()
            );
            told += &success.map_or_else(String::new, |share| format!(", success {:.0} %", 100.0 * share));
            told += "\n";
            let (noise, random) = (tier.noise, tier.random);
            by_tier.insert(
                tier.name.into(),
                json!({"episodes": own.len(), "action_noise_std": noise, "random_action_prob": random,
                       "mean_return": score, "mean_length": length, "success": success}),
            );
        }
        meta.insert("tiers".into(), Value::Object(by_tier));
        meta.insert("tier_per_episode".into(), json!(made.tiers.iter().map(|t| t.name).collect::<Vec<_>>()));
        meta.insert("terminated".into(), json!(made.terminated));
        Set { episodes: made.episodes, success: made.success, lives: made.lives, meta, told }
    }
}

fn meta_of(episodes: &Episodes) -> Map<String, Value> {
    let s = episodes.summary();
    let returns = json!({"min": s.min, "mean": s.mean, "p90": s.p90, "max": s.max});
    let lengths: Vec<usize> = (0..episodes.count()).map(|e| episodes.rows_of(e).len()).collect();
    Map::from_iter([
        ("episodes".to_owned(), json!(s.episodes)),
        ("steps".to_owned(), json!(s.rows)),
        ("lengths".to_owned(), json!(lengths)),
        ("returns".to_owned(), returns),
        ("return_per_episode".to_owned(), json!(episodes.returns())),
    ])
}

/// Versions of the interpreter and of the packages that it has.
fn versions(python: &Path) -> Result<Value> {
    let (version, packages) = packages(python)?;
    let found = packages.into_iter().filter_map(|p| Some((p.name, json!(p.found?))));
    Ok(Value::Object(std::iter::once(("python".to_owned(), json!(version))).chain(found).collect()))
}

/// A line on stderr with the time left; where stderr is no terminal, one that says what began.
fn progress(task: &str) -> ProgressBar {
    let bar = ProgressBar::new(1);
    let style = ProgressStyle::with_template("{prefix} [{bar:24}] {percent} % of steps, {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_prefix(task.to_owned());
    if bar.is_hidden() {
        note(&format!("making {task}"));
    }
    bar
}
