//! Task specs, and the datasets of the tasks in a folder.
//!
//! A spec is a JSON list of `{"name", "env_id", "seed", "params"}`; `params` may be left out. It is read field by
//! field, so that a message can say which entry and which field. `params` describe the environment, but for two: `dataset`
//! is the path of the task's data inside the folder of all data, where they have another name than the task; `actions` gives
//! continuous actions another meaning, in the data and where the task is played.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Component, Path, PathBuf};

use dt::data::episodes::Episodes;
use dt::env::cartpole::{CartPoleParams, Derived};
use dt::env::remap::Remap;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::any::{load_any, minari_file};
use crate::error::{Error, Kind};
use crate::npz::Expect;

/// The parameter that names a dataset.
const DATASET: &str = "dataset";
/// The parameter that changes what actions mean.
const ACTIONS: &str = "actions";

/// Bytes of a spec; a thousand tasks need 200 kB.
const MOST_SPEC: u64 = 16 << 20;
const FIELDS: &str = "name, env_id, seed, params";

/// One task of a benchmark, as its author describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskSpec {
    /// Name: the dataset's folder, and the row in reports.
    pub name: String,
    /// Environment, for example `CartPole-v1`.
    pub env_id: String,
    /// Evaluation episode `e` starts from `seed + e`.
    pub seed: u64,
    /// What is set on the environment.
    pub params: Map<String, Value>,
}

impl TaskSpec {
    /// The parameters that are meant for the environment.
    pub fn environment(&self) -> Map<String, Value> {
        self.params
            .iter()
            .filter(|(name, _)| *name != DATASET && *name != ACTIONS)
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }

    /// What its actions mean, where that is not what they mean to the environment.
    ///
    /// # Errors
    /// [`Kind::Spec`] for a meaning nobody knows.
    pub fn actions(&self) -> Result<Option<Remap>, Kind> {
        let wrong = |text: String| Kind::Spec(format!("task `{}`: params `{ACTIONS}`: {text}", self.name));
        match self.params.get(ACTIONS) {
            None => Ok(None),
            Some(Value::String(name)) => Remap::parse(name).map(Some).map_err(|error| wrong(error.to_string())),
            Some(value) => Err(wrong(format!("expected \"negated\" or \"swapped\", found {value}"))),
        }
    }

    /// The parameters as CartPole physics.
    ///
    /// # Errors
    /// [`Kind::Spec`] naming the parameter, if it is no number, unknown or out of range, or gives actions another meaning.
    pub fn cartpole(&self, derived: Derived) -> Result<CartPoleParams, Kind> {
        if self.params.contains_key(ACTIONS) {
            let text = "expected none for discrete actions; a negative force_mag swaps those of CartPole";
            return Err(Kind::Spec(format!("task `{}`: params `{ACTIONS}`: {text}", self.name)));
        }
        let mut changes = Vec::new();
        let params = self.environment();
        for (name, value) in &params {
            let number = value.as_f64();
            let wrong =
                || Kind::Spec(format!("task `{}`: params `{name}`: expected a number, found {value}", self.name));
            changes.push((name.as_str(), number.ok_or_else(wrong)?));
        }
        CartPoleParams::with(changes, derived).map_err(|error| Kind::Spec(format!("task `{}`: {error}", self.name)))
    }
}

/// A task and its trajectories.
#[derive(Clone, Debug)]
pub struct Task {
    /// What it is.
    pub spec: TaskSpec,
    /// Its data.
    pub episodes: Episodes,
}

/// Reads a task spec.
///
/// # Errors
/// [`Error`] with the entry and the field.
pub fn load_spec(path: &Path) -> Result<Vec<TaskSpec>, Error> {
    let io = |error| Kind::Io(error).at(path, None);
    if !std::fs::metadata(path).map_err(io)?.is_file() {
        return Err(Kind::NotAFile.at(path, None));
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MOST_SPEC + 1).read_to_end(&mut bytes)).map_err(io)?;
    if bytes.len() as u64 > MOST_SPEC {
        let claimed = bytes.len() as u64;
        return Err(Kind::TooLarge { what: "bytes of a task spec", claimed, limit: MOST_SPEC }.at(path, None));
    }
    parse_spec(&bytes).map_err(|kind| kind.at(path, None))
}

/// Reads a task spec from its text.
///
/// # Errors
/// [`Kind::Spec`] with the entry and the field.
pub fn parse_spec(bytes: &[u8]) -> Result<Vec<TaskSpec>, Kind> {
    let value: Value = serde_json::from_slice(bytes).map_err(|error| Kind::Spec(format!("no JSON: {error}")))?;
    let Value::Array(entries) = value else {
        return Err(Kind::Spec(format!("expected a list of tasks, found {}", kind_of(&value))));
    };
    if entries.is_empty() {
        return Err(Kind::Spec("expected at least one task, found an empty list".into()));
    }
    let mut tasks: Vec<TaskSpec> = Vec::with_capacity(entries.len());
    for (entry, value) in entries.into_iter().enumerate() {
        let task = parse_task(value).map_err(|text| Kind::Spec(format!("entry {entry}: {text}")))?;
        if let Some(first) = tasks.iter().position(|other| other.name == task.name) {
            let text = format!("entry {entry}: name `{}` is already that of entry {first}", task.name);
            return Err(Kind::Spec(text));
        }
        tasks.push(task);
    }
    Ok(tasks)
}

fn parse_task(value: Value) -> Result<TaskSpec, String> {
    let Value::Object(mut fields) = value else {
        return Err(format!("expected an object with {FIELDS}, found {}", kind_of(&value)));
    };
    let task = TaskSpec {
        name: required(&mut fields, "name", "a string")?,
        env_id: required(&mut fields, "env_id", "a string")?,
        seed: required(&mut fields, "seed", "an integer from 0 to 2^64-1")?,
        params: match fields.contains_key("params") {
            true => required(&mut fields, "params", "an object")?,
            false => Map::new(),
        },
    };
    if let Some(name) = fields.keys().next() {
        return Err(format!("unknown field `{name}`, expected {FIELDS}"));
    }
    // The name becomes a folder, so it must not lead anywhere else.
    let folder = !task.name.is_empty() && !task.name.starts_with('.') && task.name.len() <= 200;
    if !folder || task.name.chars().any(|c| c.is_control() || "/\\:".contains(c)) {
        let name = &task.name;
        return Err(format!("name: expected a folder name without / \\ : or a leading dot, found {name:?}"));
    }
    if task.env_id.is_empty() {
        return Err("env_id: expected the name of an environment, found \"\"".into());
    }
    Ok(task)
}

fn required<T: DeserializeOwned>(fields: &mut Map<String, Value>, name: &str, expected: &str) -> Result<T, String> {
    let value = fields.remove(name).ok_or_else(|| format!("field `{name}` is missing, expected {expected}"))?;
    let found = match &value {
        Value::Number(n) => n.to_string(),
        other => kind_of(other).to_owned(),
    };
    serde_json::from_value(value).map_err(|_| format!("{name}: expected {expected}, found {found}"))
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Reads the dataset of every task into memory, from the place that [`find_dataset`] tells.
///
/// # Errors
/// [`Error`] of the first dataset that cannot be used.
pub fn load_tasks(spec: Vec<TaskSpec>, folder: &Path, expect: &Expect) -> Result<Vec<Task>, Error> {
    let load = |spec: TaskSpec| {
        let path = find_dataset(&spec, folder)?;
        let episodes = load_any(&path, expect)?;
        Ok(Task { spec, episodes })
    };
    spec.into_iter().map(load).collect()
}

/// Where the dataset of a task lies: what `params.dataset` names, or else the one dataset called after the task.
///
/// In a folder of that name datasets are `*.npz`, `*.hdf5`, `*.h5` or the folder itself if it is Minari's; beside it,
/// `<name>.npz`, `<name>.hdf5` and `<name>.h5`.
///
/// # Errors
/// [`Kind::Spec`] if there is none, naming the places, or several, naming them.
pub fn find_dataset(spec: &TaskSpec, folder: &Path) -> Result<PathBuf, Error> {
    let refuse = |text: String| Kind::Spec(text).at(folder, format!("task `{}`", spec.name));
    if let Some(value) = spec.params.get(DATASET) {
        let path = value.as_str().map(Path::new);
        let inside = |path: &&Path| {
            !path.as_os_str().is_empty() && path.components().all(|part| matches!(part, Component::Normal(_)))
        };
        return match path.filter(inside) {
            Some(path) => Ok(folder.join(path)),
            None => Err(refuse(format!("params `{DATASET}`: expected a path inside the folder, found {value}"))),
        };
    }
    let own = folder.join(&spec.name);
    let mut found = datasets_in(&own)?;
    found.extend(
        ENDINGS.map(|ending| folder.join(format!("{}.{ending}", spec.name))).into_iter().filter(|p| p.is_file()),
    );
    found.sort();
    found.dedup();
    match &found[..] {
        [one] => Ok(one.clone()),
        [] => {
            let (inside, beside) = (own.join("trajs.npz"), own.with_file_name(format!("{}.npz", spec.name)));
            let text = format!(
                "no dataset: neither {} nor {} exists, and {} has no npz, hdf5 or Minari dataset",
                inside.display(),
                beside.display(),
                own.display()
            );
            Err(refuse(text))
        }
        several => {
            let names: Vec<String> = several.iter().map(|path| path.display().to_string()).collect();
            let text = format!("{} datasets: {}; name one in params `{DATASET}`", names.len(), names.join(", "));
            Err(refuse(text))
        }
    }
}

/// The datasets that lie in a folder itself: `*.npz`, `*.hdf5`, `*.h5`, and the folder if it is Minari's. None if there
/// is no such folder.
///
/// # Errors
/// [`Kind::Io`] if it cannot be listed.
pub fn datasets_in(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found: Vec<PathBuf> = minari_file(folder).into_iter().collect();
    found.extend(list(folder)?.into_iter().filter(|path| is_dataset(path)));
    found.sort();
    found.dedup();
    Ok(found)
}

/// The datasets of a folder and of the folders in it, one for each task, in the order of their paths.
///
/// # Errors
/// As [`datasets_in`].
pub fn datasets_below(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = datasets_in(folder)?;
    if minari_file(folder).is_none() {
        for task in list(folder)?.into_iter().filter(|path| path.is_dir()) {
            found.extend(datasets_in(&task)?);
        }
    }
    found.sort();
    Ok(found)
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let listed = match std::fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| entry.map(|e| e.path())).collect(),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(Vec::new()),
        Err(error) => Err(error),
    };
    listed.map_err(|error| Kind::Io(error).at(folder, None))
}

const ENDINGS: [&str; 3] = ["npz", "hdf5", "h5"];

fn is_dataset(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known)) && path.is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(spec: &str) -> String {
        parse_spec(spec.as_bytes()).expect_err("refused").to_string()
    }

    #[test]
    fn a_spec_is_read() {
        let spec = r#"[{"name": "B", "env_id": "CartPole-v1", "seed": 1, "params": {"masspole": 0.2}},
                       {"name": "A", "env_id": "CartPole-v1", "seed": 18446744073709551615}]"#;
        let tasks = parse_spec(spec.as_bytes()).expect("valid");
        assert_eq!((tasks[0].name.as_str(), tasks[0].seed, tasks[1].seed), ("B", 1, u64::MAX));
        assert_eq!(tasks[0].cartpole(Derived::Stale).expect("valid").masspole, 0.2);
        assert_eq!(tasks[1].cartpole(Derived::Refreshed).expect("valid"), CartPoleParams::default());
    }

    #[test]
    fn faults_name_entry_and_field() {
        assert!(text("[{").starts_with("no JSON: "));
        assert_eq!(text("{}"), "expected a list of tasks, found an object");
        assert_eq!(text("[]"), "expected at least one task, found an empty list");
        assert_eq!(text("[1]"), "entry 0: expected an object with name, env_id, seed, params, found a number");
        let two = |second: &str| text(&format!(r#"[{{"name": "A", "env_id": "E", "seed": 0}}, {second}]"#));
        assert_eq!(two(r#"{"env_id": "E", "seed": 0}"#), "entry 1: field `name` is missing, expected a string");
        assert_eq!(
            two(r#"{"name": "B", "env_id": "E", "seed": -1}"#),
            "entry 1: seed: expected an integer from 0 to 2^64-1, found -1"
        );
        assert_eq!(two(r#"{"name": "B", "env_id": 3, "seed": 0}"#), "entry 1: env_id: expected a string, found 3");
        assert_eq!(
            two(r#"{"name": "B", "env_id": "E", "seed": 0, "params": []}"#),
            "entry 1: params: expected an object, found a list"
        );
        assert_eq!(
            two(r#"{"name": "B", "env_id": "E", "seed": 0, "sed": 1}"#),
            "entry 1: unknown field `sed`, expected name, env_id, seed, params"
        );
        assert_eq!(two(r#"{"name": "A", "env_id": "E", "seed": 0}"#), "entry 1: name `A` is already that of entry 0");
        for name in ["", "..", ".hidden", "a/b", "a\\\\b", "c:"] {
            let found = two(&format!(r#"{{"name": "{name}", "env_id": "E", "seed": 0}}"#));
            assert!(found.starts_with("entry 1: name: expected a folder name"), "{found}");
        }
    }

    #[test]
    fn parameters_that_are_no_physics_are_named() {
        let refused = |params: &str| {
            let spec = format!(r#"[{{"name": "A", "env_id": "CartPole-v1", "seed": 0, "params": {params}}}]"#);
            let task = parse_spec(spec.as_bytes()).expect("a spec").remove(0);
            task.cartpole(Derived::Refreshed).expect_err("refused").to_string()
        };
        assert_eq!(refused(r#"{"gravity": "big"}"#), "task `A`: params `gravity`: expected a number, found \"big\"");
        assert!(refused(r#"{"mass": 1}"#).starts_with("task `A`: unknown CartPole parameter `mass`"));
        assert!(refused(r#"{"tau": 2}"#).starts_with("task `A`: tau 2 is outside"));
    }

    fn spec(params: &str) -> TaskSpec {
        let spec = format!(r#"[{{"name": "A", "env_id": "CartPole-v1", "seed": 0, "params": {params}}}]"#);
        parse_spec(spec.as_bytes()).expect("a spec").remove(0)
    }

    #[test]
    fn actions_may_mean_something_else() {
        assert_eq!(spec("{}").actions().expect("as they are"), None);
        let swapped = spec(r#"{"actions": "swapped", "dataset": "A.h5", "render": 1}"#);
        assert_eq!(swapped.actions().expect("a meaning"), Some(Remap::Swapped));
        assert_eq!(swapped.environment().keys().collect::<Vec<_>>(), ["render"]);
        for bad in [r#""mirrored""#, "1"] {
            let text = spec(&format!(r#"{{"actions": {bad}}}"#)).actions().expect_err("refused").to_string();
            assert!(text.contains("task `A`: params `actions`") && text.contains("negated"), "{text}");
        }
        let text = swapped.cartpole(Derived::Refreshed).expect_err("discrete").to_string();
        assert!(text.contains("params `actions`") && text.contains("force_mag"), "{text}");
    }

    #[test]
    fn a_task_without_data_names_the_places() {
        let error = find_dataset(&spec("{}"), Path::new("nowhere")).expect_err("refused").to_string();
        assert!(error.contains("task `A`") && error.contains("trajs.npz") && error.contains("A.npz"), "{error}");
    }

    #[test]
    fn one_dataset_is_found_and_several_are_named() {
        let folder = std::env::temp_dir().join(format!("tsn-dt-io-find-{}", std::process::id()));
        let own = folder.join("A");
        std::fs::create_dir_all(own.join("data")).expect("a folder");
        let put = |name: &str| {
            std::fs::write(folder.join(name), "").expect("a file");
            find_dataset(&spec("{}"), &folder).map(|path| path.strip_prefix(&folder).expect("inside").to_path_buf())
        };
        assert_eq!(put("A/data/main_data.hdf5").expect("one"), Path::new("A/data/main_data.hdf5"));
        let text = put("A/trajs.npz").expect_err("two").to_string();
        assert!(text.contains("2 datasets") && text.contains("main_data.hdf5") && text.contains("trajs.npz"), "{text}");
        std::fs::remove_dir_all(own.join("data")).expect("removable");
        assert_eq!(put("A/meta.json").expect("one"), Path::new("A/trajs.npz"));
        assert!(put("A.h5").expect_err("two").to_string().contains("A.h5"));
        let named = find_dataset(&spec(r#"{"dataset": "A.h5"}"#), &folder).expect("named");
        assert_eq!(named, folder.join("A.h5"));
        assert!(spec(r#"{"dataset": "A.h5"}"#).cartpole(Derived::Refreshed).is_ok(), "no physics");
        for bad in [r#""../A.h5""#, r#""/A.h5""#, r#""""#, "3"] {
            let text =
                find_dataset(&spec(&format!(r#"{{"dataset": {bad}}}"#)), &folder).expect_err("refused").to_string();
            assert!(text.contains("params `dataset`: expected a path inside the folder"), "{text}");
        }
        std::fs::remove_dir_all(&folder).expect("removable");
    }
}
