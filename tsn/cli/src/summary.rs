//! Results as aligned text, and as CSV.

use crate::record::{Results, quoted};
use std::fmt::Write as _;

/// Everything worth reading of one strategy.
pub(crate) fn strategy(results: &Results) -> String {
    let mut text = String::new();
    let playable = results.perf_matrix.iter().flatten().any(Option::is_some);
    _ = writeln!(text, "{}{}", results.name, if playable { ": score on each task after learning ..." } else { "" });
    let mut table = Table::default();
    let mut head = vec!["after".to_owned()];
    if playable {
        head.extend(results.task_names.iter().map(|n| short(n)));
    }
    let masked = results.bit_identical.is_some();
    if masked {
        head.extend(["density", "claimed", "occupied", "copy", "source"].map(str::to_owned));
    }
    head.push("time".to_owned());
    table.row(head);
    for (i, row) in results.perf_matrix.iter().enumerate() {
        let mut cells = vec![short(&results.task_names[i])];
        if playable {
            cells.extend(row.iter().map(|s| number(*s, 1)));
        }
        if masked {
            let shares = [results.density[i], results.newly_claimed[i], results.occupied[i]];
            cells.extend(shares.map(|s| format!("{:.2} %", 100.0 * s)));
            cells.push(results.task_copy[i].to_string());
            cells.push(results.sources[i].map_or_else(|| "-".to_owned(), |u| short(&results.task_names[u])));
        }
        cells.push(format!("{:.1} s", results.time_per_task_s[i]));
        table.row(cells);
    }
    text.push_str(&table.text());
    text.push_str(&losses(results));
    let m = &results.metrics;
    if playable {
        _ = writeln!(
            text,
            "  ACC {}  BWT {}  forgetting {}  normalised score {}",
            number(m.ACC, 1),
            number(m.BWT, 1),
            number(m.Forgetting, 1),
            number(m.avg_score, 3)
        );
    }
    _ = writeln!(
        text,
        "  copies {}  memory {} of a dense model, {} with the time embedding",
        results.copies,
        factor(m.memory_factor),
        factor(m.memory_factor_with_te)
    );
    if let Some(same) = results.bit_identical {
        let words = if same { "bit-identical to when they were learned" } else { "CHANGED: this should not happen" };
        _ = writeln!(text, "  weights, norms, outputs and scores of all tasks: {words}");
    }
    text
}

/// Held-out loss against chance, for tasks that cannot be played; wrong actions where the controller is known.
fn losses(results: &Results) -> String {
    let mut table = Table::default();
    let data_only = !results.loss_matrix.is_empty();
    if !data_only && results.disagreement.iter().all(Option::is_none) {
        return String::new();
    }
    let mut head = vec!["held-out steps", "loss when learned", "loss at the end", "loss of a constant guess"];
    head.push("differs from data");
    if !data_only {
        head.push("differs from controller");
    }
    table.row(head.into_iter().map(str::to_owned).collect());
    let at = |list: &[Option<f64>], i: usize| list.get(i).copied().flatten();
    let percent = |share: Option<f64>| share.map_or_else(|| "-".to_owned(), |s| format!("{:.1} %", 100.0 * s));
    for i in 0..results.own_loss.len() {
        let mut cells = vec![
            short(&results.task_names[i]),
            number(Some(results.own_loss[i]), 4),
            number(at(&results.final_loss, i), 4),
            number(Some(results.constant_loss[i]), 4),
            percent(at(&results.disagreement_logged, i)),
        ];
        if !data_only {
            cells.push(percent(at(&results.disagreement, i)));
        }
        table.row(cells);
    }
    table.text()
}

/// Scores of the references, one line per task.
pub(crate) fn references(results: &Results) -> String {
    let r = &results.references;
    if r.single.iter().all(Option::is_none) {
        return String::new();
    }
    let mut table = Table::default();
    table.row(["references", "random", "untrained", "trained alone"].map(str::to_owned).to_vec());
    let at = |list: &[Option<f64>], i: usize| number(list.get(i).copied().flatten(), 1);
    for (i, name) in results.task_names.iter().enumerate() {
        table.row(vec![short(name), at(&r.random, i), at(&r.untrained, i), at(&r.single, i)]);
    }
    table.text()
}

/// Strategies side by side.
pub(crate) fn comparison(all: &[Results]) -> String {
    let mut table = Table::default();
    let head =
        ["strategy", "ACC", "BWT", "forgetting", "normalised", "memory", "with TE", "copies", "time", "old tasks"];
    table.row(head.map(str::to_owned).to_vec());
    for r in all {
        let m = &r.metrics;
        table.row(vec![
            r.name.clone(),
            number(m.ACC, 1),
            number(m.BWT, 1),
            number(m.Forgetting, 1),
            number(m.avg_score, 3),
            factor(m.memory_factor),
            factor(m.memory_factor_with_te),
            r.copies.to_string(),
            format!("{:.1} s", r.time_per_task_s.iter().sum::<f64>()),
            match r.bit_identical {
                Some(true) => "bit-identical".to_owned(),
                Some(false) => "CHANGED".to_owned(),
                None => "overwritten".to_owned(),
            },
        ]);
    }
    table.text()
}

/// One line per strategy and matrix entry.
pub(crate) fn csv(all: &[Results]) -> String {
    let mut text = String::from("strategy,after_task,on_task,score\n");
    for r in all {
        for (after, row) in r.task_names.iter().zip(&r.perf_matrix) {
            for (on, score) in r.task_names.iter().zip(row) {
                let score = score.map_or_else(String::new, |s| format!("{s:.6}"));
                _ = writeln!(text, "{},{},{},{score}", quoted(&r.name), quoted(after), quoted(on));
            }
        }
    }
    text
}

/// A number, or `-` where there is none.
pub(crate) fn number(value: Option<f64>, digits: usize) -> String {
    // Adding zero turns -0 into 0.
    value.map_or_else(|| "-".to_owned(), |v| format!("{:.digits$}", v + 0.0))
}

fn factor(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |v| format!("{v:.2}x"))
}

/// A name that leaves room for the rest of a line.
pub(crate) fn short(name: &str) -> String {
    match name.chars().count() {
        0..=20 => name.to_owned(),
        _ => name.chars().take(19).chain(['~']).collect(),
    }
}

/// Rows with aligned columns: the first to the left, the others to the right.
#[derive(Default)]
pub(crate) struct Table(Vec<Vec<String>>);

impl Table {
    /// Adds a row.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.0.push(cells);
    }

    /// All rows, indented.
    pub(crate) fn text(&self) -> String {
        let columns = self.0.iter().map(Vec::len).max().unwrap_or(0);
        let width = |c: usize| self.0.iter().filter_map(|r| r.get(c)).map(|s| s.chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.0 {
            let mut line = String::from("  ");
            for (c, cell) in row.iter().enumerate() {
                let pad = " ".repeat(widths[c] - cell.chars().count());
                let (left, right) = if c == 0 { ("", pad.as_str()) } else { (pad.as_str(), "") };
                _ = write!(line, "{}{left}{cell}{right}", if c == 0 { "" } else { "  " });
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::default();
        table.row(vec!["a".into(), "b".into()]);
        table.row(vec!["ä long".into(), "12".into()]);
        assert_eq!(table.text(), "  a        b\n  ä long  12\n");
        assert_eq!((number(Some(-0.0), 1), number(None, 1)), ("0.0".to_owned(), "-".to_owned()));
    }
}
