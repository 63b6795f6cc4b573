//! One strategy's forgetting curves, and everything about one run.

use serde_json::Value;

use super::comparison::{line, mean_scores};
use super::group::Group;
use super::page::{UNKNOWN, bytes, duration, escape, figure, notes, number, or_dash, percent, short, table};
use super::plots::{BarRow, Bars, Cell, Curves, HeatMap, Line, Mark, key};
use super::run::{self, Run, Version};

/// Items of the memory record: key, name, and what kind of bytes they are.
const MEMORY: [(&str, &str, Kind); 15] = [
    ("weights", "weights", Kind::Kept),
    ("time_embedding", "time embedding", Kind::Kept),
    ("masks_stored", "masks, as stored", Kind::Kept),
    ("occupied", "occupied bits", Kind::Kept),
    ("norms", "norms", Kind::Kept),
    ("statistics", "statistics", Kind::Kept),
    ("extra", "prototypes, memories", Kind::Kept),
    ("records", "task records", Kind::Kept),
    ("codebooks", "codebooks", Kind::Kept),
    ("masks_packed", "masks, packed", Kind::Variant),
    ("masks_entropy", "masks, entropy bound", Kind::Variant),
    ("coded_weights", "weights behind codes", Kind::Variant),
    ("dense", "one dense model", Kind::Reference),
    ("dense_time_embedding", "its time embedding", Kind::Reference),
    ("training", "scores, moments", Kind::Training),
];

/// How losses are drawn.
const LOSS_CURVES: Curves<'static> = Curves {
    title: "Learning curves",
    x: "optimiser step of the task",
    y: "training loss",
    size: [540, 300],
    dots: false,
    mark: None,
    y_range: Some([0.0, 0.0]),
};

/// Most tasks whose matrix is readable in half the width of the page.
const HALF_WIDTH: usize = 5;

/// Kinds of bytes; the number is the style of a bar.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Kept = 0,
    Variant = 4,
    Reference = 2,
    Training = 5,
}

/// Score of each task since it was learned: one line per task, mean and band over the seeds.
pub(super) fn forgetting(group: &Group<'_>) -> anyhow::Result<String> {
    let run = group.first();
    let last = run.tasks.len();
    let lines: Vec<Line> = (0..last).map(|on| line(group, on, on..last, &|run, after| run.score(after, on))).collect();
    let title = "Score of each task since it was learned";
    let curves = Curves {
        title,
        x: "after learning task",
        y: "score",
        size: [540, 300],
        dots: true,
        mark: None,
        y_range: Some([0.0, 0.0]),
    };
    let Some(plot) = curves.draw(&lines)? else {
        return Ok(notes(&["No scores: no task of this strategy was played.".into()]));
    };
    let caption = match group.runs.len() {
        1 => "A line that falls is forgetting.".to_owned(),
        n => format!("Mean over {n} runs; bands: 95 % bootstrap interval. A line that falls is forgetting."),
    };
    let mut plots = figure(title, &plot, &caption);
    plots += &mean_scores(&[group], Version::Raw)?;
    if group.runs.len() > 1 {
        plots += &learning(group)?;
    }
    Ok(format!("{}<div class=\"grid\">\n{plots}</div>\n", task_key(run)))
}

/// Training loss of every task: mean and band over the runs, at the steps that all of them recorded.
fn learning(group: &Group<'_>) -> anyhow::Result<String> {
    let first = group.first();
    let line = |task: usize| {
        let step = |at: usize| first.losses.get(task)?.get(at).map(|point| point[0]);
        let shared = |at: usize| {
            let here = |run: &&Run| run.losses.get(task).and_then(|points| points.get(at)).map(|point| point[0]);
            group.runs.iter().all(|run| here(run) == step(at))
        };
        let points = first.losses.get(task).map_or(0, Vec::len);
        let summaries = (0..points).filter(|at| shared(*at)).filter_map(|at| {
            let summary = group.over(|run| run.losses.get(task)?.get(at).map(|point| point[1]))?;
            Some((step(at)?, summary))
        });
        let summaries: Vec<_> = summaries.collect();
        Line {
            style: task,
            points: summaries.iter().map(|(x, summary)| [*x, summary.mean]).collect(),
            band: summaries.iter().map(|(x, s)| [*x, s.mean_interval[0], s.mean_interval[1]]).collect(),
        }
    };
    let lines: Vec<Line> = (0..first.tasks.len()).map(line).collect();
    let title = "Learning curves over runs";
    let plot = LOSS_CURVES.draw(&lines)?;
    let caption = "Loss of training batches, one line per task; bands: 95 % bootstrap interval over runs.";
    Ok(plot.map_or_else(String::new, |plot| figure(title, &plot, caption)))
}

/// Everything about one run.
pub(super) fn run(run: &Run, open: bool) -> anyhow::Result<String> {
    let seed = run.fact(&["seed"]).map(|seed| format!("Seed {}", escape(&seed)));
    let wall =
        run.fact(&["wall_s"]).and_then(|wall| wall.parse().ok()).map(|wall| format!("{} in all", duration(wall)));
    let name = format!("<span class=\"muted\">{}</span>", escape(&run.name));
    let parts: Vec<String> = [seed, wall, Some(name)].into_iter().flatten().collect();
    let mut html = format!(
        "<details class=\"run\"{}><summary>{}</summary>\n<div>\n",
        if open { " open=\"open\"" } else { "" },
        parts.join(" \u{b7} ")
    );
    html += &notes(&run.notes);
    html += "<div class=\"grid block\">\n";
    for version in Version::ALL {
        html += &matrix(run, version);
    }
    html += &losses(run)?;
    html += &capacity(run);
    html += &times(run);
    html += &memory(run);
    html += &added(run);
    html += "</div>\n";
    html += &tasks(run);
    html += &routing(run);
    html += &settings(run);
    Ok(html + "</div></details>\n")
}

fn matrix(run: &Run, version: Version) -> String {
    if !run.has(version) {
        return String::new();
    }
    let n = run.tasks.len();
    let scores = |on: usize| (0..n).filter_map(move |after| run.entry(version, after, on));
    let range = |on: usize| scores(on).fold([f64::MAX, f64::MIN], |[l, h], s| [l.min(s), h.max(s)]);
    let all = (0..n).map(range).fold([f64::MAX, f64::MIN], |a, b| [a[0].min(b[0]), a[1].max(b[1])]);
    // Scores of different games can be orders apart: then one scale would show a single task only.
    let size = |on: usize| range(on)[0].abs().max(range(on)[1].abs());
    let sizes = (0..n).filter(|on| scores(*on).next().is_some()).map(size);
    let [least, most] = sizes.fold([f64::MAX, 0.0], |[l, h], s| [l.min(s), h.max(s)]);
    let own_scale = version == Version::Raw && most > 10.0 * least.max(f64::MIN_POSITIVE);
    // Shares are comparable between pages: their scale is always the whole one.
    let all = if version == Version::Success { [0.0, 1.0] } else { all };
    let cell = |after: usize, on: usize| {
        let score = run.entry(version, after, on);
        let place = || format!("after {}, on {}", run.task(after), run.task(on));
        let [low, high] = if own_scale { range(on) } else { all };
        let mark = match score {
            Some(_) if on > after => Mark::ZeroShot,
            _ => Mark::None,
        };
        let zero_shot = if mark == Mark::ZeroShot { " (zero shot)" } else { "" };
        Cell {
            shade: score.map(|score| if high > low { (score - low) / (high - low) } else { 1.0 }),
            text: or_dash(score, short),
            hint: format!("{}: {}{zero_shot}", place(), or_dash(score, number)),
            mark,
        }
    };
    let cells: Vec<Vec<Cell>> = (0..n).map(|after| (0..n).map(|on| cell(after, on)).collect()).collect();
    let names: Vec<String> = (0..n).map(|task| run.task(task)).collect();
    let [low, high] = all.map(short);
    let ends = if own_scale { ["lowest of its column", "highest"] } else { [low.as_str(), high.as_str()] };
    let (title, what) = match version {
        Version::Raw => ("Score matrix", "Mean score per episode"),
        Version::Normalised => ("Normalised score matrix", "0 is a random policy, 1 a model trained on the task alone"),
        Version::Success => ("Success matrix", "Share of episodes that accomplish the task"),
    };
    let plot = HeatMap {
        title,
        x: if version == Version::Success { "success on task" } else { "score on task" },
        y: "after learning task",
        columns: &names,
        rows: &names,
        cells: &cells,
        ends,
    };
    let scale = if own_scale { " Colours: every column has its own range." } else { "" };
    let caption =
        format!("{what}. Pale with a dashed frame: not learned yet (zero shot). \u{2013}: not played.{scale}");
    let figure = figure(title, &plot.draw(), &caption);
    if n > HALF_WIDTH { format!("<div class=\"full\">{figure}</div>\n") } else { figure }
}

fn losses(run: &Run) -> anyhow::Result<String> {
    let lines = run.losses.iter().enumerate();
    let lines = lines.map(|(style, points)| Line { style, points: points.clone(), band: Vec::new() });
    let lines: Vec<Line> = lines.collect();
    let title = LOSS_CURVES.title;
    let plot = LOSS_CURVES.draw(&lines)?;
    Ok(plot.map_or_else(String::new, |plot| {
        figure(title, &(task_key(run) + &plot), "Loss of training batches, one line per task.")
    }))
}

/// Every number that exists once per task.
fn tasks(run: &Run) -> String {
    let last = run.tasks.len().saturating_sub(1);
    let head = [
        "Task",
        "Score when learned",
        "Final score",
        "Best score",
        "Normalised",
        "Final success",
        "Random policy",
        "Trained alone",
        "Held-out loss",
        "Disagreement",
        "Density",
        "Newly claimed",
        "Occupied",
        "Time",
    ];
    let row = |task: usize| {
        let value = |key: &str, format: fn(f64) -> String| or_dash(run.per_task(key, task), format);
        vec![
            escape(&run.task(task)),
            or_dash(run.score(task, task), number),
            or_dash(run.score(last, task), number),
            or_dash((task..=last).filter_map(|after| run.score(after, task)).reduce(f64::max), number),
            or_dash(run.entry(Version::Normalised, last, task), percent),
            or_dash(run.entry(Version::Success, last, task), percent),
            value("random", number),
            value("single", number),
            value("own_loss", number),
            value("disagreement", percent),
            value("density", percent),
            value("newly_claimed", percent),
            value("occupied", percent),
            value("time_per_task_s", duration),
        ]
    };
    let rows: Vec<Vec<String>> = (0..run.tasks.len()).map(row).collect();
    format!("<div class=\"block\"><h3>Tasks</h3>\n{}</div>\n", table(&head, &rows))
}

fn capacity(run: &Run) -> String {
    const SERIES: [(&str, &str, usize); 3] = [
        ("density", "density of the mask", 0),
        ("occupied", "occupied in the copy", 4),
        ("newly_claimed", "newly claimed", 1),
    ];
    let row = |task: usize| {
        let bar = |(key, _, style): &(&str, &str, usize)| {
            let share = run.per_task(key, task)?;
            Some((*style, share, percent(share)))
        };
        (run.task(task), SERIES.iter().filter_map(bar).collect())
    };
    let rows: Vec<BarRow> = (0..run.tasks.len()).map(row).collect();
    if rows.iter().all(|(_, bars)| bars.is_empty()) {
        return String::new();
    }
    let title = "Capacity after each task";
    let key = key(SERIES.iter().map(|(_, name, style)| (*style, *name)));
    figure(title, &(key + &Bars { title, rows, full: 0.0 }.draw()), "Share of maskable weights.")
}

fn times(run: &Run) -> String {
    let row = |task: usize| Some((run.task(task), vec![(0, run.per_task("time_per_task_s", task)?, String::new())]));
    let mut rows: Vec<BarRow> = (0..run.tasks.len()).filter_map(row).collect();
    if rows.is_empty() {
        return String::new();
    }
    for (_, bars) in &mut rows {
        bars[0].2 = duration(bars[0].1);
    }
    let title = "Time per task";
    figure(title, &Bars { title, rows, full: 0.0 }.draw(), "Wall time of learning.")
}

fn routing(run: &Run) -> String {
    if run.routes.is_empty() {
        return String::new();
    }
    let yes_no = |flag: Option<bool>| flag.map_or(UNKNOWN, |flag| if flag { "yes" } else { "no" }).to_owned();
    let head = ["Task", "Copy", "New copy", "Source", "Warm start", "A\u{2033} of the source", "Next best A\u{2033}"];
    let rows = run.routes.iter().map(|route| {
        let ratio = |score: &Value| run::number(score.get("chance_ratio"));
        let of_source = route.scores.iter().find(|(task, _)| Some(*task) == route.source);
        let others = route.scores.iter().filter(|(task, _)| Some(*task) != route.source);
        vec![
            escape(&run.task(route.task)),
            or_dash(route.copy, |copy| format!("{copy:.0}")),
            yes_no(route.created),
            route.source.map_or(UNKNOWN.into(), |source| escape(&run.task(source))),
            yes_no(route.warm_start),
            or_dash(of_source.and_then(|(_, score)| ratio(score)), number),
            or_dash(others.filter_map(|(_, score)| ratio(score)).reduce(f64::min), number),
        ]
    });
    let rows: Vec<Vec<String>> = rows.collect();
    format!(
        "<div class=\"block\"><h3>Routing decisions</h3>\n<div class=\"texts\">{}</div></div>\n{}{}",
        table(&head, &rows),
        affinity(run),
        measures(run)
    )
}

fn affinity(run: &Run) -> String {
    let has =
        |key: &str| run.routes.iter().flat_map(|route| &route.scores).any(|(_, s)| run::number(s.get(key)).is_some());
    let (measure, title) = match (has("chance_ratio"), has("score")) {
        (true, _) => ("chance_ratio", "Affinity: chance ratio A\u{2033}"),
        (_, true) => ("score", "Affinity: score of the router"),
        _ => return String::new(),
    };
    let value = |score: &Value| run::number(score.get(measure));
    let all = run.routes.iter().flat_map(|route| &route.scores).filter_map(|(_, score)| value(score));
    let [low, high] = all.fold([f64::MAX, f64::MIN], |[l, h], v| [l.min(v), h.max(v)]);
    // Beyond twice chance nothing is left to tell apart.
    let high = if measure == "chance_ratio" { high.min(2.0).max(low) } else { high };
    // One value alone is neither close nor far, but for the ratio, which has a scale of its own: from 0 to chance.
    let alone = low >= high && measure != "chance_ratio";
    let [low, high] = match (low < high, alone) {
        (true, _) => [low, high],
        (false, false) => [0.0, high.max(1.0)],
        (false, true) => [low - 1.0, high + 1.0],
    };
    let routes: Vec<_> = run.routes.iter().filter(|route| !route.scores.is_empty()).collect();
    let columns = routes.iter().flat_map(|route| &route.scores).map(|(task, _)| task + 1).max().unwrap_or(0);
    let row = |route: &&super::run::Route| -> Vec<Cell> {
        let cell = |column: usize| {
            let absent = Cell { mark: Mark::Absent, ..Cell::default() };
            let Some((_, score)) = route.scores.iter().find(|(task, _)| *task == column) else { return absent };
            let found = value(score);
            let chosen = route.source == Some(column);
            let end = if chosen { ", the source" } else { "" };
            Cell {
                shade: found.map(|v| 1.0 - (v - low) / (high - low)),
                text: or_dash(found, short),
                hint: format!("{} under {}: {}{end}", run.task(route.task), run.task(column), or_dash(found, number)),
                mark: if chosen { Mark::Chosen } else { Mark::None },
            }
        };
        (0..columns).map(cell).collect()
    };
    let cells: Vec<Vec<Cell>> = routes.iter().map(row).collect();
    let rows: Vec<String> = routes.iter().map(|route| run.task(route.task)).collect();
    let names: Vec<String> = (0..columns).map(|task| run.task(task)).collect();
    let worst = if measure == "chance_ratio" && high == 2.0 { "2 or more".to_owned() } else { short(high) };
    let ends = match alone {
        true => [String::new(), String::new()],
        false => [format!("{worst}, far"), format!("{}, close", short(low))],
    };
    let ends = [&*ends[0], &*ends[1]];
    let plot =
        HeatMap { title, x: "under earlier task", y: "new task", columns: &names, rows: &rows, cells: &cells, ends };
    let caption = "Lower is closer. Black frame: the chosen source.";
    format!("<div class=\"block\">{}</div>\n", figure(title, &plot.draw(), caption))
}

/// All measures behind the decisions, folded.
fn measures(run: &Run) -> String {
    const MEASURES: [(&str, &str); 9] = [
        ("action", "A"),
        ("own_error", "A of the source itself"),
        ("scaled_error", "A\u{2032}"),
        ("chance_ratio", "A\u{2033}"),
        ("latent", "L, nats"),
        ("latent_per_dim", "L/E, nats"),
        ("cosine", "Cosine"),
        ("kl", "KL, nats"),
        ("score", "Score"),
    ];
    let mut rows = Vec::new();
    for route in &run.routes {
        for (task, score) in &route.scores {
            let mut cells = vec![escape(&run.task(route.task)), escape(&run.task(*task))];
            cells.extend(MEASURES.iter().map(|(key, _)| or_dash(run::number(score.get(key)), number)));
            rows.push(cells);
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let mut head = vec!["Task", "Under"];
    head.extend(MEASURES.iter().map(|(_, title)| *title));
    format!("<details class=\"more\"><summary>All measures</summary>\n{}</details>\n", table(&head, &rows))
}

fn memory(run: &Run) -> String {
    if run.memory.is_empty() {
        return String::new();
    }
    let of = |key: &str| run.memory.iter().find(|(item, _)| item == key).map(|(_, bytes)| *bytes);
    let known = MEMORY.iter().filter_map(|(key, name, kind)| Some(((*name).to_owned(), *kind, of(key)?)));
    let unknown = run.memory.iter().filter(|(item, _)| MEMORY.iter().all(|(key, ..)| key != item));
    let unknown = unknown.map(|(item, bytes)| (item.replace('_', " "), Kind::Variant, *bytes));
    let items: Vec<(String, Kind, f64)> = known.chain(unknown).filter(|(_, _, bytes)| *bytes != 0.0).collect();
    let row = |(name, kind, count): &(String, Kind, f64)| (name.clone(), vec![(*kind as usize, *count, bytes(*count))]);
    let title = "Memory";
    let kinds = [
        (Kind::Kept, "kept after training"),
        (Kind::Variant, "counted otherwise"),
        (Kind::Reference, "for comparison"),
        (Kind::Training, "only while training"),
    ];
    let kinds = kinds.into_iter().filter(|(kind, _)| items.iter().any(|(_, of, _)| of == kind));
    let key = key(kinds.map(|(kind, name)| (kind as usize, name)));
    let plot = Bars { title, rows: items.iter().map(row).collect(), full: 0.0 }.draw();
    let caption = "Bytes of the bank at the end; 1 MB is a million bytes. Empty items are left out.";
    figure(title, &(key + &plot), caption)
}

/// What every task added to the bank.
fn added(run: &Run) -> String {
    // As many as there are colours.
    const KINDS: [(&[&str], &str, usize); 7] = [
        (&["claimed_weights"], "newly claimed weights", 1),
        (&["masks_packed"], "masks, packed", 0),
        (&["routing"], "routing", 4),
        (&["codebooks"], "codebooks", 3),
        (&["norms"], "norms", 2),
        (&["statistics", "records"], "statistics, record", 5),
        (&["extra"], "prototypes, memories", 6),
    ];
    let tasks = 0..run.tasks.len();
    let count = |keys: &[&str], task: usize| {
        keys.iter().filter_map(|key| run.added(key, task)).reduce(|all, bytes| all + bytes)
    };
    // Kinds that no task has would be lines of zeros.
    let any = |keys: &[&str]| tasks.clone().any(|task| count(keys, task).is_some_and(|bytes| bytes > 0.0));
    let kinds: Vec<_> = KINDS.iter().filter(|(keys, ..)| any(keys)).collect();
    if kinds.is_empty() {
        return String::new();
    }
    let row = |task: usize| {
        let bar = |(keys, _, style): &&(&[&str], &str, usize)| {
            let count = count(keys, task)?;
            Some((*style, count, bytes(count)))
        };
        (run.task(task), kinds.iter().filter_map(bar).collect())
    };
    let title = "Memory that each task added";
    let key = key(kinds.iter().map(|(_, name, style)| (*style, *name)));
    let plot = Bars { title, rows: tasks.clone().map(row).collect(), full: 0.0 }.draw();
    let caption = "Newly claimed weights lie in the copy, which has as many bytes without them; the rest comes on top.";
    figure(title, &(key + &plot), caption)
}

fn settings(run: &Run) -> String {
    if run.settings.is_empty() {
        return String::new();
    }
    let rows: Vec<Vec<String>> = run.settings.iter().map(|(key, value)| vec![escape(key), escape(value)]).collect();
    format!(
        "<details class=\"more\"><summary>Settings</summary>\n<div class=\"texts\">{}</div></details>\n",
        table(&["Setting", "Value"], &rows)
    )
}

fn task_key(run: &Run) -> String {
    let names: Vec<String> = (0..run.tasks.len()).map(|task| run.task(task)).collect();
    key(names.iter().enumerate().map(|(style, name)| (style, name.as_str())))
}
