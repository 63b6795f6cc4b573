//! An agent whose program runs elsewhere, on the WebGPU of a page for example.
//!
//! After [`Agent::relay`] a decision is [`Agent::begin`], [`Agent::messages`] for whoever runs the program,
//! [`Agent::deliver`] with what came out, [`Agent::finish`].

use super::{Agent, load_time};
use crate::error::Error;
use dt::autograd::engine::Message;
use dt::train::output;

impl Agent {
    /// From the next observation on the program is run elsewhere, by whoever takes the messages and delivers outputs. The last
    /// steps are played again there, so that it knows what this one knew.
    ///
    /// # Errors
    /// [`Error::Engine`].
    pub fn relay(&mut self) -> Result<(), Error> {
        self.program.relay();
        self.loaded = None;
        load_time(&self.config, &mut self.program)
    }

    /// The program is run here again, from the last observation on if it was not answered; the last steps are played again.
    ///
    /// # Errors
    /// [`Error::Engine`].
    pub fn run_here(&mut self) -> Result<(), Error> {
        self.program.run_here();
        self.loaded = None;
        match self.session.as_ref().is_some_and(|session| session.begun) {
            true => self.think(),
            false => load_time(&self.config, &mut self.program),
        }
    }

    /// Takes what a program elsewhere is to be told between [`Agent::begin`] and [`Agent::finish`].
    pub fn messages(&mut self) -> Vec<Message> {
        self.program.messages()
    }

    /// Takes the outputs of the last run elsewhere, one for each of the model's actions.
    ///
    /// # Errors
    /// [`Error::Engine`] for more or fewer.
    pub fn deliver(&mut self, outputs: &[f32]) -> Result<(), Error> {
        Ok(self.program.deliver(output::OUTPUT, outputs)?)
    }
}
