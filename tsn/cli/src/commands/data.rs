//! Checking and making datasets.

use crate::args::{Check, Data, Make};
use crate::files::{make_dir, print, write_json, write_output};
use crate::problem::specs_of;
use crate::settings::{SCHEMA, Settings};
use crate::summary::{Table, number};
use anyhow::{Result, bail};
use dt_io::{Expect, load_npz, save_npz};
use serde_json::{Value, json};
use tsn::dt::data::episodes::Actions;
use tsn::dt::env::ObsShape;

/// Runs `data check` or `data make`.
pub(crate) fn data(args: &Data) -> Result<()> {
    match args {
        Data::Check(args) => check(args),
        Data::Make(args) => make(args),
    }
}

fn check(args: &Check) -> Result<()> {
    let mut table = Table::default();
    let head = ["file", "episodes", "rows", "lengths", "observations", "actions", "mean", "p90", "best return"];
    table.row(head.map(str::to_owned).to_vec());
    let mut files: Vec<Value> = Vec::new();
    for path in &args.files {
        let episodes = load_npz(path, &Expect::default())?;
        let s = episodes.summary();
        let observations = match episodes.observations().shape() {
            ObsShape::Vector { dim } => format!("vector {dim}"),
            ObsShape::Frame { height, width } => format!("frame {height}x{width}"),
        };
        let actions = match episodes.actions() {
            Actions::Discrete { count, .. } => format!("{count} actions"),
            Actions::Continuous { dim, .. } => format!("box {dim}"),
        };
        table.row(vec![
            path.display().to_string(),
            s.episodes.to_string(),
            s.rows.to_string(),
            format!("{}..{}", s.lengths[0], s.lengths[1]),
            observations.clone(),
            actions.clone(),
            number(Some(s.mean), 2),
            number(Some(s.p90), 2),
            number(Some(s.max), 2),
        ]);
        files.push(json!({
            "file": path, "episodes": s.episodes, "rows": s.rows, "shortest": s.lengths[0], "longest": s.lengths[1],
            "observations": observations, "actions": actions,
            "return": {"min": s.min, "mean": s.mean, "p90": s.p90, "max": s.max},
        }));
    }
    match &args.json {
        Some(path) => {
            let document = json!({"schema": SCHEMA, "files": files});
            write_output(path, &(serde_json::to_string_pretty(&document)? + "\n"))
        }
        None => print(&table.text()),
    }
}

fn make(args: &Make) -> Result<()> {
    let spec_path = args.out.join("tasks.json");
    if spec_path.exists() {
        bail!("{} exists already: name another directory, or remove it", spec_path.display());
    }
    let tasks = args.suite.generate(Settings::derived(args.profile), args.seed, args.episodes)?;
    let mut text = String::new();
    for task in &tasks {
        let folder = args.out.join(&task.name);
        make_dir(&folder)?;
        let path = folder.join("trajs.npz");
        save_npz(&task.episodes, &path)?;
        let s = task.episodes.summary();
        text += &format!("{}: {} episodes, {} rows, best return {:.0}\n", path.display(), s.episodes, s.rows, s.max);
    }
    let spec = |s: dt_io::TaskSpec| json!({"name": s.name, "env_id": s.env_id, "seed": s.seed, "params": s.params});
    let specs: Vec<Value> = specs_of(args.suite).into_iter().map(spec).collect();
    // Last, so that a spec never names data that are not there.
    write_json(&spec_path, &specs)?;
    print(&format!("{text}{}: {} tasks\n", spec_path.display(), tasks.len()))
}
