//! Acting without a task id: the agent recognises the task, and a switch leaves no trace of the task before.

use dt::config::{Action, Config, Observation};
use dt::data::episodes::{Actions as Moved, Episodes, Observations, Rewards};
use dt::decision::plan_act;
use dt::env::cartpole::Derived;
use dt::env::{Action as Move, ActionSpace, Env, Envs, Moves, Native, ObsShape, Step};
use dt::rollout::{Episode, Goal, rollout};
use engine::{Device, Message, Program};
use std::cell::RefCell;
use tsn::affinity::online::{Act, Actions, Settings, Shape, Signature};
use tsn::agent::{Choose, signature_of};
use tsn::memory::{Masks, Memory, TimeEmbedding};
use tsn::state::State;
use tsn::suite::{Suite, config_for};
use tsn::{Agent, Bank, Learner, Options, Profile, Silent, Strategy, Task, TensorFile};

/// Two CartPole tasks with opposite actions, learned for a moment: routing does not depend on how well.
fn learned() -> (Vec<Task>, Config, Learner) {
    let mut tasks = Suite::CartPoleConflict.generate(Derived::Refreshed, 3, 20).unwrap();
    let fitting = config_for(&mut tasks, Profile::Corrected).unwrap();
    let config = Config { width: 16, layers: 2, heads: 2, context: 4, ..fitting };
    let mut options = Options::corrected(Strategy::Tsn);
    (options.steps, options.batch, options.warmup) = (8, 8, 2);
    (options.keep_ratio, options.lr) = (0.3, 5e-3);
    let mut learner = Learner::new(Device::cpu(1), config, options).unwrap();
    learner.learn(&tasks[0], None, &mut Silent).unwrap();
    let first = learner.bank.tasks[0].clone();
    learner.learn(&tasks[1], None, &mut Silent).unwrap();
    assert_eq!(learner.bank.tasks[0], first);
    (tasks, config, learner)
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn the_task_is_recognised_after_one_transition() {
    let (tasks, config, learner) = learned();
    let mut agent = Agent::new(&Device::cpu(1), &config, &learner.bank).unwrap();
    for (number, task) in tasks.iter().enumerate() {
        let mut env = task.environment.as_ref().unwrap()(1).unwrap();
        agent.enter(signature_of(&*env), Choose::Routed(Settings::default())).unwrap();
        for seed in 0..5 {
            let mut seen = Vec::new();
            agent.play(&mut *env, seed, false, None, |status| seen.push(status)).unwrap();
            assert!(seen.iter().skip(1).all(|s| s.task == number && !s.unknown), "{seen:?}");
            assert!(seen.iter().all(|s| s.switches <= 1));
        }
        let (candidates, posterior) = agent.posterior().unwrap();
        assert_eq!(candidates, [0, 1]);
        assert!(posterior[number] > 0.99);
    }
    let memory = Memory::of(&learner.bank, |_| false);
    assert!(memory.routing > 0);
    let without = Memory { routing: 0, ..memory.clone() };
    let bytes = |memory: &Memory| memory.persistent(Masks::Packed, TimeEmbedding::Excluded);
    assert_eq!(bytes(&memory) - bytes(&without), memory.routing);
}

#[test]
fn a_named_task_is_played_as_by_the_evaluator() {
    let (tasks, config, mut learner) = learned();
    let mut agent = Agent::new(&Device::cpu(1), &config, &learner.bank).unwrap();
    for (number, task) in tasks.iter().enumerate() {
        let state = State::of_task(&learner.bank, &learner.bank.tasks[number]);
        let expected = learner.evaluator().play(&state, task, &[7]).unwrap();
        let mut env = task.environment.as_ref().unwrap()(1).unwrap();
        agent.enter(signature_of(&*env), Choose::Task(number)).unwrap();
        assert_eq!(agent.play(&mut *env, 7, task.clip_rewards, None, |_| ()).unwrap(), expected[0]);
    }
}

/// A walk on a line that shows every bit of the action. Of three rewards two cancel, and f32 sums lose the third.
struct Walk(u32);

impl Env for Walk {
    fn obs_shape(&self) -> ObsShape {
        ObsShape::Vector { dim: 1 }
    }

    fn action_space(&self) -> ActionSpace {
        ActionSpace::Box(1)
    }

    fn step_limit(&self) -> u32 {
        30
    }

    fn reset(&mut self, seed: u64, obs: &mut [f32]) -> Result<(), dt::Error> {
        self.0 = 0;
        obs.fill(0.1 * seed as f32);
        Ok(())
    }

    fn step(&mut self, action: Move<'_>, obs: &mut [f32]) -> Result<Step, dt::Error> {
        let Move::Continuous([force]) = action else { panic!("one force was declared") };
        obs[0] = 0.9 * obs[0] + force;
        self.0 += 1;
        let reward = [0.3 + 0.7 * force, 1e6, -1e6][self.0 as usize % 3];
        Ok(Step { reward, ..Step::default() })
    }
}

#[test]
fn fractional_rewards_leave_the_same_return_to_go_as_in_a_rollout() {
    let wave = |scale: f32| (0..60).map(|row| scale * (row as f32 * 0.7).sin()).collect::<Vec<f32>>();
    let episodes = Episodes::new(
        Observations::Vectors { dim: 1, values: wave(1.0) },
        Moved::Continuous { dim: 1, values: wave(0.8) },
        wave(0.3),
        &[12; 5],
        Rewards::AsStored,
    )
    .unwrap();
    let mut task = Task::new("walk", 1, episodes).unwrap();
    task.environment = Some(Box::new(|n| Ok(Box::new(Native::new((0..n).map(|_| Walk(0)).collect())?))));
    let base = Config::new(Observation::Vector(1), Action::Continuous(1));
    let config = Config { width: 16, layers: 2, heads: 2, context: 4, max_ep_len: 30, ..base };
    let mut options = Options::corrected(Strategy::Tsn);
    (options.steps, options.batch, options.warmup, options.lr) = (30, 8, 2, 1e-2);
    let mut learner = Learner::new(Device::cpu(1), config, options).unwrap();
    learner.learn(&task, None, &mut Silent).unwrap();

    let mut agent = Agent::new(&Device::cpu(1), &config, &learner.bank).unwrap();
    let mut env = task.environment.as_ref().unwrap()(1).unwrap();
    agent.enter(signature_of(&*env), Choose::Task(0)).unwrap();
    let state = State::of_task(&learner.bank, &learner.bank.tasks[0]);
    for seed in 0..5 {
        let expected = learner.evaluator().play(&state, &task, &[seed]).unwrap();
        assert_eq!(agent.play(&mut *env, seed, false, None, |_| ()).unwrap(), expected[0], "seed {seed}");
    }
    // What is not finite is refused, and leaves no trace.
    agent.reset().unwrap();
    agent.act(&[0.0]).unwrap();
    for value in [f32::NAN, f32::INFINITY] {
        let text = agent.executed(Act::Vector(&[value])).unwrap_err().to_string();
        assert!(text.starts_with("executed action: expected a finite number, found "), "{text}");
        let text = agent.reward(value).unwrap_err().to_string();
        assert!(text.starts_with("reward: expected a finite number, found "), "{text}");
    }
    assert!(agent.reward(0.5).is_ok() && agent.act(&[0.0]).is_ok());
}

/// An environment with lives, of which every fourth step takes one; remembers what it was told.
struct Lives {
    inner: Box<dyn Envs>,
    told: RefCell<Vec<u32>>,
}

impl Envs for Lives {
    fn slots(&self) -> usize {
        1
    }

    fn obs_shape(&self) -> ObsShape {
        self.inner.obs_shape()
    }

    fn action_space(&self) -> ActionSpace {
        self.inner.action_space()
    }

    fn step_limit(&self) -> u32 {
        self.inner.step_limit()
    }

    fn reset(&mut self, slots: &[usize], seeds: &[u64], obs: &mut [f32]) -> Result<(), dt::Error> {
        self.inner.reset(slots, seeds, obs)
    }

    fn step(
        &mut self,
        slots: &[usize],
        moves: Moves<'_>,
        obs: &mut [f32],
        steps: &mut [Step],
    ) -> Result<(), dt::Error> {
        let Moves::Discrete(&[id]) = moves else { panic!("one numbered action was declared") };
        self.inner.step(slots, moves, obs, steps)?;
        self.told.borrow_mut().push(id);
        steps[0].lives = Some(1000 - self.told.borrow().len() as u32 / 4);
        Ok(())
    }
}

#[test]
fn fire_is_forced_as_in_a_rollout() {
    let (tasks, config, learner) = learned();
    let mut agent = Agent::new(&Device::cpu(1), &config, &learner.bank).unwrap();
    let mut program = plan_act(&config, 1, |s| tsn::fit::frozen(s, true)).unwrap().bind(&Device::cpu(1)).unwrap();
    let mut state = State::of_task(&learner.bank, &learner.bank.tasks[0]);
    state.put_time(&config);
    state.load(&mut program).unwrap();
    let new = || Lives { inner: tasks[0].environment.as_ref().unwrap()(1).unwrap(), told: RefCell::default() };
    let mut routed = |fire: Option<u32>| -> (Episode, Vec<u32>) {
        let mut env = new();
        agent.enter(signature_of(&env), Choose::Task(0)).unwrap();
        (agent.play(&mut env, 7, false, fire, |_| ()).unwrap(), env.told.into_inner())
    };
    // FIRE is what the task would not do by itself.
    let fire = 1 - routed(None).1[0];
    let (episode, told) = routed(Some(fire));
    assert!(told.len() > 4 && [told[0], told[4]] == [fire; 2], "{told:?}");
    let mut env = new();
    let goal = Goal { fire: Some(fire), ..tasks[0].goal(&config) };
    assert_eq!(rollout(&mut program, &config, &mut env, &[7], &goal).unwrap(), [episode]);
    assert_eq!(env.told.into_inner(), told);
}

#[test]
fn a_switch_equals_having_played_the_task_all_along() {
    let (tasks, config, learner) = learned();
    let new = || Agent::new(&Device::cpu(1), &config, &learner.bank).unwrap();
    let (mut routed, mut told) = (new(), new());
    // Longer than the window of 4 steps, and shorter.
    for steps in [2u64, 9] {
        // States of task 1 under actions of task 1; the first states are played by task 0 until the router sees.
        let mut env = tasks[1].environment.as_ref().unwrap()(1).unwrap();
        let signature = signature_of(&*env);
        // Forgetting everything at once and a margin keep the wrong task for a while.
        let slow = Settings { margin: 40.0 * steps as f64, ..Settings::default() };
        routed.enter(signature, Choose::Routed(slow)).unwrap();
        told.enter(signature, Choose::Task(1)).unwrap();
        let mut obs = [0.0; 4];
        env.reset(&[0], &[3], &mut obs).unwrap();
        let mut switched = false;
        for step in 0..30u32 {
            routed.act(&obs).unwrap();
            told.act(&obs).unwrap();
            let status = routed.status().unwrap();
            switched |= status.switches > 0;
            assert_eq!(status.task == 1, bits(routed.outputs()) == bits(told.outputs()), "step {step}");
            for agent in [&mut routed, &mut told] {
                agent.executed(Act::Id(step % 2)).unwrap();
                agent.reward(1.0).unwrap();
            }
            let mut ended = [Step::default()];
            env.step(&[0], Moves::Discrete(&[step % 2]), &mut obs, &mut ended).unwrap();
            if ended[0].ends() {
                break;
            }
        }
        assert!(switched);
    }
}

/// A bank of format 1 is one without descriptions.
#[test]
fn banks_of_format_1_are_read() {
    let (_, _, learner) = learned();
    let mut bank = learner.bank;
    bank.tasks.iter_mut().for_each(|task| task.online = None);
    let mut writer = bank.to_writer().unwrap();
    writer.meta("format", "tsn-bank 1");
    let old = Bank::from_file(TensorFile::parse(writer.encode().unwrap()).unwrap()).unwrap();
    assert_eq!(Bank { parent: None, ..old }, bank);
}

#[test]
fn what_does_not_fit_is_named() {
    let (_, config, learner) = learned();
    let mut agent = Agent::new(&Device::cpu(1), &config, &learner.bank).unwrap();
    assert!(agent.act(&[0.0; 4]).is_err() && agent.reset().is_err() && agent.reward(0.0).is_err());
    let routed = Choose::Routed(Settings::default());
    let cartpole = Signature { observation: Shape::Vector(4), actions: Actions::Discrete(2) };
    let other = [
        Signature { observation: Shape::Vector(5), ..cartpole },
        Signature { observation: Shape::Vector(3), ..cartpole },
        Signature { actions: Actions::Discrete(1), ..cartpole },
        Signature { actions: Actions::Continuous(2), ..cartpole },
        Signature { observation: Shape::Frame { height: 2, width: 2 }, ..cartpole },
    ];
    for signature in other {
        let text = agent.enter(signature, routed).unwrap_err().to_string();
        assert!(text.contains(&signature.to_string()), "{text}");
    }
    assert!(agent.enter(other[1], Choose::Task(0)).is_err());
    assert!(agent.enter(cartpole, Choose::Task(2)).is_err());
    agent.enter(cartpole, routed).unwrap();
    assert!(agent.status().is_none());
    assert!(agent.executed(Act::Id(0)).is_err());
    assert!(agent.act(&[0.0; 3]).is_err() && agent.act(&[f32::NAN; 4]).is_err());
    assert!(agent.act(&[0.0; 4]).is_ok());
    assert!(agent.executed(Act::Id(2)).is_err() && agent.executed(Act::Vector(&[0.0])).is_err());
}

/// Does what a page does with its own WebGPU, on another program.
fn serve(agent: &mut Agent, elsewhere: &mut Program) {
    for message in agent.messages() {
        match message {
            Message::Write { name, bytes } if name == "valid" => elsewhere.write(&name, &bytes).unwrap(),
            Message::Write { name, bytes } => match elsewhere.write_state_bytes(&name, &bytes) {
                Ok(()) => {}
                // Inputs are four bytes an element but for the flags.
                Err(_) => {
                    let words: Vec<u32> =
                        bytes.as_chunks::<4>().0.iter().map(|word| u32::from_ne_bytes(*word)).collect();
                    let floats: Vec<f32> = words.iter().map(|word| f32::from_bits(*word)).collect();
                    elsewhere.write(&name, &words).or_else(|_| elsewhere.write(&name, &floats)).unwrap();
                }
            },
            Message::Run => elsewhere.run().unwrap(),
        }
    }
    agent.deliver(&elsewhere.read_vec::<f32>("output").unwrap()).unwrap();
}

/// An agent whose program runs elsewhere decides as one whose program runs here, through switches of task, from here to there
/// and back in the middle of a decision.
#[test]
fn a_program_that_runs_elsewhere_gives_the_same_bits() {
    let (tasks, config, learner) = learned();
    let new = || Agent::new(&Device::cpu(1), &config, &learner.bank).unwrap();
    let (mut here, mut there) = (new(), new());
    let mut elsewhere = tsn::agent::plan(&config, &learner.bank).unwrap().bind(&Device::cpu(1)).unwrap();
    let mut env = tasks[0].environment.as_ref().unwrap()(1).unwrap();
    let mut obs = vec![0.0; 4];
    for agent in [&mut here, &mut there] {
        agent.enter(signature_of(&*env), Choose::Routed(Settings::default())).unwrap();
    }
    assert!(there.finish().unwrap_err().to_string().contains("without an observation"));
    for episode in 0..3u64 {
        env = tasks[episode as usize % 2].environment.as_ref().unwrap()(1).unwrap();
        env.reset(&[0], &[episode], &mut obs).unwrap();
        here.reset().unwrap();
        there.reset().unwrap();
        for step in 0..12 {
            if step == 3 {
                there.relay().unwrap();
            }
            let Act::Id(expected) = here.act(&obs).unwrap() else { panic!("two actions") };
            there.begin(&obs).unwrap();
            assert!(there.begin(&obs).unwrap_err().to_string().contains("before the last one was answered"));
            if step == 9 {
                // Elsewhere it was not answered.
                there.run_here().unwrap();
                assert!(there.messages().is_empty());
            } else if step > 2 && step < 9 {
                serve(&mut there, &mut elsewhere);
            }
            let same = matches!(there.finish().unwrap(), Act::Id(id) if id == expected);
            assert!(same, "episode {episode}, step {step}");
            assert_eq!(bits(there.outputs()), bits(here.outputs()), "episode {episode}, step {step}");
            let mut steps = [Step::default()];
            env.step(&[0], Moves::Discrete(&[expected]), &mut obs, &mut steps).unwrap();
            here.reward(steps[0].reward).unwrap();
            there.reward(steps[0].reward).unwrap();
            if steps[0].ends() {
                break;
            }
        }
    }
    assert!(there.deliver(&[0.0; 7]).is_err(), "outputs of another model");
}
