//! Curves and marks of several strategies in one plot, and their statistics in tables.

use super::group::Group;
use super::marks::{MarkRow, Marks, Spot};
use super::page::{self, duration, escape, figure, number, or_dash, short};
use super::plots::{BarRow, Bars, Curves, GREY, Line, key};
use super::run::{Run, Version};
use super::statistics::{self, Measure, Statistic, difference, pairs, values};
use super::summary::percentage;
use tsn::metrics::Summary;

/// Above this many pairs their table starts folded.
const OPEN_PAIRS: usize = 10;

/// Curves of all strategies that learned the same tasks; empty for a single one.
pub(super) fn comparison(groups: &[Group<'_>]) -> anyhow::Result<String> {
    let mut html = String::new();
    for (at, first) in groups.iter().enumerate() {
        let seen = groups[..at].iter().any(|group| group.comparable(first));
        let peers: Vec<&Group<'_>> = groups.iter().filter(|group| group.comparable(first)).collect();
        let played = peers.iter().any(|group| has(group, Version::Raw));
        if seen || peers.len() < 2 || !played {
            continue;
        }
        html += &format!("<section><h2>Strategies compared: {}</h2>\n", escape(&first.first().suite));
        html += &key(peers.iter().enumerate().map(|(style, group)| (style, group.label.as_str())));
        html += "<div class=\"grid\">\n";
        for version in Version::ALL {
            html += &mean_scores(&peers, version)?;
            // After the second of two tasks there is one number, and the tables have it.
            if first.first().tasks.len() > 2 {
                html += &forgetting(&peers, version)?;
            }
        }
        html += &final_scores(&peers);
        html += &times(&peers);
        html += "</div>\n";
        html += &each_task(&peers)?;
        html += "</section>\n";
    }
    Ok(html)
}

/// Score of every task over the sequence, one small plot per task.
fn each_task(peers: &[&Group<'_>]) -> anyhow::Result<String> {
    let tasks = &peers[0].first().tasks;
    let mut html =
        "<h3 class=\"block\">Score of each task over the sequence</h3>\n<div class=\"grid small\">\n".to_owned();
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
        let line = |(style, group): (usize, &&Group<'_>)| {
            line(group, style, 0..tasks.len(), &|run, after| run.score(after, on))
        };
        let lines: Vec<Line> = peers.iter().enumerate().map(line).collect();
        if let Some(plot) = small.draw(&lines)? {
            html += &figure(&title, &plot, "");
        }
    }
    html += "</div>\n<p class=\"muted\">Dashed vertical line: the task is learned here; to its left the score is zero shot.</p>\n";
    Ok(html)
}

/// Mean score over the sequence, one line per group; grey for a single one, since colours then stand for tasks.
pub(super) fn mean_scores(groups: &[&Group<'_>], version: Version) -> anyhow::Result<String> {
    let (title, y) = match version {
        Version::Raw => ("Mean score on the tasks learned so far", "mean score"),
        Version::Normalised => ("Mean normalised score on the tasks learned so far", "normalised score"),
        Version::Success => ("Mean success rate on the tasks learned so far", "success rate"),
    };
    over_sequence(groups, 0, title, y, &|run, after| run.scores(version)?.acc_at(after))
}

/// Forgetting over the sequence.
fn forgetting(groups: &[&Group<'_>], version: Version) -> anyhow::Result<String> {
    let (title, y) = match version {
        Version::Raw => ("Forgetting so far", "score lost"),
        Version::Normalised => ("Forgetting so far, of normalised scores", "normalised score lost"),
        Version::Success => ("Forgetting so far, of success rates", "success rate lost"),
    };
    over_sequence(groups, 1, title, y, &|run, after| run.scores(version)?.forgetting_at(after))
}

/// A number of every task of the sequence from `first` on; empty if there is none.
fn over_sequence(
    groups: &[&Group<'_>],
    first: usize,
    title: &str,
    y: &str,
    value: &dyn Fn(&Run, usize) -> Option<f64>,
) -> anyhow::Result<String> {
    let curves = Curves {
        title,
        x: "after learning task",
        y,
        size: [540, 300],
        dots: true,
        mark: None,
        y_range: Some([0.0, 0.0]),
    };
    let style = if groups.len() == 1 { GREY } else { 0 };
    let lines = groups.iter().enumerate();
    let lines = lines.map(|(at, group)| line(group, style + at, first..group.first().tasks.len(), value));
    let lines: Vec<Line> = lines.collect();
    let several = groups.iter().any(|group| group.runs.len() > 1);
    let caption = if several { "Bands: 95 % bootstrap interval over runs." } else { "" };
    Ok(curves.draw(&lines)?.map_or_else(String::new, |plot| figure(title, &plot, caption)))
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

/// Score on every task at the end, one mark per group: normalised where every group has that, since scores of
/// different tasks can be orders apart.
fn final_scores(groups: &[&Group<'_>]) -> String {
    let tasks = &groups[0].first().tasks;
    let normalised = groups.iter().all(|group| has(group, Version::Normalised));
    let version = if normalised { Version::Normalised } else { Version::Raw };
    let last = tasks.len() - 1;
    let spot = |on: usize, (style, group): (usize, &&Group<'_>)| {
        let found = group.over(|run| run.entry(version, last, on))?;
        let interval = (found.count > 1).then_some(found.mean_interval);
        let text = if normalised { format!("{} %", percentage(found.mean)) } else { short(found.mean) };
        Some(Spot { style, place: found.mean, interval, text })
    };
    let row = |on: usize| MarkRow {
        name: format!("{on} {}", tasks[on]),
        spots: groups.iter().enumerate().filter_map(|group| spot(on, group)).collect(),
    };
    let title = if normalised { "Final normalised score of each task" } else { "Final score of each task" };
    let x =
        if normalised { "0 is a random policy, 1 a model trained on the task alone" } else { "mean score per episode" };
    let plot = Marks { title, x, rows: (0..tasks.len()).map(row).collect() }.draw();
    plot.map_or_else(String::new, |plot| {
        figure(title, &plot, "After the last task. Dot: mean over runs; bar: 95 % bootstrap interval.")
    })
}

/// Learning time of every task.
fn times(groups: &[&Group<'_>]) -> String {
    let tasks = &groups[0].first().tasks;
    let bar = |task: usize, (style, group): (usize, &&Group<'_>)| {
        let mean = group.over(|run| run.per_task("time_per_task_s", task))?.mean;
        Some((style, mean, duration(mean)))
    };
    let row = |task: usize| -> BarRow {
        (format!("{task} {}", tasks[task]), groups.iter().enumerate().filter_map(|group| bar(task, group)).collect())
    };
    let rows: Vec<BarRow> = (0..tasks.len()).map(row).collect();
    if rows.iter().all(|(_, bars)| bars.is_empty()) {
        return String::new();
    }
    let title = "Learning time of each task";
    figure(title, &Bars { title, rows, full: 0.0 }.draw(), "Wall time of learning, mean over runs.")
}

/// Every measure of every strategy with its statistics.
pub(super) fn statistics(groups: &[Group<'_>]) -> String {
    let mut html = String::new();
    for version in Version::ALL {
        let mut rows = Vec::new();
        for measure in Measure::ALL {
            let mut name = measure.label();
            for group in groups {
                let Some(found) = Statistic::of(&values(group, version, measure)) else { continue };
                let mut cells = vec![std::mem::take(&mut name).to_owned(), escape(&group.label)];
                cells.extend(numbers(&found, version));
                rows.push(cells);
            }
        }
        if rows.is_empty() {
            continue;
        }
        let (title, unit) = match version {
            Version::Raw => ("Raw scores", "score"),
            Version::Normalised => ("Normalised scores", "%"),
            Version::Success => ("Success rates", "%"),
        };
        let of = |what: &str| format!("{what}, {unit}");
        let head = [
            "Measure".to_owned(),
            "Strategy".into(),
            "Runs".into(),
            of("Mean"),
            of("Std over runs"),
            "95 % interval of the mean".into(),
            of("Interquartile mean"),
            "95 % interval".into(),
        ];
        let head: Vec<&str> = head.iter().map(String::as_str).collect();
        html += &format!("<h3 class=\"block\">{title}</h3>\n{}", page::table(&head, &rows));
    }
    if html.is_empty() {
        return html;
    }
    format!(
        "<section id=\"statistics\" class=\"named\"><h2>Statistics</h2>\n{html}<p class=\"muted\">Over runs \u{d7} tasks. Intervals: \
         stratified bootstrap, runs drawn anew within every task; a single run has none. The same numbers, and those of \
         every task, are in report.csv.</p></section>\n"
    )
}

/// Final scores with intervals over evaluation episodes, all tasks together and each alone.
pub(super) fn episodes(groups: &[Group<'_>]) -> String {
    let mut rows = Vec::new();
    for group in groups {
        let Some((all, each)) = statistics::episodes(group) else { continue };
        let names = (0..each.len()).map(|task| escape(&group.first().task(task)));
        let mut label = escape(&group.label);
        for (name, found) in std::iter::once("all".to_owned()).chain(names).zip(std::iter::once(&all).chain(&each)) {
            let [runs, mean, std, interval, ..] = numbers(found, Version::Raw);
            rows.push(vec![std::mem::take(&mut label), name, runs, found.values.to_string(), mean, std, interval]);
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let head = ["Strategy", "Task", "Runs", "Episodes", "Mean score", "Std over episodes", "95 % interval"];
    format!(
        "<section id=\"episodes\" class=\"named\"><h2>Final scores over episodes</h2>\n{}<p class=\"muted\">Raw scores after \
         the last task. Intervals: bootstrap, evaluation episodes drawn anew within every task of every run; the runs stay. \
         They say how far the figure depends on where episodes start, not on the seed of the training: for that, see \
         Statistics.</p></section>\n",
        page::table(&head, &rows)
    )
}

/// Differences between every two strategies on the seeds that both have.
pub(super) fn differences(groups: &[Group<'_>]) -> String {
    const MEASURES: [Measure; 2] = [Measure::Final, Measure::Forgetting];
    let pairs = pairs(groups);
    let mut rows = Vec::new();
    for version in Version::ALL {
        for measure in MEASURES {
            let mut name = format!("{}, {}", measure.label(), version.key());
            for (a, b) in &pairs {
                let Some(found) = difference(a, b, version, measure) else { continue };
                let sign = match found.mean_interval {
                    Some([low, _]) if low > 0.0 => "above zero",
                    Some([_, high]) if high < 0.0 => "below zero",
                    Some(_) => "includes zero",
                    None => page::UNKNOWN,
                };
                let mut cells = vec![std::mem::take(&mut name)];
                cells.push(format!("{} \u{2212} {}", escape(&a.label), escape(&b.label)));
                cells.extend(numbers(&found, version).into_iter().take(4));
                cells.push(sign.to_owned());
                rows.push(cells);
            }
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let head =
        ["Measure", "Strategies", "Shared seeds", "Mean difference", "Std over seeds", "95 % interval", "Interval"];
    let table = page::table(&head, &rows);
    let table = match pairs.len() {
        0..=OPEN_PAIRS => table,
        n => format!("<details class=\"more\"><summary>{n} pairs</summary>\n{table}</details>\n"),
    };
    format!(
        "<section id=\"differences\" class=\"named\"><h2>Paired differences</h2>\n{table}<p class=\"muted\">Same suite, same seeds: runs \
         are subtracted task by task before anything is averaged. Normalised scores and success rates in percentage points.</p>\
         </section>\n"
    )
}

/// Runs, mean, deviation, interval, interquartile mean, interval.
fn numbers(found: &Statistic, version: Version) -> [String; 6] {
    let text = |value: f64| if version == Version::Raw { number(value) } else { percentage(value) };
    let interval = |ends: Option<[f64; 2]>| {
        ends.map_or_else(|| page::UNKNOWN.to_owned(), |[low, high]| format!("[{}, {}]", text(low), text(high)))
    };
    [
        found.runs.to_string(),
        text(found.mean),
        or_dash(found.std, text),
        interval(found.mean_interval),
        text(found.iqm),
        interval(found.iqm_interval),
    ]
}

fn has(group: &Group<'_>, version: Version) -> bool {
    group.runs.iter().any(|run| run.has(version))
}
