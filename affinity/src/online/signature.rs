//! What an environment shows of itself, and what passes between it and a filter.

use crate::error::{Error, Result, in_range};
use std::fmt;
use std::str::FromStr;

/// What an observation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Numbers.
    Vector(usize),
    /// Pixels of one grey frame.
    Frame {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
}

/// What actions there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actions {
    /// One of some.
    Discrete(usize),
    /// A vector.
    Continuous(usize),
}

impl Actions {
    /// Actions to choose from, or numbers of one.
    pub fn len(self) -> usize {
        match self {
            Actions::Discrete(n) | Actions::Continuous(n) => n,
        }
    }

    /// True if there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// What an environment shows before it is played. As text: `vector 4 discrete 2`, `frame 84 84 discrete 6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    /// A raw observation.
    pub observation: Shape,
    /// Its actions.
    pub actions: Actions,
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.observation {
            Shape::Vector(d) => write!(f, "vector {d} ")?,
            Shape::Frame { height, width } => write!(f, "frame {height} {width} ")?,
        }
        match self.actions {
            Actions::Discrete(n) => write!(f, "discrete {n}"),
            Actions::Continuous(n) => write!(f, "continuous {n}"),
        }
    }
}

impl FromStr for Signature {
    type Err = Error;

    fn from_str(text: &str) -> Result<Signature> {
        let words: Vec<&str> = text.split(' ').collect();
        let number = |word: &str| word.parse::<u32>().ok().filter(|n| *n > 0).map(|n| n as usize);
        let read = || -> Option<Signature> {
            let (observation, rest) = match words[..] {
                ["vector", d, ref rest @ ..] => (Shape::Vector(number(d)?), rest),
                ["frame", h, w, ref rest @ ..] => (Shape::Frame { height: number(h)?, width: number(w)? }, rest),
                _ => return None,
            };
            let actions = match *rest {
                ["discrete", n] => Actions::Discrete(number(n)?),
                ["continuous", n] => Actions::Continuous(number(n)?),
                _ => return None,
            };
            Some(Signature { observation, actions })
        };
        read().ok_or_else(|| Error::Size { what: "signature", why: format!("cannot read {text:?}") })
    }
}

/// One executed action.
#[derive(Clone, Copy, Debug)]
pub enum Act<'a> {
    /// Number of the action.
    Id(u32),
    /// One number per dimension.
    Vector(&'a [f32]),
}

/// Checks a step against a signature.
pub(super) fn check(signature: &Signature, action: Option<Act<'_>>, obs: &[f32]) -> Result<()> {
    let expected = match signature.observation {
        Shape::Vector(d) => d,
        Shape::Frame { height, width } => height * width,
    };
    if obs.len() != expected {
        return Err(Error::Length { what: "observation", expected, found: obs.len() });
    }
    if let Some(value) = obs.iter().find(|value| !value.is_finite()) {
        in_range("observed value", f64::from(*value), "the finite numbers", |_| true)?;
    }
    match (signature.actions, action) {
        (_, None) => Ok(()),
        (Actions::Discrete(n), Some(Act::Id(id))) => {
            in_range("action", f64::from(id), "the actions of the environment", |id| id < n as f64).map(|_| ())
        }
        (Actions::Continuous(n), Some(Act::Vector(a))) if a.len() == n => {
            let bad = a.iter().find(|value| !value.is_finite());
            bad.map_or(Ok(()), |value| {
                in_range("action", f64::from(*value), "the finite numbers", |_| true).map(|_| ())
            })
        }
        (actions, Some(_)) => Err(Error::Size { what: "action", why: format!("is not one of {actions:?}") }),
    }
}
