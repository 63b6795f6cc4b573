//! What all runs are, their numbers side by side, and curves of several strategies in one plot.

use std::collections::BTreeSet;

use tsn::metrics::Summary;

use super::group::Group;
use super::page::{self, UNKNOWN, count, duration, escape, figure, notes, number, percent, short};
use super::plots::{BarRow, Bars, Curves, GREY, Line, key};
use super::run::Run;

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
        ("Data", fact(&["data_source", "data", "source"])),
        ("Device", fact(&["device"])),
        ("Threads", fact(&["threads"])),
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
    type Column = (&'static str, fn(&Run) -> Option<f64>, Format, Format);
    const COLUMNS: [Column; 10] = [
        ("ACC, score", |run| run.metric("ACC"), number, short),
        ("BWT, score", |run| run.metric("BWT"), number, short),
        ("Forgetting, score", |run| run.metric("Forgetting"), number, short),
        ("Normalised score, %", |run| run.metric("avg_score"), percentage, percentage),
        ("Density, %", |run| run.mean_per_task("density"), percentage, percentage),
        ("Newly claimed per task, %", |run| run.mean_per_task("newly_claimed"), percentage, percentage),
        ("Copies", Run::copies, count, short),
        ("Memory factor, \u{d7}", |run| run.metric("memory_factor"), factor, short),
        ("Memory factor with time embedding, \u{d7}", |run| run.metric("memory_factor_with_te"), factor, short),
        ("Time per task", |run| run.mean_per_task("time_per_task_s"), duration, duration),
    ];
    let mut head = vec!["Strategy", "Runs"];
    head.extend(COLUMNS.iter().map(|(name, ..)| *name));
    head.push("Bit identical");
    let row = |(at, group): (usize, &Group<'_>)| {
        let link = format!("<a href=\"#strategy-{at}\">{}</a>", escape(&group.label));
        let mut cells = vec![link, group.runs.len().to_string()];
        cells.extend(COLUMNS.iter().map(|(_, value, format, spread)| statistic(group.over(value), *format, *spread)));
        cells.push(identical(group));
        cells
    };
    let rows: Vec<Vec<String>> = groups.iter().enumerate().map(row).collect();
    let mut missing = Vec::new();
    if groups.iter().any(|group| group.runs.iter().any(|run| !run.has_scores())) {
        missing.push("At least one run has no scores: its tasks have no environment to play in.".to_owned());
    }
    let several = groups.iter().any(|group| group.runs.len() > 1);
    let several = if several {
        " Several runs: mean \u{b1} standard deviation, [95 % bootstrap interval of the mean]; the mean alone where all are equal."
    } else {
        ""
    };
    format!(
        "<section id=\"summary\"><h2>Summary</h2>\n{}{}<p class=\"muted\">Means over tasks and runs.{several}</p></section>\n",
        notes(&missing),
        page::table(&head, &rows)
    )
}

/// Curves of all strategies that learned the same tasks; empty for a single one.
pub(super) fn comparison(groups: &[Group<'_>]) -> anyhow::Result<String> {
    let mut html = String::new();
    for (at, first) in groups.iter().enumerate() {
        let seen = groups[..at].iter().any(|group| group.comparable(first));
        let peers: Vec<&Group<'_>> = groups.iter().filter(|group| group.comparable(first)).collect();
        let played = peers.iter().any(|group| group.runs.iter().any(|run| run.has_scores()));
        if seen || peers.len() < 2 || !played {
            continue;
        }
        let tasks = &first.first().tasks;
        html += &format!("<section><h2>Strategies compared: {}</h2>\n", escape(&first.first().suite));
        html += &key(peers.iter().enumerate().map(|(style, group)| (style, group.label.as_str())));
        let over = |value: &dyn Fn(&Run, usize) -> Option<f64>| -> Vec<Line> {
            peers.iter().enumerate().map(|(style, group)| line(group, style, 0..tasks.len(), value)).collect()
        };
        html += "<div class=\"grid\">\n";
        html += &mean_scores(&peers)?;
        html += &final_scores(&peers);
        html += "</div>\n";
        html += "<h3 class=\"block\">Score of each task over the sequence</h3>\n<div class=\"grid small\">\n";
        for (on, name) in tasks.iter().enumerate() {
            let title = format!("{on} {name}");
            let small = Curves {
                title: &title,
                x: "after learning task",
                y: "score",
                size: [350, 210],
                dots: true,
                mark: Some(on as f64),
                y_range: None,
            };
            if let Some(plot) = small.draw(&over(&|run, after| run.score(after, on)))? {
                html += &figure(&title, &plot, "");
            }
        }
        html += "</div>\n<p class=\"muted\">Dashed vertical line: the task is learned here; to its left the score is zero shot.</p>\n</section>\n";
    }
    Ok(html)
}

/// Mean score over the sequence, one line per group; grey for a single one, since colours then stand for tasks.
pub(super) fn mean_scores(groups: &[&Group<'_>]) -> anyhow::Result<String> {
    let title = "Mean score on the tasks learned so far";
    let curves = Curves {
        title,
        x: "after learning task",
        y: "mean score",
        size: [540, 300],
        dots: true,
        mark: None,
        y_range: Some([0.0, 0.0]),
    };
    let mean = |run: &Run, after: usize| run.mean_score(after);
    let first = if groups.len() == 1 { GREY } else { 0 };
    let lines = groups.iter().enumerate();
    let lines = lines.map(|(at, group)| line(group, first + at, 0..group.first().tasks.len(), &mean));
    let lines: Vec<Line> = lines.collect();
    let several = groups.iter().any(|group| group.runs.len() > 1);
    let caption = if several { "Bands: 95 % bootstrap interval over runs." } else { "" };
    Ok(curves.draw(&lines)?.map_or_else(String::new, |plot| figure(title, &plot, caption)))
}

/// Score on every task at the end, one bar per group; empty where a bar would need to point to the left.
fn final_scores(groups: &[&Group<'_>]) -> String {
    let tasks = &groups[0].first().tasks;
    let end = |group: &Group<'_>, on: usize| group.over(|run| run.score(tasks.len() - 1, on)).map(|score| score.mean);
    let row = |on: usize| {
        let bar = |(style, group): (usize, &&Group<'_>)| {
            let score = end(group, on)?;
            Some((style, score, short(score)))
        };
        (format!("{on} {}", tasks[on]), groups.iter().enumerate().filter_map(bar).collect())
    };
    let rows: Vec<BarRow> = (0..tasks.len()).map(row).collect();
    let mut bars = rows.iter().flat_map(|(_, bars)| bars).peekable();
    if bars.peek().is_none() || bars.any(|(_, score, _)| *score < 0.0) {
        return String::new();
    }
    let title = "Final score of each task";
    figure(title, &Bars { title, rows, full: 0.0 }.draw(), "Mean score per episode after the last task.")
}

/// Mean over the runs of a group, with a band if there are several.
pub(super) fn line(
    group: &Group<'_>,
    style: usize,
    after: std::ops::Range<usize>,
    value: &dyn Fn(&Run, usize) -> Option<f64>,
) -> Line {
    let summaries: Vec<(f64, Summary)> =
        after.filter_map(|after| Some((after as f64, group.over(|run| value(run, after))?))).collect();
    let band = summaries.iter().map(|(x, s)| [*x, s.mean_interval[0], s.mean_interval[1]]);
    Line {
        style,
        points: summaries.iter().map(|(x, summary)| [*x, summary.mean]).collect(),
        band: if group.runs.len() > 1 { band.collect() } else { Vec::new() },
    }
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
fn percentage(fraction: f64) -> String {
    percent(fraction).trim_end_matches(" %").to_owned()
}

fn factor(value: f64) -> String {
    format!("{value:.2}")
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
