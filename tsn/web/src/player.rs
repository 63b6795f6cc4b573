//! A pole in a world that may change under an agent that is not told.
//!
//! The world is CartPole with the physics of one task of the bank; [`Player::set_world`] swaps them in the middle of an
//! episode and leaves the pole where it is. The agent sees states and its own actions, nothing else.

use tsn::affinity::online::{Act, Actions, Settings, Shape, Signature};
use tsn::agent::{Choose, Status};
use tsn::dt::autograd::engine::{Device, Message};
use tsn::dt::env::cartpole::{CartPole, Derived, STEP_LIMIT, Variant};
use tsn::dt::env::{Action, Env};
use tsn::suite::Suite;
use tsn::{Agent, Bank, Error, TensorFile};

/// Share of the score that is kept from state to state. What spoke for the old task must fade, or a change would be
/// believed only after as many steps as the old task was played.
const KEEP: f64 = 0.8;

/// One agent and its world.
pub struct Player {
    agent: Agent,
    /// What differs from the default physics, per task of the bank.
    tasks: Vec<Variant>,
    env: CartPole,
    obs: [f32; 4],
    seed: u64,
    /// Steps since the world changed.
    since: u32,
    view: View,
}

/// What the page shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// Place of the cart, m; angle of the pole, rad, clockwise.
    pub place: [f64; 2],
    /// Half the length of the pole, m.
    pub length: f64,
    /// Last push, N, positive to the right.
    pub force: f64,
    /// Seconds of a step.
    pub tau: f64,
    /// Steps of the running episode.
    pub step: u32,
    /// Episodes so far, the running one included, and how many ended because the pole fell.
    pub episodes: u32,
    /// See `episodes`.
    pub falls: u32,
    /// Task of the world.
    pub world: usize,
    /// Task that the agent plays.
    pub routed: usize,
    /// Steps since the world changed or the pole fell.
    pub upright: u32,
    /// Steps that the agent took to play the world's task since it changed; `None` until it does.
    pub noticed: Option<u32>,
    /// Probability of each task, in the order of the bank.
    pub probability: Vec<f64>,
    /// Score `Q` of each task, nats.
    pub score: Vec<f64>,
}

impl Player {
    /// Reads a bank of a built-in CartPole suite and starts in the world of its first task.
    ///
    /// # Errors
    /// Those of reading a bank; [`Error::Option`] for one whose tasks are of no built-in suite or cannot be routed.
    pub fn open(bytes: Vec<u8>, seed: u64) -> Result<Player, Error> {
        let file = TensorFile::parse(bytes).map_err(|source| Error::File { path: None, source })?;
        let bank = Bank::from_file(file)?;
        Player::new(&bank, seed)
    }

    /// As [`Player::open`], of a bank in memory.
    ///
    /// # Errors
    /// See there.
    pub fn new(bank: &Bank, seed: u64) -> Result<Player, Error> {
        let suite = Suite::parse(bank.config.get("suite").map_or("", |name| name.trim_matches('"')))?;
        let known = suite.variants();
        let variant = |name: &str| {
            let unknown = || Error::Option {
                name: "task of the bank",
                found: name.to_owned(),
                allowed: format!("a task of the suite {}", suite.name()),
            };
            known.iter().find(|variant| variant.name == name).copied().ok_or_else(unknown)
        };
        let tasks = bank.tasks.iter().map(|task| variant(&task.name)).collect::<Result<Vec<_>, _>>()?;
        let Some(first) = tasks.first() else {
            let allowed = "at least one".into();
            return Err(Error::Option { name: "tasks of the bank", found: "none".into(), allowed });
        };
        let mut agent = Agent::new(&Device::cpu(1), &bank.model()?, bank)?;
        let env = CartPole::new(first.params(Derived::Refreshed)?)?;
        let signature = Signature { observation: Shape::Vector(4), actions: Actions::Discrete(2) };
        agent.enter(signature, Choose::Routed(Settings { keep: KEEP, ..Settings::default() }))?;
        if agent.scores().is_none_or(|(candidates, _)| !candidates.iter().copied().eq(0..tasks.len())) {
            let allowed = "tasks that are all described for routing".into();
            return Err(Error::Option { name: "bank", found: "a task without a descriptor".into(), allowed });
        }
        let view = View { probability: vec![0.0; tasks.len()], score: vec![0.0; tasks.len()], ..View::default() };
        let mut player = Player { agent, tasks, env, obs: [0.0; 4], seed, since: 0, view };
        player.set_world(0)?;
        player.begin()?;
        Ok(player)
    }

    /// The tasks, in the order of the bank.
    pub fn tasks(&self) -> &[Variant] {
        &self.tasks
    }

    /// What is to be seen now.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Gives the world the physics of another task. The pole stays as it is, and the agent is not told.
    ///
    /// # Errors
    /// [`Error::Range`] if there is no such task.
    pub fn set_world(&mut self, task: usize) -> Result<(), Error> {
        let Some(variant) = self.tasks.get(task) else {
            let expected = format!("below {}", self.tasks.len());
            return Err(Error::Range { what: "task", expected, found: task.to_string() });
        };
        let params = variant.params(Derived::Refreshed)?;
        let state = self.env.state();
        self.env = CartPole::new(params)?;
        self.env.start(state)?;
        let view = &mut self.view;
        (view.world, view.length, view.tau) = (task, params.length, params.tau);
        (view.upright, view.noticed) = (0, None);
        self.since = 0;
        Ok(())
    }

    /// One decision and one step of the world. An episode ends when the pole falls or after [`STEP_LIMIT`] steps; the
    /// next one begins at once.
    ///
    /// # Errors
    /// Those of the agent.
    pub fn step(&mut self) -> Result<(), Error> {
        self.decide()?;
        self.act()
    }

    /// The first half of a step: gives the newest state to the agent. If its program runs elsewhere, what it has to do there is
    /// in [`Player::messages`].
    ///
    /// # Errors
    /// Those of the agent.
    pub fn decide(&mut self) -> Result<(), Error> {
        self.agent.begin(&self.obs)
    }

    /// The second half: takes the agent's action in the world.
    ///
    /// # Errors
    /// Those of the agent.
    pub fn act(&mut self) -> Result<(), Error> {
        let Act::Id(action) = self.agent.finish()? else {
            return Err(Error::Broken { what: "a task of two actions was played with a vector".into() });
        };
        let step = self.env.step(Action::Discrete(action), &mut self.obs)?;
        self.agent.reward(step.reward)?;
        let view = &mut self.view;
        let force = self.tasks[view.world].params(Derived::Refreshed)?.force_mag;
        view.force = if action == 1 { force } else { -force };
        let [place, _, angle, _] = self.env.state();
        view.place = [place, angle];
        if let Some(Status { task, .. }) = self.agent.status() {
            view.routed = task;
        }
        if view.noticed.is_none() && view.routed == view.world {
            view.noticed = Some(self.since);
        }
        if let Some((_, scores)) = self.agent.scores() {
            view.score.copy_from_slice(scores);
        }
        if let Some((_, probability)) = self.agent.posterior() {
            view.probability.copy_from_slice(probability);
        }
        view.step += 1;
        view.upright += 1;
        self.since += 1;
        if step.terminated {
            view.falls += 1;
            view.upright = 0;
        }
        // A change of the world started the world's own count anew.
        if step.terminated || view.step >= STEP_LIMIT {
            self.begin()?;
        }
        Ok(())
    }

    /// From the next step on the agent's program runs elsewhere.
    ///
    /// # Errors
    /// Those of the agent.
    pub fn relay(&mut self) -> Result<(), Error> {
        self.agent.relay()
    }

    /// The agent's program runs here again, also for a step of which only the first half was done.
    ///
    /// # Errors
    /// Those of the agent.
    pub fn run_here(&mut self) -> Result<(), Error> {
        self.agent.run_here()
    }

    /// Takes what a program elsewhere has to do for this step.
    pub fn messages(&mut self) -> Vec<Message> {
        self.agent.messages()
    }

    /// Takes the outputs of a program elsewhere.
    ///
    /// # Errors
    /// Those of the agent.
    pub fn deliver(&mut self, outputs: &[f32]) -> Result<(), Error> {
        self.agent.deliver(outputs)
    }

    /// Scores of both actions in the last step.
    pub fn outputs(&self) -> &[f32] {
        self.agent.outputs()
    }

    fn begin(&mut self) -> Result<(), Error> {
        self.env.reset(self.seed.wrapping_add(u64::from(self.view.episodes)), &mut self.obs)?;
        self.agent.reset()?;
        self.view.episodes += 1;
        self.view.step = 0;
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use tsn::dt::config::Config;
    use tsn::suite::config_for;
    use tsn::{Learner, Options, Profile, Silent, Strategy};

    /// The two contradicting tasks, learned for a moment: routing does not depend on how well.
    pub(crate) fn bank() -> Bank {
        let mut tasks = Suite::CartPoleConflict.generate(Derived::Refreshed, 3, 20).unwrap();
        let fitting = config_for(&mut tasks, Profile::Corrected).unwrap();
        let config = Config { width: 16, layers: 2, heads: 2, context: 4, ..fitting };
        let mut options = Options::corrected(Strategy::Tsn);
        (options.steps, options.batch, options.warmup) = (8, 8, 2);
        let mut learner = Learner::new(Device::cpu(1), config, options).unwrap();
        for task in &tasks {
            learner.learn(task, None, &mut Silent).unwrap();
        }
        let settings = [
            ("suite", "\"cartpole_conflict\""),
            ("observation", "[4]"),
            ("action", "\"discrete\""),
            ("action_width", "2"),
            ("width", "16"),
            ("layers", "2"),
            ("heads", "2"),
            ("context", "4"),
            ("max_ep_len", "501"),
            ("time", "\"sinusoidal\""),
        ];
        learner.bank.config = settings.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        learner.bank
    }

    #[test]
    fn a_change_of_the_world_is_noticed_and_moves_nothing() {
        let mut player = Player::new(&bank(), 7).unwrap();
        for world in [1, 0, 1] {
            (0..30).for_each(|_| player.step().unwrap());
            let before = player.env.state();
            player.set_world(world).unwrap();
            assert_eq!((player.env.state(), player.view.world, player.view.noticed), (before, world, None));
            let episodes = player.view.episodes;
            while player.view.noticed.is_none() {
                player.step().unwrap();
            }
            assert!(player.view.noticed.unwrap() <= 8, "{:?}", player.view);
            // The agent was not told: unless the pole fell, it is the same episode.
            assert!(player.view.falls > 0 || player.view.episodes == episodes);
            (0..20).for_each(|_| player.step().unwrap());
            let View { routed, probability, score, .. } = &player.view;
            assert!(*routed == world && probability[world] > 0.99 && score[world] > score[1 - world], "{score:?}");
        }
    }

    #[test]
    fn falls_end_episodes_and_are_counted() {
        let mut player = Player::new(&bank(), 7).unwrap();
        let mut longest = 0;
        for _ in 0..2000 {
            player.step().unwrap();
            longest = longest.max(player.view.upright);
            assert!(player.view.step < STEP_LIMIT && player.view.place[1].abs() < 0.3);
        }
        // Each episode ends by a fall or after 500 steps, and an agent that learned for 8 steps falls.
        assert!(player.view.falls > 0 && longest < 2000);
        assert!(player.view.episodes > player.view.falls);
    }

    #[test]
    fn banks_that_cannot_be_played_are_refused() {
        let text = |bank: &Bank| Player::new(bank, 0).err().unwrap().to_string();
        let good = bank();
        let mut other = good.clone();
        other.config.insert("suite".into(), "\"panda\"".into());
        assert!(text(&other).contains("panda"));
        let mut other = good.clone();
        other.tasks[1].name = "elsewhere".into();
        assert!(text(&other).contains("elsewhere"));
        let mut other = good.clone();
        other.tasks[1].online = None;
        assert!(text(&other).contains("descriptor"));
        assert!(text(&Bank { config: good.config, ..Bank::default() }).contains("none"));
        assert!(Player::open(vec![1, 2, 3], 0).is_err());
    }
}
