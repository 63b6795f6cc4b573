//! Alternating two sides until every row has a verdict.
//!
//! A round is four runs, A B B A and in the next round B A A B; the lesser time of a side's two runs counts, so that one
//! disturbed run spoils nothing. A batch is some rounds. A row whose first batch says *slower* or *unusable* is measured
//! in another one, up to [`BATCHES`]. *Slower* stands only if two batches in a row say so: a disturbance that lasts a
//! whole batch is otherwise a false alarm.

use crate::measure::compare::Comparison;
use crate::measure::file::File;
use crate::measure::rule::{Rule, Verdict};
use anyhow::Result;

/// Most batches of a row.
const BATCHES: usize = 4;

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Base,
    New,
}

/// Measures some ids on a side, all if the list is empty.
pub(crate) type Measure<'a> = dyn FnMut(Side, &[String]) -> Result<File> + 'a;

/// Measures both sides in turn. The numbers of a row are those of its last batch.
///
/// # Errors
/// Those of `measure`.
pub(crate) fn settle(rule: &Rule, rounds: usize, only: &[String], measure: &mut Measure<'_>) -> Result<Comparison> {
    let mut settled = batch(rule, rounds, only, measure)?;
    let mut open = unsettled(&settled, &Comparison::default());
    for nth in 1..BATCHES {
        if open.is_empty() {
            break;
        }
        let next = batch(rule, rounds, &open, measure)?;
        let before = settled.clone();
        for id in &open {
            match next.rows.get(id) {
                Some(judged) => {
                    settled.rows.insert(id.clone(), *judged);
                }
                None => unusable(&mut settled, id),
            }
        }
        let still = unsettled(&settled, &before);
        open.retain(|id| still.contains(id) && next.rows.contains_key(id));
        if nth + 1 == BATCHES {
            // Slower for the first time in the last batch.
            open.iter().for_each(|id| unusable(&mut settled, id));
        }
    }
    Ok(settled)
}

fn unusable(comparison: &mut Comparison, id: &str) {
    if let Some(row) = comparison.rows.get_mut(id) {
        row.verdict = Verdict::Unusable;
    }
}

/// Ids of rows whose verdict needs another batch.
fn unsettled(now: &Comparison, before: &Comparison) -> Vec<String> {
    let confirmed = |id: &String| before.rows.get(id).is_some_and(|row| row.verdict == Verdict::Slower);
    let open = now.rows.iter().filter(|(id, row)| match row.verdict {
        Verdict::Same | Verdict::Faster => false,
        Verdict::Slower => !confirmed(id),
        Verdict::Unusable => true,
    });
    open.map(|(id, _)| id.clone()).collect()
}

fn batch(rule: &Rule, rounds: usize, only: &[String], measure: &mut Measure<'_>) -> Result<Comparison> {
    let (mut base, mut new) = (File::default(), File::default());
    for round in 0..rounds {
        let (first, second) = if round % 2 == 0 { (Side::Base, Side::New) } else { (Side::New, Side::Base) };
        let mut sides = [File::default(), File::default()];
        for side in [first, second, second, first] {
            sides[side as usize].lesser(measure(side, only)?);
        }
        let [one, other] = sides;
        base.append(one);
        new.append(other);
    }
    Ok(Comparison::new(&base, &new, rule))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::file::tests::row;

    /// Settles rows `a` and `b`; the ratio of `a` in its nth batch is `ratios[nth]` with a deviation, `b` is equal.
    fn settled(ratios: &[f64], deviation: f64) -> (Comparison, Vec<(Side, usize)>) {
        let mut calls = Vec::new();
        let rounds = 3;
        let comparison = settle(&Rule::default(), rounds, &[], &mut |side, only| {
            let call = calls.len();
            calls.push((side, only.len()));
            let ratio = ratios.get(call / (4 * rounds)).copied().unwrap_or(f64::NAN);
            let wobble = 1.0 + deviation * (call % (4 * rounds) / 4) as f64;
            let time = if side == Side::New { 100.0 * ratio * wobble } else { 100.0 };
            let lines = [("a", time), ("b", 50.0)].map(|(id, ns)| row(id, ns));
            let wanted = lines.iter().take(if only.is_empty() { 2 } else { 1 });
            File::parse(&wanted.cloned().collect::<Vec<_>>().join("\n"))
        });
        (comparison.unwrap(), calls)
    }

    fn verdict(ratios: &[f64]) -> (Verdict, usize) {
        let (found, calls) = settled(ratios, 0.001);
        assert_eq!(found.rows["b"].verdict, Verdict::Same);
        (found.rows["a"].verdict, calls.len() / 12)
    }

    #[test]
    fn slower_is_confirmed() {
        assert_eq!(verdict(&[1.0]), (Verdict::Same, 1));
        assert_eq!(verdict(&[0.8]), (Verdict::Faster, 1));
        assert_eq!(verdict(&[1.2, 1.2]), (Verdict::Slower, 2));
        assert_eq!(verdict(&[1.2, 1.0]), (Verdict::Same, 2));
    }

    #[test]
    fn the_order_is_swapped_and_later_batches_hold_open_rows_only() {
        let (_, calls) = settled(&[1.2, 1.2], 0.001);
        let sides: String = calls.iter().map(|(side, _)| if *side == Side::Base { 'A' } else { 'B' }).collect();
        assert_eq!(sides, "ABBABAABABBA".repeat(2));
        let open: Vec<usize> = calls.iter().map(|(_, n)| *n).collect();
        assert_eq!(open, [[0; 12], [1; 12]].concat());
    }

    #[test]
    fn noise_stays_unusable_and_ends() {
        let (found, calls) = settled(&[1.2; BATCHES], 0.5);
        assert_eq!((found.rows["a"].verdict, calls.len()), (Verdict::Unusable, 12 * BATCHES));
    }

    #[test]
    fn a_row_that_vanishes_is_unusable() {
        let mut calls = 0;
        let found = settle(&Rule::default(), 3, &[], &mut |side, _| {
            calls += 1;
            let time = if side == Side::New { 120.0 } else { 100.0 };
            File::parse(&if calls <= 12 { row("a", time) } else { String::new() })
        });
        assert_eq!(found.unwrap().rows["a"].verdict, Verdict::Unusable);
    }

    #[test]
    fn slower_in_the_last_batch_alone_is_not_confirmed() {
        let mut calls = 0i32;
        let found = settle(&Rule::default(), 3, &[], &mut |side, _| {
            let wobble = if calls < 36 { f64::from(calls / 4 % 3) } else { 0.0 };
            calls += 1;
            File::parse(&row("a", if side == Side::New { 120.0 + 60.0 * wobble } else { 100.0 }))
        });
        assert_eq!((found.unwrap().rows["a"].verdict, calls), (Verdict::Unusable, 48));
    }
}
