//! A task that a bank's run did not have: read by itself, and named in the bank so that it can be read again.

use crate::problem::{Cap, Problem};
use anyhow::{Context, Result, bail};
use dt_io::{TaskSpec, find_dataset};
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
    data_sha256: String,
}

impl Unseen {
    /// The task of a spec with its dataset in a folder, and what its note says.
    ///
    /// # Errors
    /// As [`Unseen::read`].
    pub(crate) fn open(
        spec: &TaskSpec,
        data: PathBuf,
        observation: Observation,
        profile: Profile,
        python: Option<&Path>,
    ) -> Result<(Task, Unseen)> {
        let (task, data_sha256) = task(spec, &data, observation, profile, None, python)?;
        let TaskSpec { name, env_id, seed, params } = spec.clone();
        Ok((task, Unseen { name, env_id, seed, params, data, data_sha256 }))
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

    /// Name and text of its note.
    ///
    /// # Errors
    /// If the folder's name is no text.
    pub(crate) fn note(&self) -> Result<(String, String)> {
        let text = serde_json::to_string(self).with_context(|| self.data.display().to_string())?;
        Ok((NOTE.to_owned(), text))
    }

    /// The task with its data and environment; its dataset lies in `folder`, or else where it lay.
    ///
    /// # Errors
    /// If its dataset is missing, damaged or another one, or its simulator refuses.
    pub(crate) fn read(
        &self,
        folder: Option<&Path>,
        observation: Observation,
        profile: Profile,
        cap: Option<&Cap>,
        python: Option<&Path>,
    ) -> Result<Task> {
        let (name, env_id) = (self.name.clone(), self.env_id.clone());
        let spec = TaskSpec { name, env_id, seed: self.seed, params: self.params.clone() };
        let folder = folder.filter(|folder| find_dataset(&spec, folder).is_ok()).unwrap_or(&self.data);
        let (task, found) = task(&spec, folder, observation, profile, cap, python)?;
        if found != self.data_sha256 {
            bail!("task \"{}\": its data in {} changed since it was adapted to", self.name, folder.display());
        }
        Ok(task)
    }
}

/// A task by itself, its observation in the places that a bank's model has for it, and the hash of its data.
fn task(
    spec: &TaskSpec,
    folder: &Path,
    observation: Observation,
    profile: Profile,
    cap: Option<&Cap>,
    python: Option<&Path>,
) -> Result<(Task, String)> {
    let mut problem = Problem::from_specs("adapt".into(), vec![spec.clone()], folder, profile, cap, python)?;
    let (Some(mut task), Some(entry)) = (problem.tasks.pop(), problem.entries.pop()) else {
        bail!("{}: no task", folder.display())
    };
    if let (Observation::Vector(width), ObsShape::Vector { dim }) = (observation, task.episodes.observations().shape())
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
    Ok((task, entry.data_sha256))
}
