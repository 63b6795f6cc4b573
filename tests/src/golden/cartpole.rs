//! Rollouts of the CartPole environment, in f64.

use super::Result;
use super::case::Case;
use dt::env::cartpole::{CartPole, CartPoleParams, Derived};
use dt::env::expert::Controller;
use dt::env::{Action, Env};
use engine::Device;
use serde_json::Value;

/// Largest error of a state given the same actions.
const STATE: f64 = 1e-12;

/// The environment runs on the host whatever the device.
pub(super) fn run(case: &Case, _device: &Device) -> Result<()> {
    let Value::Object(tasks) = &case.meta else {
        return Err("the parameters are not an object of tasks".to_owned().into());
    };
    for (task, constants) in tasks {
        let params = physics(task, constants)?;
        rollout(case, task, params)?;
        returns(case, task, params)?;
    }
    if case.has("reset_state_by_seed") {
        let mut env = CartPole::new(CartPoleParams::default())?;
        let [seeds, 4] = case.axes("reset_state_by_seed")? else {
            return Err("tensor `reset_state_by_seed` does not hold states".to_owned().into());
        };
        let mut states = Vec::new();
        for seed in 0..seeds as u64 {
            env.reset(seed, &mut [0.0; 4])?;
            states.extend(env.state());
        }
        case.check_f64("reset_state_by_seed", &states, 0.0)?;
    }
    Ok(())
}

/// Physics of a task; its derived constants say whether they follow the masses and lengths.
fn physics(task: &str, constants: &Value) -> Result<CartPoleParams> {
    let constant = |name: &str| {
        let value = constants.get(name).and_then(Value::as_f64);
        value.ok_or_else(|| format!("task `{task}` has no constant `{name}`"))
    };
    let mut params = CartPoleParams {
        gravity: constant("gravity")?,
        masscart: constant("masscart")?,
        masspole: constant("masspole")?,
        length: constant("length")?,
        force_mag: constant("force_mag")?,
        tau: constant("tau")?,
        derived: Derived::Stale,
    };
    let stated = [constant("total_mass")?, constant("polemass_length")?];
    for derived in [Derived::Stale, Derived::Refreshed] {
        params.derived = derived;
        if [params.total_mass(), params.polemass_length()] == stated {
            return Ok(params);
        }
    }
    Err(format!("task `{task}`: total_mass and polemass_length {stated:?} are neither stale nor refreshed").into())
}

/// Steps a task's actions from its first state.
fn rollout(case: &Case, task: &str, params: CartPoleParams) -> Result<()> {
    let [state, action, terminated] = ["state", "action", "terminated"].map(|part| format!("{task}.{part}"));
    let expected = case.f64s(&state)?;
    let actions = case.ints(&action)?;
    if expected.len() != 4 * (actions.len() + 1) {
        let (states, actions) = (expected.len() / 4, actions.len());
        return Err(format!("tensor `{state}` has {states} states for {actions} actions").into());
    }
    let mut env = CartPole::new(params)?;
    env.start([expected[0], expected[1], expected[2], expected[3]])?;
    let (mut states, mut ends) = (env.state().to_vec(), Vec::new());
    for &action in actions {
        let action = u32::try_from(action).map_err(|_| format!("tensor `{action}` holds a negative action"))?;
        let step = env.step(Action::Discrete(action), &mut [0.0; 4])?;
        states.extend(env.state());
        ends.push(i64::from(step.terminated));
        if step.ends() {
            // A rollout may go on after its episode: the physics do.
            env.start(env.state())?;
        }
    }
    case.check_f64(&state, &states, STATE)?;
    case.check_ints(&terminated, ends)
}

/// Lengths of the episodes that a task's regulator steers, one for each seed in the tensor's name.
fn returns(case: &Case, task: &str, params: CartPoleParams) -> Result<()> {
    let prefix = format!("{task}.lqr_return_seed");
    for name in case.names().filter(|name| name.starts_with(&prefix)) {
        let seeds = name[prefix.len()..].split_once('_').and_then(|(a, b)| Some(a.parse().ok()?..=b.parse().ok()?));
        let seeds: std::ops::RangeInclusive<u64> = seeds.ok_or_else(|| format!("tensor `{name}` names no seeds"))?;
        let gain = format!("{task}.lqr_gain");
        let &[a, b, c, d] = case.f64s(&gain)? else {
            return Err(format!("tensor `{gain}` is not four numbers").into());
        };
        let controller = Controller::from_gain([a, b, c, d], &params);
        let mut env = CartPole::new(params)?;
        let mut lengths = Vec::new();
        for seed in seeds {
            env.reset(seed, &mut [0.0; 4])?;
            let mut length = 1;
            while !env.step(Action::Discrete(controller.action(&env.state())), &mut [0.0; 4])?.ends() {
                length += 1;
            }
            lengths.push(length);
        }
        case.check_ints(name, lengths)?;
    }
    Ok(())
}
