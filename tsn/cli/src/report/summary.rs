//! What all runs are, and their numbers side by side.

use std::collections::BTreeSet;

use tsn::metrics::Summary;

use super::group::Group;
use super::page::{self, UNKNOWN, count, duration, escape, notes, number, percent, short};
use super::run::{Run, Version};
use super::statistics::Measure;

/// How a number becomes text.
type Format = fn(f64) -> String;

/// Title of the page, in plain text.
pub(super) fn title(runs: &[Run]) -> String {
    format!("Continual learning on {}", distinct(runs, |run| Some(run.suite.clone())))
}

/// What was run, where and when, and links to the sections.
pub(super) fn header(runs: &[Run], groups: &[Group<'_>]) -> String {
    let dates: BTreeSet<String> = runs.iter().filter_map(|run| run.fact(&["started", "date"])).collect();
    let date = match (dates.first(), dates.last()) {
        (Some(first), Some(last)) if first != last => format!("{} to {}", readable(first), readable(last)),
        (Some(only), _) => readable(only),
        _ => UNKNOWN.into(),
    };
    let fact = |keys: &[&str]| distinct(runs, |run| run.fact(keys));
    let facts = [
        ("Suite", distinct(runs, |run| Some(run.suite.clone()))),
        ("Strategies", distinct(runs, |run| Some(run.strategy.clone()))),
        ("Runs", runs.len().to_string()),
        ("Seeds", fact(&["seed"])),
        ("Tasks", distinct(runs, |run| Some(run.tasks.len().to_string()))),
        ("Data", distinct(runs, Run::data)),
        ("Device", fact(&["device"])),
        ("Threads", distinct(runs, threads)),
        ("Started", date),
        ("Program version", fact(&["program_version", "version"])),
        ("Commit", fact(&["git_commit", "commit"])),
    ];
    let facts: String =
        facts.iter().map(|(name, text)| format!("<div><dt>{name}</dt><dd>{}</dd></div>\n", escape(text))).collect();
    let links: String = groups
        .iter()
        .enumerate()
        .map(|(at, group)| format!("<a href=\"#strategy-{at}\">{}</a>\n", escape(&group.label)))
        .collect();
    format!(
        "<header><h1>{}</h1>\n<dl class=\"facts\">{facts}</dl>\n\
         <nav aria-label=\"Sections\"><a href=\"#summary\">Summary</a>\n{links}<a href=\"#glossary\">Definitions</a></nav>\
         </header>\n",
        escape(&title(runs))
    )
}

/// One row per strategy.
pub(super) fn table(groups: &[Group<'_>]) -> String {
    type Value = fn(&Run) -> Option<f64>;
    type Column = (&'static str, Value, Format, Format);
    const COLUMNS: [Column; 11] = [
        ("ACC, score", |run| mean(run, Version::Raw, Measure::Final), number, short),
        ("BWT, score", |run| mean(run, Version::Raw, Measure::Bwt), number, short),
        ("Forgetting, score", |run| mean(run, Version::Raw, Measure::Forgetting), number, short),
        ("Normalised score, %", |run| mean(run, Version::Normalised, Measure::Final), percentage, percentage),
        ("Success, %", |run| mean(run, Version::Success, Measure::Final), percentage, percentage),
        ("Density, %", |run| run.mean_per_task("density"), percentage, percentage),
        ("Newly claimed per task, %", |run| run.mean_per_task("newly_claimed"), percentage, percentage),
        ("Copies", Run::copies, count, short),
        ("Memory factor, \u{d7}", |run| run.metric("memory_factor"), factor, short),
        ("Memory factor with time embedding, \u{d7}", |run| run.metric("memory_factor_with_te"), factor, short),
        ("Time per task", |run| run.mean_per_task("time_per_task_s"), duration, duration),
    ];
    let known = |value: &Value| groups.iter().any(|group| group.over(value).is_some());
    let columns: Vec<&Column> = COLUMNS.iter().filter(|(_, value, ..)| known(value)).collect();
    let mut head = vec!["Strategy", "Runs"];
    head.extend(columns.iter().map(|(name, ..)| *name));
    head.push("Bit identical");
    let row = |(at, group): (usize, &Group<'_>)| {
        let imported = if group.runs.iter().any(|run| run.imported()) { "<br/><small>imported</small>" } else { "" };
        let link = format!("<a href=\"#strategy-{at}\">{}</a>{imported}", escape(&group.label));
        let mut cells = vec![link, group.runs.len().to_string()];
        cells.extend(columns.iter().map(|(_, value, format, spread)| statistic(group.over(value), *format, *spread)));
        cells.push(identical(group));
        cells
    };
    let rows: Vec<Vec<String>> = groups.iter().enumerate().map(row).collect();
    let mut missing = Vec::new();
    if groups.iter().any(|group| group.runs.iter().any(|run| !run.has(Version::Raw))) {
        missing.push("At least one run has no scores: its tasks have no environment to play in.".to_owned());
    }
    let several = groups.iter().any(|group| group.runs.len() > 1);
    let several = if several {
        " Several runs: mean \u{b1} standard deviation over runs, [95 % bootstrap interval of the mean]; the mean alone where all are equal."
    } else {
        ""
    };
    format!(
        "<section id=\"summary\"><h2>Summary</h2>\n{}{}<p class=\"muted\">Means over tasks and runs, at the end of the \
         sequence.{several}</p></section>\n",
        notes(&missing),
        page::table(&head, &rows)
    )
}

/// Mean over tasks.
fn mean(run: &Run, version: Version, measure: Measure) -> Option<f64> {
    measure.of(run, version).map(|values| values.iter().sum::<f64>() / values.len() as f64)
}

/// Markup of a mean, with spread and interval if the runs differ.
fn statistic(summary: Option<Summary>, format: Format, spread: Format) -> String {
    match summary {
        None => UNKNOWN.into(),
        Some(all) if all.count == 1 || all.std <= 1e-9 * all.mean.abs() => escape(&format(all.mean)),
        Some(all) => {
            let [low, high] = all.mean_interval.map(|end| escape(&spread(end)));
            let (mean, std) = (escape(&format(all.mean)), escape(&spread(all.std)));
            format!("{mean}<br/><small>\u{b1} {std}</small><br/><small>[{low}, {high}]</small>")
        }
    }
}

fn identical(group: &Group<'_>) -> String {
    let known: Vec<bool> = group.runs.iter().filter_map(|run| run.bit_identical()).collect();
    let yes = known.iter().filter(|same| **same).count();
    let (class, word) = match (known.len(), yes) {
        (0, _) => return UNKNOWN.into(),
        (all, yes) if all == yes => ("yes", "yes"),
        _ => ("no", "no"),
    };
    let count =
        if known.len() > 1 { format!("<br/><small>{yes} of {} runs</small>", known.len()) } else { String::new() };
    format!("<span class=\"{class}\">{word}</span>{count}")
}

/// In percent, where the head of the column has the unit.
pub(super) fn percentage(fraction: f64) -> String {
    percent(fraction).trim_end_matches(" %").to_owned()
}

fn factor(value: f64) -> String {
    format!("{value:.2}")
}

/// Workers of a run; what it was told when it was told nothing is 0.
fn threads(run: &Run) -> Option<String> {
    run.fact(&["threads"]).map(|threads| if threads == "0" { "one per core".to_owned() } else { threads })
}

/// Distinct texts in the order of the runs.
fn distinct(runs: &[Run], text: impl Fn(&Run) -> Option<String>) -> String {
    let mut all: Vec<String> = Vec::new();
    for found in runs.iter().filter_map(text) {
        if !all.contains(&found) {
            all.push(found);
        }
    }
    if all.is_empty() { UNKNOWN.into() } else { all.join(", ") }
}

/// `2026-05-04T09:30:00Z` as `2026-05-04 09:30 UTC`; anything else as it is.
fn readable(date: &str) -> String {
    match (date.get(..10), date.get(10..11), date.get(11..16)) {
        (Some(day), Some("T"), Some(time)) if date.ends_with('Z') => format!("{day} {time} UTC"),
        _ => date.to_owned(),
    }
}
