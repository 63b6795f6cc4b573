//! A task that a bank's run did not have: read by itself, and named in the bank so that it can be read again.

use crate::problem::Problem;
use anyhow::{Context, Result, bail};
use dt_io::TaskSpec;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use tsn::bank::TaskRecord;
use tsn::dt::config::Observation;
use tsn::dt::data::batch::Layout;
use tsn::dt::env::ObsShape;
use tsn::{Profile, Task};

/// Name of the note in a task's record.
const NOTE: &str = "adapted.task";

/// What a list of tasks says of it, and the folder of the list's datasets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Unseen {
    name: String,
    env_id: String,
    seed: u64,
    params: Map<String, Value>,
    data: PathBuf,
}

impl Unseen {
    /// The task of a spec with its dataset in a folder.
    pub(crate) fn new(spec: &TaskSpec, data: PathBuf) -> Unseen {
        let TaskSpec { name, env_id, seed, params } = spec.clone();
        Unseen { name, env_id, seed, params, data }
    }

    /// What a record notes, if its task is one of these.
    ///
    /// # Errors
    /// If the note is damaged.
    pub(crate) fn of(record: &TaskRecord) -> Result<Option<Unseen>> {
        let read = |text: &String| {
            serde_json::from_str(text).with_context(|| format!("task \"{}\": its note {NOTE} is damaged", record.name))
        };
        record.notes.get(NOTE).map(read).transpose()
    }

    /// Notes it in a record.
    pub(crate) fn note(&self, record: &mut TaskRecord) -> Result<()> {
        record.notes.insert(NOTE.to_owned(), serde_json::to_string(self)?);
        Ok(())
    }

    /// The task with its data and environment, its observation in the places that a bank's model has for it.
    ///
    /// # Errors
    /// If its dataset is missing or damaged, or its simulator refuses.
    pub(crate) fn read(&self, observation: Observation, profile: Profile, python: &Path) -> Result<Task> {
        let (name, env_id) = (self.name.clone(), self.env_id.clone());
        let spec = TaskSpec { name, env_id, seed: self.seed, params: self.params.clone() };
        let problem = Problem::from_specs("adapt".into(), vec![spec], &self.data, profile, None, python)?;
        let Some(mut task) = problem.tasks.into_iter().next() else { bail!("{}: no task", self.data.display()) };
        if let (Observation::Vector(width), ObsShape::Vector { dim }) =
            (observation, task.episodes.observations().shape())
            && dim < width as usize
        {
            let width = width as usize;
            match &mut task.layout {
                // Alone in a list it was made no wider than itself.
                Some(layout) if layout.places.iter().all(|place| *place < width) => layout.width = width,
                Some(_) => {}
                None => task.layout = Some(Layout { width, places: (0..dim).collect() }),
            }
        }
        Ok(task)
    }
}
