//! A program that is run elsewhere, by a page on its own WebGPU for example: what the host writes and when it runs is kept
//! in order, and what it reads was delivered.

use crate::error::Result;
use crate::program::{Element, Program};

/// What a program that runs elsewhere is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Fill an input or state.
    Write {
        /// Its name.
        name: String,
        /// Its contents, rows without gaps.
        bytes: Vec<u8>,
    },
    /// Run every call once.
    Run,
}

impl Program {
    /// Begins to keep messages instead of running calls. They start with nothing: states that were written before have to be
    /// written again.
    pub fn relay(&mut self) {
        self.relayed = Some(Vec::new());
    }

    /// Runs calls here again. States are as the host wrote them last, not as they became elsewhere.
    pub fn run_here(&mut self) {
        self.relayed = None;
    }

    /// Takes the messages since the last time, in order.
    pub fn messages(&mut self) -> Vec<Message> {
        self.relayed.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Puts what a run elsewhere made of a buffer into it.
    ///
    /// # Errors
    /// [`Error::NoBuffer`](crate::Error::NoBuffer) or [`Error::Data`](crate::Error::Data).
    pub fn deliver<T: Element>(&mut self, name: &str, data: &[T]) -> Result<()> {
        let at = self.find::<T>(name, data.len())?;
        self.fill(at, bytemuck::cast_slice(data))
    }
}
