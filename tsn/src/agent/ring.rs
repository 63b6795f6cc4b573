//! The last steps of an episode as the environment gave them.

use affinity::online::{Act, Actions, Signature};

/// The last steps, raw.
pub(super) struct Ring {
    pub(super) obs: Vec<f32>,
    /// One number for an action of a list.
    pub(super) action: Vec<f32>,
    /// Sum of rewards before the step, as they are and by sign.
    pub(super) earned: Vec<[f64; 2]>,
    pub(super) width: usize,
    pub(super) actions: usize,
    pub(super) capacity: usize,
    /// Steps so far, and whether the newest one has its action.
    pub(super) steps: usize,
    pub(super) acted: bool,
}

impl Ring {
    pub(super) fn new(capacity: usize, width: usize, actions: usize) -> Ring {
        Ring {
            obs: vec![0.0; capacity * width],
            action: vec![0.0; capacity * actions],
            earned: vec![[0.0; 2]; capacity],
            width,
            actions,
            capacity,
            steps: 0,
            acted: false,
        }
    }

    pub(super) fn push(&mut self, obs: &[f32], earned: [f64; 2]) {
        let at = self.steps % self.capacity;
        self.obs[at * self.width..][..self.width].copy_from_slice(obs);
        self.earned[at] = earned;
        self.steps += 1;
        self.acted = false;
    }

    pub(super) fn last_action(&self, signature: &Signature) -> Act<'_> {
        let at = (self.steps + self.capacity - 1) % self.capacity;
        let values = &self.action[at * self.actions..][..self.actions];
        match signature.actions {
            Actions::Discrete(_) => Act::Id(values[0] as u32),
            Actions::Continuous(_) => Act::Vector(values),
        }
    }
}
