//! Named values on the host, in the form programs take them.

use crate::bank::{Bank, TaskRecord};
use crate::error::Error;
use crate::task::action_words;
use autograd::engine::kernels::BitMask;
use autograd::engine::kernels::philox::{Rng, Stream};
use autograd::engine::{DType, Program};
use dt::autograd;
use dt::config::{Config, Init, Time};
use dt::model::input;
use std::collections::BTreeMap;

/// State buffers by name, as raw bytes in the layout of programs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State(pub BTreeMap<String, (DType, Vec<u8>)>);

impl State {
    /// Adds floats.
    pub fn put(&mut self, name: impl Into<String>, values: &[f32]) {
        self.0.insert(name.into(), (DType::F32, bytes(values, |v| v.to_le_bytes())));
    }

    /// Adds integers.
    pub fn put_u32(&mut self, name: impl Into<String>, values: &[u32]) {
        self.0.insert(name.into(), (DType::U32, bytes(values, |v| v.to_le_bytes())));
    }

    /// Adds bits.
    pub fn put_bits(&mut self, name: impl Into<String>, mask: &BitMask) {
        self.0.insert(name.into(), (DType::Bits, bytes(mask.words(), |v| v.to_le_bytes())));
    }

    /// Floats of a name.
    pub fn get(&self, name: &str) -> Option<Vec<f32>> {
        let (_, bytes) = self.0.get(name)?;
        Some(words(bytes).map(f32::from_bits).collect())
    }

    /// Words of a name.
    pub fn words(&self, name: &str) -> Option<Vec<u32>> {
        Some(words(&self.0.get(name)?.1).collect())
    }

    /// Everything a program keeps.
    ///
    /// # Errors
    /// What the device says; none on the CPU.
    pub fn of(program: &Program) -> Result<State, Error> {
        let states = program.states()?.into_iter();
        Ok(State(states.map(|(name, dtype, bytes)| (name.to_owned(), (dtype, bytes.into_owned()))).collect()))
    }

    /// Writes every value that the program has a place for.
    ///
    /// # Errors
    /// [`Error::Engine`] if a size differs.
    pub fn load(&self, program: &mut Program) -> Result<(), Error> {
        for (name, (_, bytes)) in &self.0 {
            if program.has(name) {
                program.write_state_bytes(name, bytes)?;
            }
        }
        Ok(())
    }

    /// Adds or replaces everything of another state.
    pub fn extend(&mut self, other: State) {
        self.0.extend(other.0);
    }

    /// Fresh parameters of a copy. Deterministic in `(seed, copy)`.
    pub fn fresh(config: &Config, seed: u64, copy: u32) -> State {
        let mut state = State::default();
        for (at, spec) in config.parameters().iter().enumerate() {
            let mut rng = Rng::new(seed, Stream::Init, [copy, at as u32]);
            state.put(spec.name.as_str(), &draw(spec.init, spec.len(), &mut rng));
        }
        state.put_time(config);
        state
    }

    /// The fixed time table, if the model has one.
    pub fn put_time(&mut self, config: &Config) {
        if config.time == Time::Sinusoidal {
            self.put(input::TIME, &config.time_table());
        }
    }

    /// What acting and measuring under a finished task needs: weights of its copy, its masks, norms and actions.
    pub fn of_task(bank: &Bank, task: &TaskRecord) -> State {
        let mut state = State::default();
        let copy = &bank.copies[task.copy];
        for weight in &copy.weights {
            state.put(weight.name.as_str(), &weight.values);
        }
        for ((weight, _), mask) in copy.masked().zip(&task.masks) {
            state.put_bits(format!("{}.mask", weight.name), mask);
        }
        for norm in &task.norms {
            state.put(norm.name.as_str(), &norm.values);
        }
        let (allowed, active) = action_words(&task.action);
        state.0.insert(input::ALLOWED.into(), (DType::Bits, bytes(&allowed, |v| v.to_le_bytes())));
        state.put(input::ACTIVE, &active);
        state
    }
}

/// Starting values.
pub(crate) fn draw(init: Init, len: usize, rng: &mut Rng) -> Vec<f32> {
    match init {
        Init::Constant(value) => vec![value; len],
        Init::Normal(std) => (0..len).map(|_| (std * rng.normal()) as f32).collect(),
        Init::Uniform(bound) => (0..len).map(|_| rng.uniform(-bound, bound) as f32).collect(),
    }
}

/// Values back to back. Chunks of a known size compile to a copy, an iterator of bytes does not.
fn bytes<T: Copy>(values: &[T], le: impl Fn(T) -> [u8; 4]) -> Vec<u8> {
    let mut bytes = vec![0; 4 * values.len()];
    bytes.as_chunks_mut().0.iter_mut().zip(values).for_each(|(to, value)| *to = le(*value));
    bytes
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
    bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}
