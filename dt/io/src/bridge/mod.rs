//! Simulators in another process: any environment of gymnasium, the console games of ALE, the arms of panda-gym.
//!
//! The process is a Python interpreter that runs `bridge/serve.py`, which says what the messages are. It holds all
//! environments of a task, so a step of a rollout is one message. It is not trusted to be quick, alive or sane: every
//! such failure is an [`Error`] that names it. It ends with this process, whatever ends that.

mod error;
mod frame;
mod peer;

use dt::env::{ActionSpace, Envs, Moves, ObsShape, Step};
pub use error::Error;
use frame::MOST_BODY;
pub use frame::{Element, Fault, Message};
use peer::Peer;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const SCRIPT: &str = concat!(include_str!("../../bridge/plan.py"), include_str!("../../bridge/serve.py"));
const REQUIREMENTS: &str = include_str!("../../bridge/requirements.txt");
/// Environments in one process.
const MOST_SLOTS: usize = 1024;
/// Values of one observation.
const MOST_VALUES: usize = 1 << 22;

/// How long a peer may take: to make environments, of which each can load meshes, and to answer anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// To make environments.
    pub make: Duration,
    /// For one reset or step of all of them.
    pub answer: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience { make: Duration::from_secs(600), answer: Duration::from_secs(300) }
    }
}

/// An environment by name, and the process that runs it between rollouts.
#[derive(Clone, Debug)]
pub struct Simulator {
    python: PathBuf,
    script: Arc<str>,
    env: String,
    params: Map<String, Value>,
    patience: Patience,
    /// The process, while no rollout has it.
    idle: Arc<Mutex<Option<Peer>>>,
}

impl Simulator {
    /// An environment of gymnasium by its id. `params` are arguments of its constructor or attributes; for `ALE/` and
    /// `Panda` also those of `serve.py`: `protocol`, `sticky`, `noops`, `max_pool`, `grey`, `resize`, `frame_skip`;
    /// `time_feature`, `fresh`.
    pub fn new(python: &Path, env: &str, params: &Map<String, Value>) -> Simulator {
        Simulator::with(python, SCRIPT, env, params, Patience::default())
    }

    /// The same with another peer and other time-outs.
    pub fn with(python: &Path, script: &str, env: &str, params: &Map<String, Value>, patience: Patience) -> Simulator {
        let (python, script, env, params) = (python.to_path_buf(), script.into(), env.to_owned(), params.clone());
        Simulator { python, script, env, params, patience, idle: Arc::default() }
    }

    /// So many environments, ready to be reset. The process is kept for the next call when they are dropped.
    ///
    /// # Errors
    /// [`Error`]; [`Error::is_absence`] tells a missing simulator from a broken one.
    pub fn open(&self, slots: usize) -> Result<Bridge, Error> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).take();
        // One that died while nobody asked it anything is replaced.
        let mut peer = match idle.and_then(|mut peer| peer.runs().then_some(peer)) {
            Some(peer) => peer,
            None => Peer::start(&self.python, &self.script, &self.env)?,
        };
        let refused = |peer: &Peer, reason: String| Error::Refused { peer: peer.name().to_owned(), reason };
        if !(1..=MOST_SLOTS).contains(&slots) {
            return Err(refused(&peer, format!("{slots} environments are outside 1..={MOST_SLOTS}")));
        }
        let request = json!({"op": "make", "id": self.env, "count": slots, "params": self.params});
        let doing = "make environments";
        let answer = peer.ask(Message::new(request), doing, self.patience.make)?;
        let answer = self.accepted(&peer, answer)?;
        let made = Made::of(&answer.fields).map_err(|why| peer.babble(doing, Fault::Header(why)))?;
        let (each, most) = (made.step_bytes(), MOST_BODY as usize);
        if slots * each > most {
            let fit = format!("{most} fit into a message, that is {} environments", most / each);
            return Err(refused(&peer, format!("{slots} environments answer a step with {each} bytes each; {fit}")));
        }
        Ok(Bridge { peer: Some(peer), simulator: self.clone(), made, slots })
    }

    /// An answer that does not say no.
    fn accepted(&self, peer: &Peer, answer: Message) -> Result<Message, Error> {
        let text = |name: &str| answer.fields.get(name).and_then(Value::as_str).unwrap_or("unknown").to_owned();
        let (python, env, reason) = (self.python.clone(), self.env.clone(), text("text"));
        match answer.fields.get("error").and_then(Value::as_str) {
            None => Ok(answer),
            Some("missing") => Err(Error::Missing { python, env, package: text("package"), reason }),
            Some("unknown") => Err(Error::Unknown { python, env, reason }),
            Some(_) => Err(Error::Refused { peer: peer.name().to_owned(), reason }),
        }
    }
}

/// What the environments of a process are.
#[derive(Clone, Copy, Debug)]
struct Made {
    shape: ObsShape,
    space: ActionSpace,
    limit: u32,
    fire: Option<u32>,
}

impl Made {
    fn of(fields: &Map<String, Value>) -> Result<Made, String> {
        let at = |path: &str| {
            fields.get(path.split('.').next().unwrap_or_default()).map(|v| match path.split_once('.') {
                Some((_, inner)) => v[inner].clone(),
                None => v.clone(),
            })
        };
        let number = |path: &str| {
            let value = at(path).unwrap_or_default();
            let number = value.as_u64().and_then(|n| u32::try_from(n).ok());
            number.ok_or_else(|| format!("{path}: expected a number, found {value}"))
        };
        let sizes: Vec<usize> = serde_json::from_value(at("obs.shape").unwrap_or_default())
            .map_err(|_| "obs.shape: expected a list of sizes".to_owned())?;
        let (kind, action) = (at("obs.kind").unwrap_or_default(), at("action.kind").unwrap_or_default());
        let shape = match (kind.as_str(), &sizes[..]) {
            (Some("vector"), [dim]) => ObsShape::Vector { dim: *dim },
            (Some("frame"), [height, width]) => ObsShape::Frame { height: *height, width: *width },
            _ => return Err(format!("obs: expected a vector or a frame, found {kind} {sizes:?}")),
        };
        let values = sizes.iter().try_fold(1usize, |all, size| all.checked_mul(*size));
        if !values.is_some_and(|values| (1..=MOST_VALUES).contains(&values)) {
            return Err(format!("obs.shape: expected 1 to {MOST_VALUES} values, found {sizes:?}"));
        }
        let space = match (action.as_str(), number("action.n")?) {
            (Some("discrete"), n @ 1..) => ActionSpace::Discrete(n),
            (Some("box"), d @ 1..) => ActionSpace::Box(d),
            (_, n) => return Err(format!("action: expected discrete or box actions, found {action} {n}")),
        };
        let limit = match number("limit")? {
            0 => return Err("limit: episodes may last for ever; give max_episode_steps in params".into()),
            limit => limit,
        };
        let fire = at("fire").filter(|v| !v.is_null()).map(|_| number("fire")).transpose()?;
        match (space, fire) {
            (ActionSpace::Discrete(n), Some(fire)) if fire >= n => Err(format!("fire: expected 0..{n}, found {fire}")),
            (ActionSpace::Box(_), Some(_)) => Err("fire: expected null without numbered actions".into()),
            _ => Ok(Made { shape, space, limit, fire }),
        }
    }
}

/// Environments of one process, moved by one message a step.
#[derive(Debug)]
pub struct Bridge {
    /// Always there but in `drop`.
    peer: Option<Peer>,
    simulator: Simulator,
    made: Made,
    slots: usize,
}

impl Bridge {
    /// What the planner beside the games would do, for each of some slots; to be asked once before every step.
    ///
    /// # Errors
    /// [`dt::Error::Environment`] for other environments than games; [`dt::Error::Size`] for a slot there is not.
    pub fn advise(&mut self, slots: &[usize]) -> Result<Vec<u32>, dt::Error> {
        let name = || self.simulator.env.clone();
        let failed = |error: Error| dt::Error::Environment { name: name(), reason: error.to_string() };
        let (k, doing) = ([slots.len()], "advise");
        let request = Message::new(json!({"op": doing})).with("slots", &k, &checked(slots, self.slots, &[])?);
        let Some(peer) = self.peer.as_mut() else {
            return Err(dt::Error::Environment { name: name(), reason: "the process is gone".into() });
        };
        let answer = peer.ask(request, doing, self.simulator.patience.answer).map_err(failed)?;
        let answer = self.simulator.accepted(peer, answer).map_err(failed)?;
        let most = match self.made.space {
            ActionSpace::Discrete(n) => n,
            ActionSpace::Box(_) => 0,
        };
        let actions = answer.array::<u32>("actions", &k).and_then(|ids| match ids.iter().find(|id| **id >= most) {
            None => Ok(ids),
            Some(id) => {
                let (name, expected) = ("actions".into(), format!("numbers below {most}"));
                Err(Fault::Array { name, expected, found: id.to_string() })
            }
        });
        actions.map_err(|fault| failed(peer.babble(doing, fault)))
    }

    /// One request about some slots; writes their observations and returns the rest of the answer.
    fn exchange(
        &mut self,
        request: Message,
        doing: &'static str,
        obs: &mut [f32],
        rows: usize,
    ) -> Result<Message, Error> {
        let gone = || Error::Refused { peer: self.simulator.env.clone(), reason: "the process is gone".into() };
        let peer = self.peer.as_mut().ok_or_else(gone)?;
        let answer = peer.ask(request, doing, self.simulator.patience.answer)?;
        let answer = self.simulator.accepted(peer, answer)?;
        match self.made.observe(&answer, obs, rows) {
            Ok(()) => Ok(answer),
            Err(fault) => Err(peer.babble(doing, fault)),
        }
    }

    fn steps(&self, answer: &Message, steps: &mut [Step]) -> Result<(), Fault> {
        let k = [steps.len()];
        let columns = answer.array::<f32>("rewards", &k)?.into_iter().zip(answer.array::<u8>("ends", &k)?);
        let said = answer.array::<i8>("success", &k)?.into_iter().zip(answer.array::<i32>("lives", &k)?);
        for (step, ((reward, ends), (success, lives))) in steps.iter_mut().zip(columns.zip(said)) {
            if !reward.is_finite() {
                let (name, expected, found) = ("rewards".into(), "finite numbers".into(), reward.to_string());
                return Err(Fault::Array { name, expected, found });
            }
            *step = Step {
                reward,
                terminated: ends & 1 != 0,
                truncated: ends & 2 != 0,
                success: (success >= 0).then_some(success > 0),
                lives: u32::try_from(lives).ok(),
            };
        }
        Ok(())
    }
}

impl Made {
    /// Bytes of arrays with which one environment answers a step.
    fn step_bytes(&self) -> usize {
        let value = match self.shape {
            ObsShape::Vector { .. } => size_of::<f32>(),
            ObsShape::Frame { .. } => size_of::<u8>(),
        };
        let (reward, ends, success, lives) = (size_of::<f32>(), size_of::<u8>(), size_of::<i8>(), size_of::<i32>());
        self.shape.values() * value + reward + ends + success + lives
    }

    fn observe(&self, answer: &Message, obs: &mut [f32], rows: usize) -> Result<(), Fault> {
        match self.shape {
            ObsShape::Vector { dim } => {
                for (to, value) in obs.iter_mut().zip(answer.array::<f32>("obs", &[rows, dim])?) {
                    if !value.is_finite() {
                        let (name, expected, found) = ("obs".into(), "finite numbers".into(), value.to_string());
                        return Err(Fault::Array { name, expected, found });
                    }
                    *to = value;
                }
            }
            ObsShape::Frame { height, width } => {
                let pixels = answer.array::<u8>("obs", &[rows, height, width])?;
                obs.iter_mut().zip(pixels).for_each(|(to, pixel)| *to = f32::from(pixel));
            }
        }
        Ok(())
    }
}

/// The slots of a request, checked: a wrong one is a fault of the caller, not of the peer. So is a slice of another
/// length than the values of each slot make together.
fn checked(slots: &[usize], most: usize, slices: &[(&'static str, usize, usize)]) -> Result<Vec<u32>, dt::Error> {
    if let Some(slot) = slots.iter().find(|slot| **slot >= most) {
        return Err(dt::Error::Size { what: "environments, at least", expected: *slot as u64 + 1, found: most as u64 });
    }
    let all = |each: &usize| slots.len().saturating_mul(*each);
    if let Some((what, each, found)) = slices.iter().find(|(_, each, found)| all(each) != *found) {
        return Err(dt::Error::Size { what, expected: all(each) as u64, found: *found as u64 });
    }
    Ok(slots.iter().map(|slot| *slot as u32).collect())
}

impl Envs for Bridge {
    fn slots(&self) -> usize {
        self.slots
    }

    fn obs_shape(&self) -> ObsShape {
        self.made.shape
    }

    fn action_space(&self) -> ActionSpace {
        self.made.space
    }

    fn step_limit(&self) -> u32 {
        self.made.limit
    }

    fn fire(&self) -> Option<u32> {
        self.made.fire
    }

    fn reset(&mut self, slots: &[usize], seeds: &[u64], obs: &mut [f32]) -> Result<(), dt::Error> {
        let k = slots.len();
        let sizes = [("seeds", 1, seeds.len()), ("values of observations", self.made.shape.values(), obs.len())];
        let ids = checked(slots, self.slots, &sizes)?;
        let request = Message::new(json!({"op": "reset"})).with("slots", &[k], &ids).with("seeds", &[k], seeds);
        self.exchange(request, "reset", obs, k).map(|_| ()).map_err(|e| self.failed(e))
    }

    fn step(
        &mut self,
        slots: &[usize],
        moves: Moves<'_>,
        obs: &mut [f32],
        steps: &mut [Step],
    ) -> Result<(), dt::Error> {
        let k = slots.len();
        let request = Message::new(json!({"op": "step"}));
        let (request, actions) = match (moves, self.made.space) {
            (Moves::Discrete(moves), ActionSpace::Discrete(n)) => {
                if let Some((row, id)) = moves.iter().enumerate().find(|(_, id)| **id >= n) {
                    return Err(dt::Error::Action { row, value: i64::from(*id), count: n });
                }
                (request.with("actions", &[k], moves), ("actions", 1, moves.len()))
            }
            (Moves::Continuous(moves), ActionSpace::Box(d)) => {
                let d = d as usize;
                if let Some(at) = moves.iter().position(|value| !value.is_finite()) {
                    let (row, col, value) = (at / d, at % d, moves[at]);
                    return Err(dt::Error::NotFinite { what: "actions", row, col, value });
                }
                (request.with("actions", &[k, d], moves), ("values of actions", d, moves.len()))
            }
            _ => {
                let (expected, found) = ("those of the environment", "another kind");
                return Err(dt::Error::Kind { what: "actions", expected, found });
            }
        };
        let values = self.made.shape.values();
        let sizes = [actions, ("values of observations", values, obs.len()), ("steps", 1, steps.len())];
        let request = request.with("slots", &[k], &checked(slots, self.slots, &sizes)?);
        let answer = self.exchange(request, "step", obs, k).map_err(|e| self.failed(e))?;
        self.steps(&answer, steps).map_err(|fault| match self.peer.as_mut() {
            Some(peer) => {
                let error = peer.babble("step", fault);
                self.failed(error)
            }
            None => dt::Error::Environment { name: self.simulator.env.clone(), reason: fault.to_string() },
        })
    }
}

impl Bridge {
    fn failed(&self, error: Error) -> dt::Error {
        dt::Error::Environment { name: self.simulator.env.clone(), reason: error.to_string() }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        if let Some(peer) = self.peer.take().filter(Peer::is_sound) {
            *self.simulator.idle.lock().unwrap_or_else(PoisonError::into_inner) = Some(peer);
        }
    }
}

/// A Python package that simulators need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Its name for pip.
    pub name: String,
    /// Name and versions for pip.
    pub requirement: String,
    /// The environments that need it.
    pub needed_by: String,
    /// The version installed.
    pub found: Option<String>,
}

/// The packages of `bridge/requirements.txt` without what is installed.
pub fn requirements() -> Vec<Package> {
    let package = |line: &str| {
        let (requirement, needed_by) = line.split_once('#').unwrap_or((line, "all"));
        let (requirement, needed_by) = (requirement.trim().to_owned(), needed_by.trim().to_owned());
        let name = requirement.split("==").next().unwrap_or_default().to_owned();
        (!name.is_empty()).then_some(Package { name, requirement, needed_by, found: None })
    };
    REQUIREMENTS.lines().filter_map(package).collect()
}

/// Version of an interpreter, and which packages it has.
///
/// # Errors
/// [`Error`] if it does not start or answer.
pub fn packages(python: &Path) -> Result<(String, Vec<Package>), Error> {
    let mut all = requirements();
    let mut peer = Peer::start(python, SCRIPT, "list of packages")?;
    let doing = "list packages";
    let names: Vec<&str> = all.iter().map(|p| p.name.as_str()).collect();
    let answer =
        peer.ask(Message::new(json!({"op": "packages", "names": names})), doing, Patience::default().answer)?;
    let (version, found) = (answer.fields.get("python"), answer.fields.get("packages"));
    let (Some(Value::String(version)), Some(found)) = (version, found) else {
        return Err(peer.babble(doing, Fault::Header("expected python and packages".into())));
    };
    all.iter_mut().for_each(|p| p.found = found[p.name.as_str()].as_str().map(str::to_owned));
    Ok((version.clone(), all))
}
