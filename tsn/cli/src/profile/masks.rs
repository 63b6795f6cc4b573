//! Kinds of masks: drawn at random, structured, or learned.

use std::path::PathBuf;
use std::str::FromStr;
use tsn::dt::autograd::engine::kernels::BitMask;
use tsn::dt::autograd::engine::kernels::philox::{Rng, Stream};

/// Which weights a mask keeps.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    /// Every weight by itself.
    Random,
    /// Whole rows: output features.
    Row,
    /// Whole columns: input features.
    Column,
    /// Squares of this side.
    Block(u32),
    /// `n` of every `m` neighbours in a row.
    NOfM(u32, u32),
    /// The masks of a bank: file, task, tensor.
    Bank(PathBuf, Option<String>, Option<String>),
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Kind, String> {
        let bad = || {
            let all = "random, row, column, block:SIDE (1 to 4096), N:M (1 <= N <= M <= 32), bank:FILE[:TASK[:TENSOR]]";
            format!("`{text}` is no kind of mask; there are {all}")
        };
        match text.split(':').collect::<Vec<_>>()[..] {
            ["random"] => Ok(Kind::Random),
            ["row"] => Ok(Kind::Row),
            ["column"] => Ok(Kind::Column),
            ["block", side] => match side.parse() {
                Ok(side @ 1..=4096) => Ok(Kind::Block(side)),
                _ => Err(bad()),
            },
            ["bank", file] if !file.is_empty() => Ok(Kind::Bank(file.into(), None, None)),
            ["bank", file, task] => Ok(Kind::Bank(file.into(), Some(task.into()), None)),
            ["bank", file, task, tensor] => Ok(Kind::Bank(file.into(), Some(task.into()), Some(tensor.into()))),
            [n, m] => match (n.parse(), m.parse()) {
                (Ok(n), Ok(m)) if 0 < n && n <= m && m <= 32 => Ok(Kind::NOfM(n, m)),
                _ => Err(bad()),
            },
            _ => Err(bad()),
        }
    }
}

impl Kind {
    /// Name in rows and ids.
    pub(crate) fn name(&self) -> String {
        match self {
            Kind::Random => "random".into(),
            Kind::Row => "row".into(),
            Kind::Column => "column".into(),
            Kind::Block(side) => format!("block{side}"),
            Kind::NOfM(n, m) => format!("{n}of{m}"),
            Kind::Bank(..) => "bank".into(),
        }
    }

    /// The density that the kind itself fixes.
    pub(crate) fn density(&self) -> Option<f64> {
        match self {
            Kind::NOfM(n, m) => Some(f64::from(*n) / f64::from(*m)),
            _ => None,
        }
    }

    /// A mask; structured kinds keep the whole number of units that is nearest to the density.
    pub(crate) fn draw(&self, rows: u32, cols: u32, density: f64, seed: u64) -> BitMask {
        let mut rng = Rng::new(seed, Stream::Scores, [rows, cols]);
        match self {
            // One draw per weight: the counts of rows differ as they do in a learned mask.
            Kind::Random | Kind::Bank(..) => {
                let n = u64::from(rows) * u64::from(cols);
                BitMask::from_flags(rows, cols, (0..n).map(|_| rng.unit() < density))
            }
            Kind::Row => {
                let keep = some(rows, density, &mut rng);
                units(rows, cols, |r, _| keep[r as usize])
            }
            Kind::Column => {
                let keep = some(cols, density, &mut rng);
                units(rows, cols, |_, c| keep[c as usize])
            }
            Kind::Block(side) => {
                let wide = cols.div_ceil(*side);
                let keep = some(rows.div_ceil(*side) * wide, density, &mut rng);
                units(rows, cols, |r, c| keep[(r / side * wide + c / side) as usize])
            }
            Kind::NOfM(n, m) => {
                let mut mask = BitMask::zeros(rows, cols);
                for row in 0..rows {
                    for from in (0..cols).step_by(*m as usize) {
                        let mut places: Vec<u32> = (from..cols.min(from + m)).collect();
                        shuffle(&mut places, &mut rng);
                        places.iter().take(*n as usize).for_each(|&c| mask.set(row as usize, c as usize));
                    }
                }
                mask
            }
        }
    }
}

fn units(rows: u32, cols: u32, keep: impl Fn(u32, u32) -> bool) -> BitMask {
    BitMask::from_flags(rows, cols, (0..rows).flat_map(|r| (0..cols).map(move |c| (r, c))).map(|(r, c)| keep(r, c)))
}

/// Flags for `n` units of which the share `density` is set.
fn some(n: u32, density: f64, rng: &mut Rng) -> Vec<bool> {
    let mut order: Vec<u32> = (0..n).collect();
    shuffle(&mut order, rng);
    let mut keep = vec![false; n as usize];
    let count = (f64::from(n) * density).round() as usize;
    order.into_iter().take(count).for_each(|at| keep[at as usize] = true);
    keep
}

fn shuffle(items: &mut [u32], rng: &mut Rng) {
    for at in (1..items.len()).rev() {
        items.swap(at, rng.below(at as u64 + 1) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read() {
        assert_eq!("2:4".parse(), Ok(Kind::NOfM(2, 4)));
        assert_eq!("block:16".parse(), Ok(Kind::Block(16)));
        let bank = Kind::Bank("a.safetensors".into(), Some("P".into()), None);
        assert_eq!("bank:a.safetensors:P".parse(), Ok(bank));
        for text in ["", "rows", "block", "block:0", "5:4", "0:4", "1:64", "bank:", "bank:a:b:c:d", "1:2:3"] {
            assert!(text.parse::<Kind>().is_err(), "{text}");
        }
    }

    #[test]
    fn densities_and_structure() {
        let (rows, cols) = (64, 96);
        for (kind, share) in
            [(Kind::Row, 0.25), (Kind::Column, 0.25), (Kind::Block(16), 0.25), (Kind::NOfM(1, 4), 0.25)]
        {
            let mask = kind.draw(rows, cols, share, 1);
            assert_eq!(mask.count(), 64 * 96 / 4, "{kind:?}");
            assert_eq!(mask, kind.draw(rows, cols, share, 1));
            assert_ne!(mask, kind.draw(rows, cols, share, 2));
        }
        let random = Kind::Random.draw(rows, cols, 0.25, 1);
        assert!((random.count() as f64 / 6144.0 - 0.25).abs() < 0.03);
        let rows_whole = Kind::Row.draw(8, 5, 0.5, 3);
        assert!((0..8).all(|r| (0..5).all(|c| rows_whole.get(r, c) == rows_whole.get(r, 0))));
        let two_of_four = Kind::NOfM(2, 4).draw(3, 8, 1.0, 3);
        assert!((0..3).all(|r| [0, 4].iter().all(|f| (*f..f + 4).filter(|c| two_of_four.get(r, *c)).count() == 2)));
        // A last group that is shorter than n keeps all.
        assert_eq!(Kind::NOfM(2, 4).draw(1, 5, 1.0, 0).count(), 3);
    }
}
