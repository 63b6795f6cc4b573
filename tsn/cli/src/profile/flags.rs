//! The options of `profile`, with one for every letter that a dimension may have: `--r 60,3840`, `--i 128`.

use super::masks::Kind;
use super::suites::Suite;
use super::syntax::{Densities, Sizes};
use crate::args::{Output, Tuning, threads};
use clap::{Arg, ArgMatches, Args, Command, Error, FromArgMatches};
use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(Args)]
#[command(after_help = "\
Sizes: --LETTER LIST for the letters of the op (see --list), for example --r 60,3840.
LIST is 60,1280 or 128:512:128 (from, to, step) or 64:4096:*2 (from, to, factor), mixed.
MASK is random*, row, column, block:SIDE, N:M (2:4) or bank:FILE[:TASK[:TENSOR]].
* default

Example:
  tsn-affinity profile masked_gemm --r 60 --o 128,512 --density 0.1,0.5 --measure-ms 5")]
pub(crate) struct ProfileArgs {
    /// Ops to time, separated by commas
    #[arg(value_name = "OP", value_delimiter = ',', required_unless_present_any = ["list", "suite"])]
    pub op: Vec<String>,
    #[command(flatten)]
    pub letters: Letters,
    /// Shares of the weights that masks keep
    #[arg(long, value_name = "LIST", allow_negative_numbers = true)]
    pub density: Option<Densities>,
    /// Which weights masks keep
    #[arg(long, value_name = "MASK")]
    pub mask: Option<Kind>,
    /// Element type of arguments that leave a choice
    #[arg(long, value_name = "NAME", default_value = "f32")]
    pub dtype: String,
    /// A variant, or all; otherwise the one that runs by default
    #[arg(long, value_name = "NAME")]
    pub variant: Option<String>,
    /// Workers; 0 is one per core
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1", value_parser = threads)]
    pub threads: Vec<usize>,
    /// cpu, cuda[:n] or wgpu[:n]
    #[arg(long, value_name = "NAME", default_value = "cpu")]
    pub device: String,
    #[command(flatten)]
    pub tuning: Tuning,
    /// Caches before each call: warm, cold or both
    #[arg(long, value_name = "NAME", default_value = "warm", hide_possible_values = true)]
    pub cache: CacheArg,
    /// Weights change between calls: packing or listing them is timed too
    #[arg(long, conflicts_with = "once")]
    pub fresh: bool,
    /// A fixed list of cases instead: anchors (with goals) or quick
    #[arg(long, value_name = "NAME", conflicts_with_all = ["op", "density", "mask", "dtype", "variant"], hide_possible_values = true)]
    pub suite: Option<Suite>,
    /// Only cases whose op/shape contains one of the texts
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub filter: Vec<String>,
    /// Milliseconds before a case is timed
    #[arg(long, value_name = "N", default_value_t = 25, value_parser = clap::value_parser!(u64).range(0..=60_000))]
    pub warm_up_ms: u64,
    /// Milliseconds that a case is timed; 5 to 1000 samples
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    pub measure_ms: u64,
    /// Seed of values and masks
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// One call to warm up and one call, for perf and valgrind: no clock, no check
    #[arg(long, alias = "profile", conflicts_with_all = ["json", "csv", "html", "suite"])]
    pub once: bool,
    /// List ops with letters, usual sizes, variants and arguments
    #[arg(long)]
    pub list: bool,
    /// Write a roofline page
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    #[command(flatten)]
    pub output: Output,
}

/// What is in the caches when a call begins.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum CacheArg {
    Warm,
    Cold,
    Both,
}

/// Sizes by letter.
#[derive(Clone, Debug, Default)]
pub(crate) struct Letters(pub BTreeMap<char, Vec<u32>>);

const ALL: &str = "abcdefghijklmnopqrstuvwxyz";

/// Every letter as a name and as itself.
fn all() -> impl Iterator<Item = (&'static str, char)> {
    ALL.char_indices().map(|(at, letter)| (&ALL[at..=at], letter))
}

impl Args for Letters {
    fn augment_args(command: Command) -> Command {
        // Hidden: twenty-six lines of help would say what one does.
        let option = |(name, _)| {
            Arg::new(name).long(name).hide(true).value_name("LIST").value_parser(clap::value_parser!(Sizes))
        };
        command.args(all().map(option))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Letters {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Letters, Error> {
        let one = |(name, letter)| Some((letter, matches.get_one::<Sizes>(name)?.0.clone()));
        Ok(Letters(all().filter_map(one).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        self.0.extend(Letters::from_arg_matches(matches)?.0);
        Ok(())
    }
}
