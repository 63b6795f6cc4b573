//! The combinations of a sweep: which runs there are, and what each is trained with.

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::path::Path;
use tsn::Strategy;

/// What a sweep goes over. Two sweeps of one directory must have equal grids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Grid {
    /// Names of strategies.
    pub strategies: Vec<String>,
    /// Seeds.
    pub seeds: Vec<u64>,
    /// Options of `train` and their values.
    pub vary: Vec<Vary>,
    /// Arguments of every `train`.
    pub train: Vec<String>,
}

/// One option of `train` that takes several values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Vary {
    /// Name of the option, without dashes.
    pub option: String,
    /// Its values.
    pub values: Vec<String>,
}

/// One run of a sweep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    /// Name of its directory.
    pub name: String,
    /// Strategy.
    pub strategy: String,
    /// Arguments of `train`, without directory and threads.
    pub arguments: Vec<String>,
    /// Directory name of the run of `single` with the same settings, if the sweep has one.
    pub reference: Option<String>,
}

impl Cell {
    /// The command that trains it in a folder of sweeps, but for threads.
    pub(super) fn words(&self, out: &Path) -> Vec<OsString> {
        let mut words: Vec<OsString> =
            std::iter::once("train".into()).chain(self.arguments.iter().map(Into::into)).collect();
        words.extend(["--quiet".into(), "--out".into(), out.join(&self.name).into()]);
        if let Some(reference) = &self.reference {
            words.extend(["--reference".into(), out.join(reference).into()]);
        }
        words
    }
}

/// Seeds as the user writes them: `3`, or `0..3` for 0, 1 and 2.
pub(crate) fn parse_seeds(text: &str) -> Result<Vec<u64>> {
    let number = |part: &str| part.trim().parse::<u64>().ok();
    let seeds = match text.split_once("..") {
        None => number(text).map(|seed| vec![seed]),
        Some((first, end)) => {
            number(first).zip(number(end)).filter(|(a, b)| b > a && b - a <= 10_000).map(|(a, b)| (a..b).collect())
        }
    };
    match seeds {
        Some(seeds) => Ok(seeds),
        None => bail!("expected a number, or a range as 0..3, found {text:?}"),
    }
}

/// `keep=0.05,0.1`.
pub(crate) fn parse_vary(text: &str) -> Result<Vary> {
    let Some((option, values)) = text.split_once('=') else { bail!("expected OPTION=VALUE,VALUE, found {text:?}") };
    let option = option.trim_start_matches('-').to_owned();
    let values: Vec<String> = values.split(',').map(str::to_owned).collect();
    let plain = |s: &str| !s.is_empty() && s.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if !plain(&option) || !values.iter().all(|value| plain(value)) {
        bail!("expected OPTION=VALUE,VALUE of letters, digits, dots, dashes and underscores, found {text:?}");
    }
    Ok(Vary { option, values })
}

impl Grid {
    /// Every combination, runs of `single` first: others take their reference scores from them.
    pub(crate) fn cells(&self) -> Vec<Cell> {
        let single = Strategy::Single.name();
        let has_single = self.strategies.iter().any(|s| s == single);
        let mut order: Vec<&String> = self.strategies.iter().collect();
        order.sort_by_key(|s| *s != single);
        let mut cells = Vec::new();
        for strategy in order {
            for choice in self.choices() {
                for seed in &self.seeds {
                    let name = |strategy: &str| {
                        let parts: Vec<String> =
                            choice.iter().map(|(option, value)| format!("{option}-{value}")).collect();
                        let tag = if parts.is_empty() { "base".to_owned() } else { parts.join("_") };
                        format!("{strategy}__{tag}__s{seed}")
                    };
                    let mut arguments = self.train.clone();
                    arguments.extend(["--strategy".into(), strategy.clone(), "--seed".into(), seed.to_string()]);
                    for (option, value) in &choice {
                        match option.strip_prefix("set.") {
                            Some(key) => arguments.extend(["--set".into(), format!("{key}={value}")]),
                            None => arguments.extend([format!("--{option}"), (*value).to_owned()]),
                        }
                    }
                    let reference = (has_single && strategy != single).then(|| name(single));
                    cells.push(Cell { name: name(strategy), strategy: strategy.clone(), arguments, reference });
                }
            }
        }
        cells
    }

    /// One value of every varied option, in all combinations.
    fn choices(&self) -> Vec<Vec<(&str, &str)>> {
        let mut all = vec![Vec::new()];
        for vary in &self.vary {
            let longer = all.iter().flat_map(|choice| {
                vary.values.iter().map(move |value| {
                    let mut longer = choice.clone();
                    longer.push((vary.option.as_str(), value.as_str()));
                    longer
                })
            });
            all = longer.collect();
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_combinations_with_references_first() {
        let grid = Grid {
            strategies: vec!["naive".into(), "single".into()],
            seeds: vec![0, 7],
            vary: vec![parse_vary("--keep=0.1,0.2").unwrap(), parse_vary("set.mix=0.3").unwrap()],
            train: vec!["--suite".into(), "demo".into()],
        };
        let cells = grid.cells();
        assert_eq!(cells.len(), 8);
        assert!(cells[..4].iter().all(|c| c.strategy == "single" && c.reference.is_none()));
        assert_eq!(cells[5].name, "naive__keep-0.1_set.mix-0.3__s7");
        assert_eq!(cells[5].reference.as_deref(), Some("single__keep-0.1_set.mix-0.3__s7"));
        let expected = "--suite demo --strategy naive --seed 7 --keep 0.1 --set mix=0.3";
        assert_eq!(cells[5].arguments.join(" "), expected);
    }

    #[test]
    fn what_is_no_grid_is_refused() {
        assert_eq!(parse_seeds("2..5").unwrap(), [2, 3, 4]);
        for bad in ["", "x", "3..3", "5..2", "0..1000000", "-1", "1..2..3"] {
            assert!(parse_seeds(bad).is_err(), "{bad}");
        }
        for bad in ["keep", "=1", "keep=", "keep=1,,2", "keep=../x", "ke ep=1"] {
            assert!(parse_vary(bad).is_err(), "{bad}");
        }
    }
}
