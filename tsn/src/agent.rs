//! Acts in an environment that nobody names: routes every state, plays the task it recognises, says what it chose.
//!
//! One program holds one task at a time. A program's window was made with the weights of its time, so on a switch the
//! last steps are played into it again under the new task: its observation scale, and returns-to-go from its own target
//! minus what was earned so far. Outputs are then those of an agent that had played the new task all along.

mod relay;
mod ring;

use crate::bank::{Bank, TaskRecord};
use crate::error::Error;
use crate::fit::frozen;
use crate::state::State;
use affinity::online::{Act, Actions, Decision, Descriptor, Filter, Router, Settings, Shape, Signature};
use autograd::engine::{Device, Plan, Program};
use dt::autograd;
use dt::config::{Action, Config, Observation};
use dt::data::batch::Layout;
use dt::data::episodes::Moments;
use dt::decision::{feed_newest, plan_act};
use dt::env::{ActionSpace, Envs, Moves, ObsShape, Step, counted};
use dt::history::{History, Preprocess};
use dt::rollout::{Episode, Fire, argmax, to_go};
use dt::train::output;
use ring::Ring;

/// Who says which task is played.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Choose {
    /// The router, at every state.
    Routed(Settings),
    /// The caller; the router only watches, if the environment fits a described task.
    Task(usize),
}

/// What an agent has been doing in the running episode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Task being played.
    pub task: usize,
    /// What was seen so far is unlike every candidate.
    pub unknown: bool,
    /// Switches of the task.
    pub switches: u32,
    /// Observations so far.
    pub states: u32,
}

/// An agent for one episode at a time.
pub struct Agent {
    config: Config,
    program: Program,
    copies: Vec<State>,
    tasks: Vec<Player>,
    descriptors: Vec<(usize, Descriptor)>,
    /// Copy and task that the program holds.
    loaded: Option<(usize, usize)>,
    history: History,
    outputs: Vec<f32>,
    session: Option<Session>,
}

/// The decisions of one agent of a bank, as [`Agent::new`] binds them.
///
/// # Errors
/// Those of recording.
pub fn plan(config: &Config, bank: &Bank) -> Result<Plan, Error> {
    let masked = bank.tasks.iter().any(|task| !task.masks.is_empty());
    Ok(plan_act(config, 1, |spec| frozen(spec, masked))?)
}

/// A task's own part of the program, and how its inputs are made.
struct Player {
    copy: usize,
    state: State,
    how: Preprocess,
    target: f32,
    clip_rewards: bool,
}

/// One environment.
struct Session {
    signature: Signature,
    choose: Choose,
    routing: Option<(Router, Filter)>,
    ring: Ring,
    earned: [f64; 2],
    status: Status,
    fresh: bool,
    /// An observation waits for [`Agent::finish`].
    begun: bool,
}

impl Agent {
    /// Prepares every task of a bank. Allocates everything; acting allocates nothing.
    ///
    /// # Errors
    /// [`Error::Engine`]; [`Error::Bank`] if places do not fit the model.
    pub fn new(device: &Device, config: &Config, bank: &Bank) -> Result<Agent, Error> {
        let mut program = plan(config, bank)?.bind(device)?;
        load_time(config, &mut program)?;
        let shared = |copy: usize| {
            let mut state = State::default();
            bank.copies[copy].weights.iter().for_each(|w| state.put(w.name.as_str(), &w.values));
            state
        };
        let tasks =
            bank.tasks.iter().enumerate().map(|(t, task)| player(config, bank, t, task)).collect::<Result<_, _>>()?;
        let descriptors = bank.described().map(|(t, descriptor)| (t, descriptor.clone())).collect();
        Ok(Agent {
            config: *config,
            program,
            copies: (0..bank.copies.len()).map(shared).collect(),
            tasks,
            descriptors,
            loaded: None,
            history: History::new(config, 1),
            outputs: vec![0.0; config.action.outputs() as usize],
            session: None,
        })
    }

    /// Enters an environment. Nothing is known of it but its signature.
    ///
    /// # Errors
    /// [`Error::Affinity`] if no task of the bank was learned in an environment like it; [`Error::Option`] for a task that
    /// does not exist; [`Error::Data`] if the model has no room for its observations or actions.
    pub fn enter(&mut self, signature: Signature, choose: Choose) -> Result<(), Error> {
        let settings = match choose {
            Choose::Routed(settings) => settings,
            Choose::Task(task) if task >= self.tasks.len() => {
                let allowed = format!("below {}, the tasks of the bank", self.tasks.len());
                return Err(Error::Option { name: "task", found: task.to_string(), allowed });
            }
            Choose::Task(task) => {
                let places = self.tasks[task].how.layout.as_ref().map(|layout| layout.places.len());
                if let (Shape::Vector(found), Some(expected)) = (signature.observation, places.filter(|p| *p > 0))
                    && found != expected
                {
                    return Err(affinity::Error::Length { what: "observation of the task", expected, found }.into());
                }
                Settings::default()
            }
        };
        fits(&self.config, &signature)?;
        let routing = match Router::new(signature, self.descriptors.iter().map(|(t, d)| (*t, d)), settings) {
            Ok(router) => router.start().map(|filter| Some((router, filter)))?,
            Err(_) if matches!(choose, Choose::Task(_)) => None,
            Err(error) => return Err(error.into()),
        };
        let width = match signature.observation {
            Shape::Vector(d) => d,
            Shape::Frame { height, width } => height * width,
        };
        let stack = match self.config.observation {
            Observation::Vector(_) => 1,
            Observation::Image { channels, .. } => channels as usize,
        };
        let actions = match signature.actions {
            Actions::Discrete(_) => 1,
            Actions::Continuous(d) => d,
        };
        // A frame is in the stacks of later steps, too.
        let capacity = self.config.context as usize + stack - 1;
        let ring = Ring::new(capacity, width, actions);
        let status = Status { task: 0, unknown: false, switches: 0, states: 0 };
        self.session =
            Some(Session { signature, choose, routing, ring, earned: [0.0; 2], status, fresh: true, begun: false });
        Ok(())
    }

    /// Begins another episode of the same environment.
    ///
    /// # Errors
    /// [`Error::Broken`] before [`Agent::enter`].
    pub fn reset(&mut self) -> Result<(), Error> {
        let session = session(&mut self.session)?;
        (session.ring.steps, session.ring.acted, session.earned, session.fresh) = (0, false, [0.0; 2], true);
        session.begun = false;
        session.status = Status { task: 0, unknown: false, switches: 0, states: 0 };
        if let Some((_, filter)) = &mut session.routing {
            filter.clear();
        }
        Ok(())
    }

    /// Takes a raw observation (pixel values for frames), chooses the task and the action.
    ///
    /// # Errors
    /// [`Error::Affinity`] for an observation that is not of the signature; [`Error::Engine`];
    /// [`Error::Broken`] before [`Agent::enter`].
    pub fn act(&mut self, obs: &[f32]) -> Result<Act<'_>, Error> {
        self.begin(obs)?;
        self.finish()
    }

    /// The first half of [`Agent::act`]: takes the observation, chooses the task and runs the program. After
    /// [`Agent::relay`] what there is to do elsewhere is in [`Agent::messages`].
    ///
    /// # Errors
    /// Those of [`Agent::act`]; [`Error::Broken`] if the last observation was not finished.
    pub fn begin(&mut self, obs: &[f32]) -> Result<(), Error> {
        let session = session(&mut self.session)?;
        if session.begun {
            return Err(Error::Broken { what: "an observation came before the last one was answered".into() });
        }
        let ring = &mut session.ring;
        if obs.len() != ring.width {
            let (expected, found) = (ring.width, obs.len());
            return Err(affinity::Error::Length { what: "observation", expected, found }.into());
        }
        let mut decision: Option<Decision> = None;
        if let Some((router, filter)) = &mut session.routing {
            let last = ring.acted.then(|| ring.last_action(&session.signature));
            decision = Some(filter.observe(router, last, obs)?);
        }
        let before = session.status.task;
        session.status.task = match (session.choose, decision) {
            (Choose::Task(task), _) => task,
            (_, Some(decision)) => decision.task,
            (_, None) => before,
        };
        session.status.unknown = decision.is_some_and(|d| d.unknown);
        session.status.switches += u32::from(!session.fresh && before != session.status.task);
        session.status.states += 1;
        ring.push(obs, session.earned);
        self.think()
    }

    /// Gives the newest step to the program, or the last steps if it holds another task or another episode.
    fn think(&mut self) -> Result<(), Error> {
        let Agent { program, copies, tasks, loaded, history, .. } = self;
        let session = session(&mut self.session)?;
        let ring = &session.ring;
        let task = session.status.task;
        let player = &tasks[task];
        let switched = session.fresh || *loaded != Some((player.copy, task));
        if *loaded != Some((player.copy, task)) {
            if loaded.is_none_or(|(copy, _)| copy != player.copy) {
                copies[player.copy].load(program)?;
            }
            player.state.load(program)?;
            *loaded = Some((player.copy, task));
        }
        let first = if switched { ring.steps.saturating_sub(ring.capacity) } else { ring.steps - 1 };
        if switched {
            history.clear(0);
        }
        for step in first..ring.steps {
            let at = step % ring.capacity;
            let earned = ring.earned[at][usize::from(player.clip_rewards)];
            let (obs, to_go) = (&ring.obs[at * ring.width..][..ring.width], to_go(player.target, earned));
            history.observe(0, &player.how, obs, to_go, step as u32);
            feed_newest(program, history)?;
            program.run()?;
            if step + 1 < ring.steps {
                let action = &ring.action[at * ring.actions..][..ring.actions];
                record(history, &session.signature, action);
            }
        }
        (session.fresh, session.begun) = (false, true);
        Ok(())
    }

    /// The second half: reads what the program made of the observation and chooses the action.
    ///
    /// # Errors
    /// [`Error::Engine`]; [`Error::Broken`] without a first half.
    pub fn finish(&mut self) -> Result<Act<'_>, Error> {
        let Agent { program, history, outputs, .. } = self;
        let session = session(&mut self.session)?;
        if !std::mem::take(&mut session.begun) {
            return Err(Error::Broken { what: "an action was asked for without an observation".into() });
        }
        program.read(output::OUTPUT, outputs)?;
        let ring = &mut session.ring;
        let (at, n) = ((ring.steps - 1) % ring.capacity, ring.actions);
        let slot = &mut ring.action[at * n..][..n];
        match session.signature.actions {
            Actions::Discrete(count) => slot[0] = argmax(&outputs[..count]) as f32,
            Actions::Continuous(_) => slot.iter_mut().zip(&*outputs).for_each(|(to, v)| *to = v.clamp(-1.0, 1.0)),
        }
        ring.acted = true;
        record(history, &session.signature, slot);
        Ok(ring.last_action(&session.signature))
    }

    /// Says that another action was executed than the one [`Agent::act`] chose last.
    ///
    /// # Errors
    /// [`Error::Broken`] if there was no such action, [`Error::Affinity`] for an action that is not of the signature,
    /// [`Error::Range`] for one that is not finite.
    pub fn executed(&mut self, action: Act<'_>) -> Result<(), Error> {
        let session = session(&mut self.session)?;
        let ring = &mut session.ring;
        if !ring.acted {
            return Err(Error::Broken { what: "an action was executed before one was chosen".into() });
        }
        let bad = |why: String| -> Error { affinity::Error::Size { what: "executed action", why }.into() };
        let (at, n) = ((ring.steps - 1) % ring.capacity, ring.actions);
        let slot = &mut ring.action[at * n..][..n];
        match (session.signature.actions, action) {
            (Actions::Discrete(count), Act::Id(id)) if (id as usize) < count => slot[0] = id as f32,
            (Actions::Continuous(d), Act::Vector(values)) if values.len() == d => {
                values.iter().try_for_each(|value| finite("executed action", *value))?;
                slot.copy_from_slice(values);
            }
            (actions, action) => return Err(bad(format!("{action:?} is not one of {actions:?}"))),
        }
        record(&mut self.history, &session.signature, slot);
        Ok(())
    }

    /// Takes the reward of the last action.
    ///
    /// # Errors
    /// [`Error::Broken`] before [`Agent::enter`], [`Error::Range`] for a reward that is not finite.
    pub fn reward(&mut self, reward: f32) -> Result<(), Error> {
        let session = session(&mut self.session)?;
        finite("reward", reward)?;
        let sums = session.earned.iter_mut().zip([false, true]);
        sums.for_each(|(sum, clip)| *sum += f64::from(counted(reward, clip)));
        Ok(())
    }

    /// What it plays now; `None` before the first state.
    pub fn status(&self) -> Option<Status> {
        self.session.as_ref().map(|s| s.status).filter(|s| s.states > 0)
    }

    /// Candidates and their posterior; `None` where nothing is routed.
    pub fn posterior(&mut self) -> Option<(&[usize], &[f64])> {
        let (router, filter) = self.session.as_mut()?.routing.as_mut()?;
        Some((router.tasks(), filter.posterior()))
    }

    /// Candidates and their scores `Q`, as [`affinity::online`] defines them; `None` where nothing is routed.
    pub fn scores(&self) -> Option<(&[usize], &[f64])> {
        let (router, filter) = self.session.as_ref()?.routing.as_ref()?;
        Some((router.tasks(), filter.scores()))
    }

    /// Logits or predicted actions of the last decision.
    pub fn outputs(&self) -> &[f32] {
        &self.outputs
    }

    /// Plays an episode in the first of some environments; `visit` sees the status at every state. Returns the episode,
    /// scored by the rewards of the task it is compared with (by sign if `clip_rewards`); `fire` is forced as in
    /// rollouts of that task.
    ///
    /// # Errors
    /// Those of [`Agent::act`] and of the environment.
    pub fn play(
        &mut self,
        envs: &mut dyn Envs,
        seed: u64,
        clip_rewards: bool,
        fire: Option<u32>,
        mut visit: impl FnMut(Status),
    ) -> Result<Episode, Error> {
        let mut obs = vec![0.0; envs.obs_shape().values()];
        self.reset()?;
        envs.reset(&[0], &[seed], &mut obs)?;
        let (mut episode, mut fire, mut steps) = (Episode::default(), Fire::new(fire), [Step::default()]);
        loop {
            self.act(&obs)?;
            if let Some(action) = fire.forced() {
                self.executed(Act::Id(action))?;
            }
            let session = session(&mut self.session)?;
            match session.ring.last_action(&session.signature) {
                Act::Id(id) => envs.step(&[0], Moves::Discrete(&[id]), &mut obs, &mut steps)?,
                Act::Vector(values) => envs.step(&[0], Moves::Continuous(values), &mut obs, &mut steps)?,
            }
            let [step] = steps;
            self.reward(step.reward)?;
            self.status().into_iter().for_each(&mut visit);
            episode.count(step, clip_rewards);
            fire.after(step);
            if step.ends() || episode.steps >= envs.step_limit() {
                return Ok(episode);
            }
        }
    }
}

/// What an environment shows before it is played.
pub fn signature_of(envs: &dyn Envs) -> Signature {
    let observation = match envs.obs_shape() {
        ObsShape::Vector { dim } => Shape::Vector(dim),
        ObsShape::Frame { height, width } => Shape::Frame { height, width },
    };
    let actions = match envs.action_space() {
        ActionSpace::Discrete(n) => Actions::Discrete(n as usize),
        ActionSpace::Box(d) => Actions::Continuous(d as usize),
    };
    Signature { observation, actions }
}

fn load_time(config: &Config, program: &mut Program) -> Result<(), Error> {
    let mut time = State::default();
    time.put_time(config);
    time.load(program)
}

fn session(session: &mut Option<Session>) -> Result<&mut Session, Error> {
    session.as_mut().ok_or_else(|| Error::Broken { what: "the agent has not entered an environment".into() })
}

fn finite(what: &'static str, value: f32) -> Result<(), Error> {
    let bad = || Error::Range { what, expected: "a finite number".into(), found: value.to_string() };
    value.is_finite().then_some(()).ok_or_else(bad)
}

fn record(history: &mut History, signature: &Signature, action: &[f32]) {
    match signature.actions {
        Actions::Discrete(_) => history.act_discrete(0, action[0] as u32),
        Actions::Continuous(_) => history.act_continuous(0, action),
    }
}

/// Checks that the model has room for what an environment shows and takes.
fn fits(config: &Config, signature: &Signature) -> Result<(), Error> {
    let observation = match (config.observation, signature.observation) {
        (Observation::Vector(n), Shape::Vector(d)) => d <= n as usize,
        (Observation::Image { height, width, .. }, Shape::Frame { height: h, width: w }) => {
            (h, w) == (height as usize, width as usize)
        }
        _ => false,
    };
    let action = match (config.action, signature.actions) {
        (Action::Discrete(m), Actions::Discrete(n)) => (1..=m as usize).contains(&n),
        (Action::Continuous(m), Actions::Continuous(n)) => (1..=m as usize).contains(&n),
        _ => false,
    };
    if observation && action {
        return Ok(());
    }
    let allowed = format!("at most {:?} and {:?}, as the model has", config.observation, config.action);
    Err(Error::Option { name: "environment", found: signature.to_string(), allowed })
}

fn player(config: &Config, bank: &Bank, t: usize, task: &TaskRecord) -> Result<Player, Error> {
    let mut state = State::of_task(bank, task);
    bank.copies[task.copy].weights.iter().for_each(|weight| _ = state.0.remove(&weight.name));
    let model = config.observation_len() as usize;
    let online = task.online.as_ref();
    let own = match online.map(|o| o.descriptor.signature.observation) {
        Some(Shape::Vector(d)) => d,
        _ => model,
    };
    let places: Vec<usize> = match online.map(|o| &o.places[..]) {
        Some(places) if !places.is_empty() => places.iter().map(|p| *p as usize).collect(),
        _ => (0..own).collect(),
    };
    let moments = !task.obs_mean.is_empty();
    let outside = places.iter().find(|place| **place >= model || moments && **place >= task.obs_mean.len());
    if let Some(place) = outside {
        let entry = format!("task {t} {:?}, places", task.name);
        return Err(Error::bank(entry, format!("below {model}, the width of the model"), place.to_string()));
    }
    let at = |values: &[f32]| places.iter().map(|place| values[*place]).collect();
    let vector = matches!(config.observation, Observation::Vector(_));
    Ok(Player {
        copy: task.copy,
        state,
        how: Preprocess {
            moments: moments.then(|| Moments { mean: at(&task.obs_mean), std: at(&task.obs_std) }),
            layout: vector.then_some(Layout { width: model, places }),
            rtg_scale: task.rtg_scale as f32,
            max_ep_len: config.max_ep_len,
        },
        target: task.target_return as f32,
        clip_rewards: online.is_some_and(|o| o.clip_rewards),
    })
}
