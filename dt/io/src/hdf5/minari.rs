//! Minari: one group per episode with T + 1 observations and T actions, rewards, terminations and truncations.
//!
//! The last observation belongs to no action and is dropped. A group of observations is flattened in the order
//! observation, achieved_goal, desired_goal if these are its keys, else by name. Episodes follow their numbers.
//!
//! Source: Farama-Foundation/Minari, minari/data_collector and minari/dataset/_storages/hdf5_storage.py.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use dt::env::ActionSpace;
use hdf5_pure::{Dataset, Group};
use serde_json::Value;

use super::array::{Array, Element, broken};
use super::build::{Building, Fault};
use crate::error::Kind;
use crate::npz::Expect;
use crate::parts::Parts;
use crate::store::Place;

const GOAL_KEYS: [&str; 3] = ["observation", "achieved_goal", "desired_goal"];
/// Bytes of metadata.json; spaces of images have a few kB.
const MOST_METADATA: u64 = 16 << 20;

/// What `metadata.json` beside the file says, as far as it is needed.
#[derive(Default)]
pub(crate) struct Metadata {
    episodes: Option<u64>,
    steps: Option<u64>,
    actions: Option<ActionSpace>,
}

impl Metadata {
    /// Reads the file beside `main_data.hdf5`, if there is one.
    pub(crate) fn beside(path: &Path) -> Result<Metadata, Fault> {
        let fault = |kind| ("metadata.json".to_owned(), kind);
        let file = match File::open(path.with_file_name("metadata.json")) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Metadata::default()),
            Err(error) => return Err(fault(Kind::Io(error))),
        };
        let mut bytes = Vec::new();
        file.take(MOST_METADATA + 1).read_to_end(&mut bytes).map_err(|error| fault(Kind::Io(error)))?;
        if bytes.len() as u64 > MOST_METADATA {
            let claimed = bytes.len() as u64;
            return Err(fault(Kind::TooLarge { what: "bytes of metadata", claimed, limit: MOST_METADATA }));
        }
        Metadata::parse(&bytes).map_err(|text| fault(Kind::Spec(text)))
    }

    fn parse(bytes: &[u8]) -> Result<Metadata, String> {
        let value: Value = serde_json::from_slice(bytes).map_err(|error| format!("no JSON: {error}"))?;
        let number = |key: &str| match value.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(n) => n.as_u64().map(Some).ok_or_else(|| format!("{key}: expected a number, found {n}")),
        };
        let (episodes, steps) = (number("total_episodes")?, number("total_steps")?);
        // A space is JSON in a string.
        let space = match value.get("action_space") {
            Some(Value::String(text)) => {
                serde_json::from_str(text).map_err(|e| format!("action_space: no JSON: {e}"))?
            }
            _ => Value::Null,
        };
        let actions = match space.get("type").and_then(Value::as_str) {
            Some("Discrete") => {
                let start = space.get("start").and_then(Value::as_i64).unwrap_or(0);
                if start != 0 {
                    return Err(format!("action_space: expected actions from 0 on, found a start of {start}"));
                }
                let n = space.get("n").and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok()).filter(|&n| n > 0);
                Some(ActionSpace::Discrete(n.ok_or("action_space: expected a number n of actions")?))
            }
            Some("Box") | None => None,
            Some(other) => return Err(format!("action_space: expected Discrete or Box, found {other}")),
        };
        Ok(Metadata { episodes, steps, actions })
    }
}

/// Groups of episodes by number; empty if it is no Minari file.
pub(crate) fn episodes(root: &Group) -> Result<Vec<(u64, Group)>, Kind> {
    let mut episodes = Vec::new();
    for (name, group) in root.iter_groups().map_err(broken)? {
        if let Some(number) = name.strip_prefix("episode_").and_then(|digits| digits.parse().ok()) {
            episodes.push((number, group));
        }
    }
    episodes.sort_unstable_by_key(|(number, _)| *number);
    match episodes.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => Err(Kind::Spec(format!("episode {} is there twice", pair[0].0))),
        None => Ok(episodes),
    }
}

/// The arrays of one episode.
pub(crate) struct Episode {
    pub(crate) observations: Vec<Array>,
    pub(crate) actions: Array,
    pub(crate) rewards: Array,
    ends: Vec<Array>,
}

impl Episode {
    /// Opens an episode and checks its lengths.
    pub(crate) fn open(number: u64, group: &Group, length: u64) -> Result<Episode, Fault> {
        let at = |key: &str| format!("episode_{number}/{key}");
        let mut arrays: Vec<(String, Dataset)> =
            group.iter_datasets().map_err(|error| (at(""), broken(error)))?.collect();
        let mut take = |key: &str| match arrays.iter().position(|(name, _)| name == key) {
            Some(place) => Array::new(at(key), arrays.swap_remove(place).1, length),
            None => Err((at(key), Kind::Missing { found: arrays.iter().map(|(name, _)| name.clone()).collect() })),
        };
        let [actions, rewards] = [take("actions")?, take("rewards")?];
        let ends = vec![take("terminations")?, take("truncations")?];
        let observations = match take("observations") {
            Ok(array) => vec![array],
            Err((name, missing @ Kind::Missing { .. })) => match group.group("observations") {
                Ok(keys) => joined(&at("observations"), &keys, length)?,
                Err(_) => return Err((name, missing)),
            },
            Err(fault) => return Err(fault),
        };
        let steps = rewards.rows();
        let expected = |n: u64| format!("{n} rows: {steps} rewards, and one observation more");
        for (arrays, rows) in [(&observations, steps.saturating_add(1)), (&ends, steps)] {
            if let Some(array) = arrays.iter().find(|array| array.shape.is_empty() || array.rows() != rows) {
                return Err((array.name.clone(), array.wrong_shape(expected(rows))));
            }
        }
        if let Some(array) = ends.iter().find(|array| array.width() != 1 || array.element == Element::Float) {
            return Err((array.name.clone(), array.wrong_dtype("one boolean a row")));
        }
        if actions.shape.is_empty() || actions.rows() != steps {
            return Err((actions.name.clone(), actions.wrong_shape(expected(steps))));
        }
        if steps == 0 {
            return Err((at("rewards"), Kind::Spec("expected at least one step, found none".into())));
        }
        Ok(Episode { observations, actions, rewards, ends })
    }

    pub(crate) fn steps(&self) -> u64 {
        self.rewards.rows()
    }
}

/// Observations that are a group of arrays.
fn joined(name: &str, group: &Group, length: u64) -> Result<Vec<Array>, Fault> {
    let fail = |error| (name.to_owned(), broken(error));
    let mut arrays: Vec<(String, Dataset)> = group.iter_datasets().map_err(fail)?.collect();
    let nested: Vec<String> = group.iter_groups().map_err(fail)?.map(|(name, _)| name).collect();
    if let Some(inner) = nested.first() {
        let text = format!("expected an array for each key, found a group {inner}: flatten the space when recording");
        return Err((name.to_owned(), Kind::Spec(text)));
    }
    if arrays.is_empty() {
        return Err((name.to_owned(), Kind::Missing { found: Vec::new() }));
    }
    arrays.sort_by(|a, b| a.0.cmp(&b.0));
    if arrays.len() == GOAL_KEYS.len() && arrays.iter().all(|(key, _)| GOAL_KEYS.contains(&key.as_str())) {
        arrays.sort_by_key(|(key, _)| GOAL_KEYS.iter().position(|goal| goal == key));
    }
    arrays.into_iter().map(|(key, dataset)| Array::new(format!("{name}/{key}"), dataset, length)).collect()
}

/// Reads all episodes.
pub(crate) fn read(
    episodes: &[(u64, Group)],
    length: u64,
    metadata: &Metadata,
    expect: &Expect,
    place: Place<'_>,
) -> Result<Parts, Fault> {
    let expect = Expect { actions: expect.actions.or(metadata.actions), ..*expect };
    let mut building: Option<Building> = None;
    let mut rows = 0u64;
    for (number, group) in episodes {
        let episode = Episode::open(*number, group, length)?;
        let to = match &mut building {
            Some(building) => building,
            none => none.insert(Building::new(&episode.observations, &episode.actions, &expect, place)?),
        };
        let steps = episode.steps();
        let fail = |kind| (episode.rewards.name.clone(), kind);
        to.actions(&episode.actions)?;
        to.rewards(&episode.rewards)?;
        to.ends(&episode.ends)?;
        to.observations(&episode.observations, 0..steps)?;
        let too_long = Kind::TooLarge { what: "steps of an episode", claimed: steps, limit: u64::from(u32::MAX) };
        to.lengths.push(u32::try_from(steps).map_err(|_| fail(too_long))?);
        rows += steps;
    }
    let none = || ("episode_0".to_owned(), Kind::Missing { found: Vec::new() });
    let building = building.ok_or_else(none)?;
    for (key, said, found) in
        [("total_episodes", metadata.episodes, episodes.len() as u64), ("total_steps", metadata.steps, rows)]
    {
        if let Some(said) = said.filter(|&said| said != found) {
            let text = format!("{key} is {said}, but the file has {found}");
            return Err(("metadata.json".to_owned(), Kind::Spec(text)));
        }
    }
    building.finish(rows as usize, Vec::new()).map_err(|kind| ("observations".to_owned(), kind))
}
