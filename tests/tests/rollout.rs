//! Rollouts on scripted environments: what a batch of them is told, and what an episode comes to.

use dt::autograd::engine::{Device, Program};
use dt::config::{Action, Config, Observation};
use dt::decision::plan_act;
use dt::env::{Action as Move, ActionSpace, Env, Envs, Moves, Native, ObsShape, Step};
use dt::history::Preprocess;
use dt::rollout::{Episode, Goal, rollout};
use std::cell::RefCell;
use std::rc::Rc;

type Told = Rc<RefCell<Vec<(usize, Vec<usize>, Vec<u32>)>>>;

/// Episode of seed `s` has `s + 1` steps of reward `s`; a life goes after step 2, success comes in step 1 of odd seeds.
struct Scripted {
    seeds: Vec<u64>,
    at: Vec<u64>,
    told: Told,
}

impl Envs for Scripted {
    fn slots(&self) -> usize {
        self.seeds.len()
    }

    fn obs_shape(&self) -> ObsShape {
        ObsShape::Vector { dim: 2 }
    }

    fn action_space(&self) -> ActionSpace {
        ActionSpace::Discrete(3)
    }

    fn step_limit(&self) -> u32 {
        5
    }

    fn fire(&self) -> Option<u32> {
        Some(2)
    }

    fn reset(&mut self, slots: &[usize], seeds: &[u64], obs: &mut [f32]) -> Result<(), dt::Error> {
        assert_eq!((seeds.len(), obs.len()), (slots.len(), 2 * slots.len()));
        slots.iter().zip(seeds).for_each(|(slot, seed)| (self.seeds[*slot], self.at[*slot]) = (*seed, 0));
        obs.fill(0.25);
        Ok(())
    }

    fn step(&mut self, slots: &[usize], moves: Moves<'_>, _: &mut [f32], steps: &mut [Step]) -> Result<(), dt::Error> {
        let Moves::Discrete(ids) = moves else { panic!("numbered actions were declared") };
        self.told.borrow_mut().push((slots.len(), slots.to_vec(), ids.to_vec()));
        for (slot, step) in slots.iter().zip(steps) {
            self.at[*slot] += 1;
            let (seed, at) = (self.seeds[*slot], self.at[*slot]);
            *step = Step {
                reward: seed as f32,
                terminated: at > seed,
                truncated: false,
                success: Some(seed % 2 == 1 && at == 1),
                lives: Some(if at < 3 { 2 } else { 1 }),
            };
        }
        Ok(())
    }
}

fn program(config: &Config, slots: u32) -> Program {
    let plan = plan_act(config, slots, |spec| tsn::fit::frozen(spec, false)).expect("records");
    plan.bind(&Device::cpu(1)).expect("binds")
}

fn config() -> Config {
    let base = Config::new(Observation::Vector(2), Action::Discrete(3));
    Config { width: 8, layers: 1, heads: 2, context: 2, max_ep_len: 9, ..base }
}

fn goal(fire: Option<u32>, clip_rewards: bool) -> Goal {
    let preprocess = Preprocess { moments: None, layout: None, rtg_scale: 1.0, max_ep_len: 9 };
    Goal { target: 1.0, preprocess, clip_rewards, fire }
}

#[test]
fn episodes_share_slots_and_come_back_in_the_order_of_their_seeds() {
    let config = config();
    for slots in [1, 2, 3, 7] {
        let mut envs = Scripted { seeds: vec![0; slots], at: vec![0; slots], told: Told::default() };
        let mut program = program(&config, slots as u32);
        let played = rollout(&mut program, &config, &mut envs, &[3, 0, 9, 1, 2], &goal(None, false)).expect("plays");
        let episode = |score, steps, terminated, success| Episode { score, steps, terminated, success: Some(success) };
        let expected = [
            episode(12.0, 4, true, true),
            episode(0.0, 1, true, false),
            episode(45.0, 5, false, true),
            episode(2.0, 2, true, true),
            episode(6.0, 3, true, false),
        ];
        assert_eq!(played, expected, "{slots} slots");
        // One call moves all that run.
        let calls: usize = envs.told.borrow().iter().map(|call| call.0).sum();
        assert_eq!(calls, 4 + 1 + 5 + 2 + 3);
        assert!(slots < 7 || envs.told.borrow().len() == 5);
        // No weights: every output is zero, and the first action wins ties.
        assert!(envs.told.borrow().iter().all(|call| call.2.iter().all(|id| *id == 0)));
    }
}

#[test]
fn fire_is_forced_at_the_start_and_after_a_lost_life() {
    let config = config();
    let mut envs = Scripted { seeds: vec![0], at: vec![0], told: Told::default() };
    let played = rollout(&mut program(&config, 1), &config, &mut envs, &[9], &goal(Some(2), true)).expect("plays");
    let actions: Vec<u32> = envs.told.borrow().iter().map(|call| call.2[0]).collect();
    assert_eq!(actions, [2, 0, 0, 2, 0]);
    assert_eq!(played[0].score, 5.0, "rewards of 9 count as 1");
}

/// Pays what it is told to do, plus its seed.
struct Echo(u64);

impl Env for Echo {
    fn obs_shape(&self) -> ObsShape {
        ObsShape::Vector { dim: 1 }
    }

    fn action_space(&self) -> ActionSpace {
        ActionSpace::Box(2)
    }

    fn step_limit(&self) -> u32 {
        9
    }

    fn reset(&mut self, seed: u64, obs: &mut [f32]) -> Result<(), dt::Error> {
        self.0 = seed;
        obs.fill(seed as f32);
        Ok(())
    }

    fn step(&mut self, action: Move<'_>, obs: &mut [f32]) -> Result<Step, dt::Error> {
        let Move::Continuous(values) = action else { panic!("a box was declared") };
        obs.fill(values[1]);
        Ok(Step { reward: values[0] + self.0 as f32, ..Step::default() })
    }
}

#[test]
fn native_environments_get_their_own_rows() {
    let mut envs = Native::new(vec![Echo(0), Echo(0), Echo(0)]).expect("alike");
    let (mut obs, mut steps) = ([0.0; 2], [Step::default(); 2]);
    envs.reset(&[2, 0], &[20, 30], &mut obs).expect("resets");
    assert_eq!(obs, [20.0, 30.0]);
    envs.step(&[0, 2], Moves::Continuous(&[1.0, 2.0, 3.0, 4.0]), &mut obs, &mut steps).expect("steps");
    assert_eq!((obs, steps.map(|s| s.reward)), ([2.0, 4.0], [31.0, 23.0]));
}
