//! The tasks of a run with their data and environments, and the model that fits them.

use crate::files::note;
use crate::settings::{DataSource, Settings, TaskEntry};
use crate::simulators::attach;
use crate::stoppable::stoppable;
use anyhow::{Context, Result, bail};
use dt_io::{Expect, Footprint, TaskSpec, find_dataset, load_any, load_spec, load_streamed, measure};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tsn::dt::config::Config;
use tsn::dt::data::episodes::{Actions, Episodes, Piece, Rewards};
use tsn::dt::env::{ActionSpace, ObsShape};
use tsn::sha256::Sha256;
use tsn::suite::{Suite, cartpole_task, config_for, panda_layout};
use tsn::{Profile, Task};

/// How much memory data may take.
#[derive(Clone, Debug)]
pub(crate) struct Cap {
    /// Bytes, over all tasks.
    pub bytes: u64,
    /// Observations that stay on disk but have to be unpacked go to files whose names begin so.
    pub beside: PathBuf,
}

/// Tasks, ready to be learned.
pub(crate) struct Problem {
    /// Name of the list.
    pub suite: String,
    /// Where the data come from.
    pub data: DataSource,
    /// What a record keeps of each task.
    pub entries: Vec<TaskEntry>,
    /// The tasks.
    pub tasks: Vec<Task>,
    /// The model for all of them.
    pub config: Config,
    /// Once this is set, no environment of the tasks goes on.
    pub stop: Arc<AtomicBool>,
}

impl Problem {
    /// A built-in suite with generated data.
    pub(crate) fn generated(suite: Suite, profile: Profile, seed: u64, episodes: usize) -> Result<Problem> {
        let tasks = suite.generate(Settings::derived(profile), seed, episodes)?;
        let specs = specs_of(suite);
        let data = DataSource { source: "generated".into(), episodes: Some(episodes), seed: Some(seed) };
        Problem::new(suite.name().to_owned(), data, specs, tasks, profile)
    }

    /// Tasks of a spec file with their datasets in a folder. Without a Python with simulators none has an environment but CartPole.
    pub(crate) fn from_files(
        spec: &Path,
        folder: &Path,
        profile: Profile,
        cap: Option<&Cap>,
        python: Option<&Path>,
    ) -> Result<Problem> {
        let suite = spec.file_stem().map_or_else(|| "tasks".into(), |s| s.to_string_lossy().into_owned());
        Problem::from_specs(suite, load_spec(spec)?, folder, profile, cap, python)
    }

    /// The problem of a finished or interrupted run.
    ///
    /// # Errors
    /// If the data are not those the settings were written for.
    pub(crate) fn again(
        settings: &Settings,
        folder: Option<&Path>,
        cap: Option<&Cap>,
        python: Option<&Path>,
    ) -> Result<Problem> {
        let profile = settings.options()?.profile;
        let problem = match (settings.data.episodes, settings.data.seed) {
            (Some(_), Some(_)) if cap.is_some() => {
                bail!("--mem is for data in files; those of suite {} are generated", settings.suite)
            }
            (Some(episodes), Some(seed)) => {
                Problem::generated(Suite::parse(&settings.suite)?, profile, seed, episodes)?
            }
            _ => {
                let Some(folder) = folder else {
                    bail!("the data of suite {} lie in files: say where with --data DIR", settings.suite)
                };
                let spec = |t: &TaskEntry| TaskSpec {
                    name: t.name.clone(),
                    env_id: t.env_id.clone(),
                    seed: t.seed,
                    params: t.params.clone(),
                };
                let specs = settings.tasks.iter().map(spec).collect();
                Problem::from_specs(settings.suite.clone(), specs, folder, profile, cap, python)?
            }
        };
        for (old, new) in settings.tasks.iter().zip(&problem.entries) {
            if old != new {
                bail!(
                    "task \"{}\": the data changed since the run began: SHA-256 {}, was {}; start a new run",
                    old.name,
                    &new.data_sha256[..12],
                    old.data_sha256.get(..12).unwrap_or("unknown")
                );
            }
        }
        Ok(problem)
    }

    /// Tasks with their datasets in a folder.
    pub(crate) fn from_specs(
        suite: String,
        specs: Vec<TaskSpec>,
        folder: &Path,
        profile: Profile,
        cap: Option<&Cap>,
        python: Option<&Path>,
    ) -> Result<Problem> {
        let sources = place(&specs, folder, cap)?;
        let tasks: Result<Vec<Task>> =
            specs.iter().zip(&sources).map(|(spec, source)| read_task(spec, source, profile, python)).collect();
        let data = DataSource { source: "files".into(), episodes: None, seed: None };
        Problem::new(suite, data, specs, tasks?, profile)
    }

    fn new(
        suite: String,
        data: DataSource,
        specs: Vec<TaskSpec>,
        mut tasks: Vec<Task>,
        profile: Profile,
    ) -> Result<Problem> {
        let config = config_for(&mut tasks, profile)?;
        let stop = Arc::default();
        for task in &mut tasks {
            task.environment = task.environment.take().map(|maker| stoppable(maker, &stop));
        }
        let entry = |(spec, task): (TaskSpec, &Task)| {
            let TaskSpec { name, env_id, seed, params } = spec;
            let data_sha256 = hash(&task.episodes)?;
            Ok(TaskEntry { name, env_id, seed, params, data_sha256 })
        };
        let entries = specs.into_iter().zip(&tasks).map(entry).collect::<Result<_>>()?;
        Ok(Problem { suite, data, entries, tasks, config, stop })
    }
}

/// The spec that a suite's generated data would be read with.
pub(crate) fn specs_of(suite: Suite) -> Vec<TaskSpec> {
    let spec = |v: tsn::dt::env::cartpole::Variant| TaskSpec {
        name: v.name.to_owned(),
        env_id: "CartPole-v1".to_owned(),
        seed: v.seed,
        params: v.changes.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect(),
    };
    suite.variants().into_iter().map(spec).collect()
}

/// A task's dataset, and the file its observations are unpacked to if they stay on disk.
struct Source {
    path: PathBuf,
    cache: Option<PathBuf>,
}

/// Finds the datasets of all tasks and decides by their headers which observations stay on disk: in the order of the
/// tasks, those that do not fit into what is left of the cap.
fn place(specs: &[TaskSpec], folder: &Path, cap: Option<&Cap>) -> Result<Vec<Source>> {
    let mut sources = Vec::with_capacity(specs.len());
    for spec in specs {
        sources.push(Source { path: find_dataset(spec, folder)?, cache: None });
    }
    let Some(cap) = cap else { return Ok(sources) };
    let footprints = sources.iter().map(|s| Ok(measure(&s.path)?)).collect::<Result<Vec<Footprint>>>()?;
    let other = footprints.iter().map(|f| f.other_bytes).fold(0, u64::saturating_add);
    let all = footprints.iter().map(|f| f.observation_bytes).fold(other, u64::saturating_add);
    let Some(mut left) = cap.bytes.checked_sub(other) else {
        bail!("--mem {}: actions and rewards alone take {other} bytes; only observations stay on disk", cap.bytes)
    };
    let mut stay = Vec::new();
    for ((source, footprint), spec) in sources.iter_mut().zip(&footprints).zip(specs) {
        match left.checked_sub(footprint.observation_bytes) {
            Some(rest) => left = rest,
            None => {
                let mut name = cap.beside.as_os_str().to_owned();
                name.push(format!(".{}.observations", spec.name));
                source.cache = Some(name.into());
                stay.push(spec.name.as_str());
            }
        }
    }
    let how = if stay.is_empty() { "all fit".to_owned() } else { format!("on disk: {}", stay.join(", ")) };
    note(&format!("data take {all} bytes in memory, {other} of them besides observations; cap {}: {how}", cap.bytes));
    Ok(sources)
}

fn read_task(spec: &TaskSpec, source: &Source, profile: Profile, python: Option<&Path>) -> Result<Task> {
    let load = |expect: Expect| -> Result<Episodes> {
        match &source.cache {
            None => Ok(load_any(&source.path, &expect)?),
            Some(cache) => {
                let folder = cache.parent().filter(|folder| !folder.as_os_str().is_empty());
                folder.map_or(Ok(()), crate::files::make_dir)?;
                Ok(load_streamed(&source.path, &expect, cache)?)
            }
        }
    };
    if spec.env_id == "CartPole-v1" {
        let params = spec.cartpole(Settings::derived(profile)).map_err(|kind| anyhow::anyhow!("{kind}"))?;
        let observations = Some(ObsShape::Vector { dim: 4 });
        let actions = Some(ActionSpace::Discrete(2));
        let episodes = load(Expect { observations, actions, ..Expect::default() })?;
        return Ok(cartpole_task(&spec.name, spec.seed, episodes, params)?);
    }
    let atari = spec.env_id.starts_with("ALE/");
    let rewards = if atari { Rewards::Sign } else { Rewards::AsStored };
    let mut episodes = load(Expect { rewards, ..Expect::default() })?;
    if let Some(remap) = spec.actions().map_err(|kind| anyhow::anyhow!("{kind}"))? {
        episodes = remap.episodes(episodes).with_context(|| format!("task \"{}\": params actions", spec.name))?;
    }
    let shape = episodes.observations().shape();
    let mut task = Task::new(spec.name.clone(), spec.seed, episodes).with_context(|| spec.name.clone())?;
    task.clip_rewards = atari;
    if let (Profile::Corrected, ObsShape::Vector { dim }) = (profile, shape) {
        task.layout = panda_layout(&spec.env_id, dim);
    }
    python.map_or(Ok(()), |python| attach(&mut task, spec, python))?;
    Ok(task)
}

/// SHA-256 of trajectories: sizes, lengths and all values, little endian.
fn hash(episodes: &Episodes) -> Result<String> {
    let mut hash = Sha256::new();
    let mut number = |n: usize| hash.update(&(n as u64).to_le_bytes());
    number(episodes.rows());
    number(episodes.count());
    (0..episodes.count()).for_each(|e| number(episodes.rows_of(e).len()));
    match episodes.observations().shape() {
        ObsShape::Vector { dim } => hash.update(&(dim as u64).to_le_bytes()),
        ObsShape::Frame { height, width } => {
            hash.update(&(height as u64).to_le_bytes());
            hash.update(&(width as u64).to_le_bytes());
        }
    }
    episodes.observations().visit(|piece| match piece {
        Piece::Values(values) => put_floats(&mut hash, values),
        Piece::Pixels(bytes) => hash.update(bytes),
    })?;
    match episodes.actions() {
        Actions::Discrete { count, ids } => {
            hash.update(&count.to_le_bytes());
            ids.iter().for_each(|id| hash.update(&id.to_le_bytes()));
        }
        Actions::Continuous { dim, values } => {
            hash.update(&(*dim as u64).to_le_bytes());
            put_floats(&mut hash, values);
        }
    }
    put_floats(&mut hash, episodes.rewards());
    Ok(hash.finish_hex())
}

fn put_floats(hash: &mut Sha256, values: &[f32]) {
    values.iter().for_each(|value| hash.update(&value.to_le_bytes()));
}

/// Loss on held-out steps of a guess that knows the training actions but no state: their mean, or their frequencies.
///
/// Discrete: cross-entropy in nats under the training frequencies, one count added to each action. Continuous: squared
/// error of the training mean, averaged over dimensions.
pub(crate) fn constant_loss(task: &Task) -> f64 {
    let rows = |list: &[usize]| list.iter().flat_map(|e| task.episodes.rows_of(*e)).collect::<Vec<usize>>();
    let (train, held_out) = (rows(&task.split.train), rows(&task.split.held_out));
    match task.episodes.actions() {
        Actions::Discrete { count, ids } => {
            let mut counts = vec![1.0f64; *count as usize];
            train.iter().for_each(|row| counts[ids[*row] as usize] += 1.0);
            let total: f64 = counts.iter().sum();
            let nats = held_out.iter().map(|row| -(counts[ids[*row] as usize] / total).ln());
            nats.sum::<f64>() / held_out.len().max(1) as f64
        }
        Actions::Continuous { dim, values } => {
            let value = |row: usize, d: usize| f64::from(values[row * dim + d]);
            let error = |d: usize| {
                let mean = train.iter().map(|row| value(*row, d)).sum::<f64>() / train.len().max(1) as f64;
                held_out.iter().map(|row| (value(*row, d) - mean).powi(2)).sum::<f64>() / held_out.len().max(1) as f64
            };
            (0..*dim).map(error).sum::<f64>() / (*dim).max(1) as f64
        }
    }
}
