//! What can go wrong with a process that runs simulators.

use super::frame::Fault;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// A simulator that cannot be used; every text names it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// The interpreter does not start.
    NoPython {
        /// Its path.
        python: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// A package is not installed.
    Missing {
        /// The interpreter.
        python: PathBuf,
        /// The environment that needs it.
        env: String,
        /// The package.
        package: String,
        /// What the import said.
        reason: String,
    },
    /// No installed package has the environment.
    Unknown {
        /// The interpreter.
        python: PathBuf,
        /// The environment.
        env: String,
        /// What gymnasium said.
        reason: String,
    },
    /// The environment refused: parameters, actions, or a fault of its own.
    Refused {
        /// The peer.
        peer: String,
        /// What it said.
        reason: String,
    },
    /// The peer ended.
    Died {
        /// The peer.
        peer: String,
        /// What was asked of it.
        doing: &'static str,
        /// How it ended.
        how: String,
        /// The end of what it wrote to stderr.
        tail: String,
    },
    /// The peer did not answer in time.
    Silent {
        /// The peer.
        peer: String,
        /// What was asked of it.
        doing: &'static str,
        /// How long it had.
        after: Duration,
        /// The end of what it wrote to stderr.
        tail: String,
    },
    /// The peer sent something that is no answer.
    Babble {
        /// The peer.
        peer: String,
        /// What was asked of it.
        doing: &'static str,
        /// What came.
        fault: Box<Fault>,
        /// The end of what it wrote to stderr.
        tail: String,
    },
}

impl Error {
    /// The simulator is not there, as opposed to broken or badly described.
    pub fn is_absence(&self) -> bool {
        matches!(self, Error::NoPython { .. } | Error::Missing { .. } | Error::Unknown { .. })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last_words = |tail: &str| match tail {
            "" => String::new(),
            tail => format!("; its stderr ends: {tail}"),
        };
        match self {
            Error::NoPython { python, reason } => {
                write!(f, "Python {} does not start: {reason}; give another one with --python", python.display())
            }
            Error::Missing { python, env, package, reason } => {
                let python = python.display();
                write!(f, "{env} needs {package}, which {python} does not have ({reason}); see tsn-affinity doctor")
            }
            Error::Unknown { python, env, reason } => {
                write!(f, "{} has no environment {env}: {reason}", python.display())
            }
            Error::Refused { peer, reason } => write!(f, "{peer}: {reason}"),
            Error::Died { peer, doing, how, tail } => {
                write!(f, "{peer} ended while asked to {doing}: {how}{}", last_words(tail))
            }
            Error::Silent { peer, doing, after, tail } => {
                let after = after.as_secs_f64();
                write!(f, "{peer} did not answer within {after} s when asked to {doing}{}", last_words(tail))
            }
            Error::Babble { peer, doing, fault, tail } => {
                write!(f, "{peer} gave no answer when asked to {doing}: {fault}{}", last_words(tail))
            }
        }
    }
}

impl std::error::Error for Error {}
