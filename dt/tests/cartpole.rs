//! CartPole against gymnasium: start states bit for bit, rollouts to 1e-12 (fixtures/README.md).

use tsn_dt::env::cartpole::{CartPole, Derived, Variant, conflict, variants};
use tsn_dt::env::{Action, Env};

const FIXTURE: &str = include_str!("fixtures/cartpole.txt");

fn state(words: &[&str]) -> [f64; 4] {
    std::array::from_fn(|i| f64::from_bits(u64::from_str_radix(words[i], 16).expect("hexadecimal")))
}

fn task(name: &str) -> Variant {
    variants().into_iter().chain(conflict()).find(|v| v.name == name).expect("a known task")
}

#[test]
fn start_states_equal_gymnasium() {
    let mut env = CartPole::new(variants()[0].params(Derived::Stale).expect("valid")).expect("valid");
    let mut seen = 0;
    for line in FIXTURE.lines().filter(|line| line.starts_with("reset ")) {
        let words: Vec<&str> = line.split(' ').collect();
        let mut obs = [0.0; 4];
        env.reset(words[1].parse().expect("a seed"), &mut obs).expect("reset");
        let want = state(&words[2..]);
        assert_eq!(env.state().map(f64::to_bits), want.map(f64::to_bits), "{line}");
        assert_eq!(obs, want.map(|v| v as f32));
        seen += 1;
    }
    assert_eq!(seen, 12);
}

#[test]
fn rollouts_follow_gymnasium() {
    let mut tasks = 0;
    let mut env: Option<CartPole> = None;
    for line in FIXTURE.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[0] {
            "rollout" => {
                let fresh =
                    env.insert(CartPole::new(task(words[1]).params(Derived::Stale).expect("valid")).expect("valid"));
                fresh.start(state(&words[2..])).expect("finite");
                tasks += 1;
            }
            "step" => {
                let env = env.as_mut().expect("a rollout line comes first");
                let mut obs = [0.0; 4];
                let action = words[1].parse().expect("an action");
                let step = env.step(Action::Discrete(action), &mut obs).expect("running");
                assert_eq!(step.terminated, words[2] == "1", "{line}");
                assert_eq!(step.reward, 1.0);
                let want = state(&words[3..]);
                for (got, want) in env.state().iter().zip(want) {
                    assert!((got - want).abs() <= 1e-12, "{line}: {got} for {want}");
                }
            }
            _ => {}
        }
    }
    assert_eq!(tasks, 8);
}
