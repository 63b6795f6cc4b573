//! Checking and converting datasets.

use super::make::make;
use crate::args::{Check, Convert, Data};
use crate::files::{print, write_output};
use crate::settings::SCHEMA;
use crate::summary::{Table, number};
use anyhow::{Result, bail};
use dt_io::{Expect, check_any, datasets_below, load_any, save_npz};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tsn::dt::data::episodes::{Actions, Episodes, Piece, Rewards};
use tsn::dt::env::ObsShape;

/// Runs `data check`, `data convert` or `data make`.
pub(crate) fn data(args: &Data) -> Result<()> {
    match args {
        Data::Check(args) => check(args),
        Data::Convert(args) => convert(args),
        Data::Make(args) => make(args),
    }
}

fn check(args: &Check) -> Result<()> {
    let mut table = Table::default();
    let head =
        ["file", "format", "episodes", "rows", "lengths", "observations", "actions", "mean", "p90", "best return"];
    table.row(head.map(str::to_owned).to_vec());
    let mut files: Vec<Value> = Vec::new();
    let (mut text, mut problems, mut sound) = (String::new(), Vec::new(), 0);
    for path in &expanded(&args.files)? {
        let mut checked = check_any(path, &Expect::default());
        let at = path.display();
        problems.extend(checked.problems.iter().map(|problem| format!("{at}: {problem}")));
        let format = checked.format.map_or("unknown", dt_io::Format::name);
        let mut file = json!({"file": path, "format": format, "problems": checked.problems});
        if let Some(episodes) = checked.episodes {
            sound += 1;
            let facts = Facts::of(&episodes)?;
            checked.notes.extend(facts.note());
            table.row(facts.row(path, format, &episodes));
            facts.add(&mut file, &episodes);
        }
        text.extend(checked.notes.iter().map(|note| format!("\n{at}: {note}\n")));
        file["notes"] = json!(checked.notes);
        files.push(file);
    }
    let document = json!({"schema": SCHEMA, "files": files});
    match &args.json {
        Some(path) => write_output(path, &(serde_json::to_string_pretty(&document)? + "\n"))?,
        None if sound > 0 => print(&(table.text() + &text))?,
        None => {}
    }
    match problems.is_empty() {
        true => Ok(()),
        false => bail!("{}", problems.join("\n")),
    }
}

/// The files named, and in place of a folder the datasets below it.
fn expanded(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for path in paths {
        let below = if path.is_dir() { datasets_below(path)? } else { Vec::new() };
        if path.is_dir() && below.is_empty() {
            bail!("{}: expected datasets (.npz, .hdf5), found none in this folder", path.display());
        }
        // What is no file is told by the check.
        if below.is_empty() { all.push(path.clone()) } else { all.extend(below) }
    }
    Ok(all)
}

/// Ranges of a dataset.
struct Facts {
    observations: String,
    actions: String,
    observation_range: [f32; 2],
    action_range: [f32; 2],
    /// Entries of continuous actions outside -1 to 1.
    outside: usize,
}

impl Facts {
    fn of(episodes: &Episodes) -> Result<Facts> {
        let mut observation_range = [f32::INFINITY, f32::NEG_INFINITY];
        episodes.observations().visit(|piece| match piece {
            Piece::Values(values) => widen(&mut observation_range, values.iter().copied()),
            Piece::Pixels(pixels) => widen(&mut observation_range, pixels.iter().map(|&p| f32::from(p))),
        })?;
        let observations = match episodes.observations().shape() {
            ObsShape::Vector { dim } => format!("vector {dim}"),
            ObsShape::Frame { height, width } => format!("frame {height}x{width}"),
        };
        let mut action_range = [f32::INFINITY, f32::NEG_INFINITY];
        let (actions, outside) = match episodes.actions() {
            Actions::Discrete { count, ids } => {
                widen(&mut action_range, ids.iter().map(|&id| id as f32));
                (format!("{count} actions"), 0)
            }
            Actions::Continuous { dim, values } => {
                widen(&mut action_range, values.iter().copied());
                (format!("box {dim}"), values.iter().filter(|v| v.abs() > 1.0).count())
            }
        };
        Ok(Facts { observations, actions, observation_range, action_range, outside })
    }

    fn note(&self) -> Option<String> {
        let (n, [least, most]) = (self.outside, self.action_range);
        (n > 0)
            .then(|| format!("actions: {n} values outside -1 to 1, from {least} to {most}; a policy is clipped there"))
    }

    fn row(&self, path: &Path, format: &str, episodes: &Episodes) -> Vec<String> {
        let s = episodes.summary();
        let span = |[least, most]: [f32; 2]| format!("{least:.3}..{most:.3}");
        vec![
            path.display().to_string(),
            format.to_owned(),
            s.episodes.to_string(),
            s.rows.to_string(),
            format!("{}..{}", s.lengths[0], s.lengths[1]),
            format!("{} {}", self.observations, span(self.observation_range)),
            match episodes.actions() {
                Actions::Discrete { .. } => self.actions.clone(),
                Actions::Continuous { .. } => format!("{} {}", self.actions, span(self.action_range)),
            },
            number(Some(s.mean), 2),
            number(Some(s.p90), 2),
            number(Some(s.max), 2),
        ]
    }

    fn add(&self, file: &mut Value, episodes: &Episodes) {
        let s = episodes.summary();
        file["episodes"] = json!(s.episodes);
        file["rows"] = json!(s.rows);
        file["shortest"] = json!(s.lengths[0]);
        file["longest"] = json!(s.lengths[1]);
        file["observations"] = json!(self.observations);
        file["observation_range"] = json!(self.observation_range);
        file["actions"] = json!(self.actions);
        file["action_range"] = json!(self.action_range);
        file["return"] = json!({"min": s.min, "mean": s.mean, "p90": s.p90, "max": s.max});
    }
}

fn widen(range: &mut [f32; 2], values: impl Iterator<Item = f32>) {
    values.for_each(|value| *range = [range[0].min(value), range[1].max(value)]);
}

fn convert(args: &Convert) -> Result<()> {
    let out = &args.output;
    if out.exists() {
        bail!("{} exists already: name another file, or remove it", out.display());
    }
    if out.extension().is_none_or(|ending| ending != "npz") {
        bail!("{}: expected a name that ends in .npz, which is what is written", out.display());
    }
    let rewards = if args.clip { Rewards::Sign } else { Rewards::AsStored };
    let episodes = load_any(&args.input, &Expect { rewards, ..Expect::default() })?;
    save_npz(&episodes, out)?;
    let s = episodes.summary();
    print(&format!("{}: {} episodes, {} rows, best return {:.2}\n", out.display(), s.episodes, s.rows, s.max))
}
