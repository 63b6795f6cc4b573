//! The Python that runs simulators, and what becomes of a task whose simulator is missing.

use crate::files::note;
use anyhow::bail;
use dt_io::TaskSpec;
use dt_io::bridge::{Bridge, Simulator};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tsn::Task;
use tsn::dt::Error;
use tsn::dt::data::episodes::Actions;
use tsn::dt::env::remap::Remapped;
use tsn::dt::env::{ActionSpace, Envs, Moves, ObsShape, Step};

/// The interpreter to use: an argument, `TSN_PYTHON`, or `python3`.
pub(crate) fn interpreter(argument: Option<&Path>) -> PathBuf {
    let named = argument.map(Path::to_path_buf).or_else(|| std::env::var_os("TSN_PYTHON").map(PathBuf::from));
    named.filter(|path| !path.as_os_str().is_empty()).unwrap_or_else(|| "python3".into())
}

/// Gives a task the environment of its spec. Where the simulator is missing the task stays data only, and a line says so.
///
/// # Errors
/// If the simulator is there and refuses, or is another environment than the one behind the data.
pub(crate) fn attach(task: &mut Task, spec: &TaskSpec, python: &Path) -> anyhow::Result<()> {
    let shape = task.episodes.observations().shape();
    let mut params = spec.environment();
    if has_time(&spec.env_id, shape) {
        params.entry("time_feature").or_insert(Value::Bool(true));
    }
    let simulator = Simulator::new(python, &spec.env_id, &params);
    // Opened before anything is learned: hours later is too late for a wrong parameter.
    let envs = match simulator.open(1) {
        Ok(envs) => envs,
        Err(error) if error.is_absence() => {
            note(&format!("tsn-affinity: task \"{}\" is data only and will not be played: {error}", spec.name));
            return Ok(());
        }
        Err(error) => bail!("task \"{}\": {error}", spec.name),
    };
    if envs.obs_shape() != shape {
        let found = envs.obs_shape();
        bail!("task \"{}\": the data hold {shape:?}, but {} gives {found:?}", spec.name, spec.env_id);
    }
    let fits = match (envs.action_space(), task.episodes.actions()) {
        (ActionSpace::Discrete(n), Actions::Discrete { count, .. }) => *count <= n,
        (ActionSpace::Box(d), Actions::Continuous { dim, .. }) => *dim == d as usize,
        _ => false,
    };
    if !fits {
        let space = envs.action_space();
        bail!("task \"{}\": the data hold other actions than {}, which takes {space:?}", spec.name, spec.env_id);
    }
    drop(envs);
    let remap = spec.actions().map_err(|kind| anyhow::anyhow!("{kind}"))?;
    let (name, space) = (
        spec.env_id.clone(),
        match task.episodes.actions() {
            Actions::Discrete { count, .. } => ActionSpace::Discrete(*count),
            Actions::Continuous { dim, .. } => ActionSpace::Box(*dim as u32),
        },
    );
    task.environment = Some(Box::new(move |slots| match simulator.open(slots) {
        Ok(envs) => {
            let envs = Box::new(Logged { envs, space }) as Box<dyn Envs>;
            Ok(match remap {
                Some(remap) => Box::new(Remapped::new(envs, remap)),
                None => envs,
            })
        }
        Err(error) => Err(Error::Environment { name: name.clone(), reason: error.to_string() }),
    }));
    Ok(())
}

/// Environments with the actions that the data hold: the last ones of a list may never have been logged.
struct Logged {
    envs: Bridge,
    space: ActionSpace,
}

impl Envs for Logged {
    fn slots(&self) -> usize {
        self.envs.slots()
    }

    fn obs_shape(&self) -> ObsShape {
        self.envs.obs_shape()
    }

    fn action_space(&self) -> ActionSpace {
        self.space
    }

    fn step_limit(&self) -> u32 {
        self.envs.step_limit()
    }

    fn fire(&self) -> Option<u32> {
        self.envs.fire()
    }

    fn reset(&mut self, slots: &[usize], seeds: &[u64], obs: &mut [f32]) -> Result<(), Error> {
        self.envs.reset(slots, seeds, obs)
    }

    fn step(&mut self, slots: &[usize], moves: Moves<'_>, obs: &mut [f32], steps: &mut [Step]) -> Result<(), Error> {
        self.envs.step(slots, moves, obs, steps)
    }
}

/// Observations of a Panda task end in the share of time left, as those of the published data do.
pub(crate) fn has_time(env_id: &str, shape: ObsShape) -> bool {
    match shape {
        ObsShape::Vector { dim } => tsn::suite::panda_layout(env_id, dim).is_some_and(|l| l.places.contains(&19)),
        ObsShape::Frame { .. } => false,
    }
}
