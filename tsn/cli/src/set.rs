//! `--set KEY=X`: settings that some strategies alone have.

use crate::settings::parse_fisher;
use anyhow::{Result, anyhow, bail};
use std::fmt;
use tsn::{Baseline, Fisher, Options, Strategy, WarmStart};

/// One setting and its value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Setting {
    /// Share of a warm-started mask that is inherited.
    Inherit(f64),
    /// Head start of the source's weights in the scores of a warm start.
    Nudge(f32),
    /// How strongly earlier tasks hold weights back.
    Strength(f32),
    /// How the Fisher information is summed.
    Fisher(Fisher),
    /// Share of windows from earlier tasks.
    Mix(f64),
    /// Trajectories kept of each earlier task.
    Buffer(usize),
}

impl Setting {
    /// `mix=0.3`.
    ///
    /// # Errors
    /// Names the keys, or what a key takes.
    pub(crate) fn parse(text: &str) -> Result<Setting> {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        let unlike = |what: &str| anyhow!("{key}: expected {what}, found {value:?}");
        Ok(match key {
            "inherit" => Setting::Inherit(value.parse().map_err(|_| unlike("a share"))?),
            "nudge" => Setting::Nudge(value.parse().map_err(|_| unlike("a number"))?),
            "strength" => Setting::Strength(value.parse().map_err(|_| unlike("a number"))?),
            "fisher" => Setting::Fisher(parse_fisher(value)?),
            "mix" => Setting::Mix(value.parse().map_err(|_| unlike("a share"))?),
            "buffer" => Setting::Buffer(value.parse().map_err(|_| unlike("a number of trajectories"))?),
            _ => bail!("{key} cannot be set: expected inherit, nudge, strength, fisher, mix or buffer"),
        })
    }

    /// True if it means something to a strategy.
    pub(crate) fn is_of(self, strategy: Strategy) -> bool {
        match self {
            Setting::Inherit(_) | Setting::Nudge(_) => strategy.is_masked() && !strategy.is_disjoint(),
            Setting::Strength(_) => matches!(strategy, Strategy::Ewc | Strategy::Si),
            Setting::Fisher(_) => strategy == Strategy::Ewc,
            Setting::Mix(_) | Setting::Buffer(_) => strategy == Strategy::Cumulative,
        }
    }

    /// Sets it where it belongs: in the options, or in their baseline.
    pub(crate) fn apply(self, options: &mut Options) {
        let Options { inherit, warm_start, baseline: Baseline { strength, fisher, mix, buffer, .. }, .. } = options;
        match self {
            Setting::Inherit(x) => *inherit = x,
            Setting::Nudge(x) => *warm_start = WarmStart::Nudge(x),
            Setting::Strength(x) => *strength = x,
            Setting::Fisher(x) => *fisher = x,
            Setting::Mix(x) => *mix = x,
            Setting::Buffer(x) => *buffer = x,
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Setting::Inherit(_) => "inherit",
            Setting::Nudge(_) => "nudge",
            Setting::Strength(_) => "strength",
            Setting::Fisher(_) => "fisher",
            Setting::Mix(_) => "mix",
            Setting::Buffer(_) => "buffer",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_read_and_lands_where_it_belongs() {
        let mut options = Options::corrected(Strategy::TsnAffinity);
        for text in ["inherit=0.9", "nudge=0.3", "strength=7", "fisher=batch_mean", "mix=0.25", "buffer=11"] {
            let setting = Setting::parse(text).unwrap();
            assert!(text.starts_with(&format!("{setting}=")), "{text}");
            setting.apply(&mut options);
        }
        assert_eq!((options.inherit, options.warm_start), (0.9, WarmStart::Nudge(0.3)));
        let Baseline { strength, fisher, mix, buffer, .. } = options.baseline;
        assert_eq!((strength, fisher, mix, buffer), (7.0, Fisher::BatchMean, 0.25, 11));
    }

    #[test]
    fn bad_settings_are_named() {
        for (text, part) in [
            ("speed=1", "speed cannot be set: expected inherit"),
            ("inherit", "inherit: expected a share, found \"\""),
            ("nudge=much", "nudge: expected a number, found \"much\""),
            ("fisher=x", "fisher x does not work"),
            ("buffer=-1", "buffer: expected a number of trajectories"),
        ] {
            let message = Setting::parse(text).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn only_strategies_that_start_warm_inherit() {
        let of = |strategy| Setting::Inherit(0.5).is_of(strategy) && Setting::Nudge(0.1).is_of(strategy);
        assert!(of(Strategy::TsnAffinity) && of(Strategy::FirstMatch));
        assert!(!(of(Strategy::Tsn) || of(Strategy::PackNet) || of(Strategy::Naive) || of(Strategy::Single)));
    }
}
