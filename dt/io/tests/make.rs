//! Datasets made with peers that only look like simulators, and the planner on a game of a few lines. Python's standard
//! library is enough; without any Python a test says on stderr that it did not run, which `REQUIRE=python` makes a failure.

use dt::data::episodes::{Actions, Observations};
use serde_json::{Map, Value};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use tsn_dt_io::bridge::{Patience, Simulator, packages};
use tsn_dt_io::make::{Error, Made, Maker, Recipe};
use tsn_dt_io::{Expect, Extras, TaskSpec, load_npz, save_npz_with};

/// A peer whose episodes follow from their seeds: `observe(state)`, `end(state)`, and what `make` answers.
const FAKE: &str = r#"
import json, struct, sys
def read(n):
    data = sys.stdin.buffer.read(n)
    if len(data) < n: sys.exit(0)
    return data
def serve(made, observe, end, advice=None):
    while True:
        _, h, b = struct.unpack("<4sII", read(12))
        header, body = json.loads(read(h)), read(b)
        arrays = []
        if header["op"] == "reset":
            state = {"x": struct.unpack("<Q", body[4:12])[0] % 7, "t": 0}
            arrays = [observe(state)]
        elif header["op"] == "step":
            state["t"] += 1
            state["x"] += body[4]
            ends, success, lives = end(state)
            arrays = [observe(state), ("rewards", "<f4", [1], struct.pack("<f", state["t"])), ("ends", "|u1", [1], bytes([ends])),
                      ("success", "|i1", [1], struct.pack("b", success)), ("lives", "<i4", [1], struct.pack("<i", lives))]
        elif header["op"] == "advise":
            arrays = [("actions", "<u4", [1], struct.pack("<I", advice))]
        answer = dict(made if header["op"] == "make" else {}, n=header["n"], arrays=[[n, d, s] for n, d, s, _ in arrays])
        text = json.dumps(answer).encode()
        data = b"".join(a[3] for a in arrays)
        sys.stdout.buffer.write(struct.pack("<4sII", b"TSNB", len(text), len(data)) + text + data)
        sys.stdout.buffer.flush()
"#;

/// An arm that arrives after as many steps as its seed says, or never.
const ARM: &str = r#"
made = {"obs": {"kind": "vector", "shape": [12]}, "action": {"kind": "box", "n": 3}, "limit": 6, "fire": None}
def observe(state): return ("obs", "<f4", [1, 12], struct.pack("<12f", *[0.5 * state["t"]] * 9, 1, 1, 1))
def end(state): return (1, 1, -1) if state["t"] >= 4 else (0, 0, -1)
serve(made, observe, end)
"#;

/// A game that its advisor plays with action 2; a life is lost in the third step.
const GAME: &str = r#"
made = {"obs": {"kind": "frame", "shape": [2, 3]}, "action": {"kind": "discrete", "n": 4}, "limit": 1000, "fire": 1}
def observe(state): return ("obs", "|u1", [1, 2, 3], bytes([state["t"]] * 5 + [255]))
def end(state): return (0, -1, 3 if state["t"] < 3 else 2)
serve(made, observe, end, ADVICE)
"#;

fn python() -> PathBuf {
    std::env::var_os("TSN_PYTHON").map_or_else(|| "python3".into(), PathBuf::from)
}

/// There is no Python.
fn none() -> bool {
    let Err(error) = packages(&python()) else { return false };
    assert!(!std::env::var("REQUIRE").unwrap_or_default().split(',').any(|name| name == "python"), "REQUIRE: {error}");
    eprintln!("not run: {error}");
    true
}

fn maker(env: &str, script: &str) -> Result<Maker, Error> {
    let spec = TaskSpec { name: "t".into(), env_id: env.into(), seed: 0, params: Map::new() };
    let simulator = Simulator::with(&python(), &format!("{FAKE}{script}"), env, &Map::new(), Patience::default());
    Maker::with(&spec, simulator)
}

fn made(maker: &Maker, seed: u64, workers: usize) -> Made {
    let recipe = Recipe { seed, episodes: 10, most_steps: 5, workers };
    maker.make(&recipe, &AtomicBool::new(false), |_, _| ()).expect("plays").expect("nobody stops it")
}

#[test]
fn arms_are_recorded_the_same_by_any_number_of_workers() {
    if none() {
        return;
    }
    let maker = maker("PandaReachDense-v3", ARM).expect("an arm");
    let one = made(&maker, 3, 1);
    assert_eq!(one, made(&maker, 3, 3));
    assert_ne!(one.episodes, made(&maker, 4, 1).episodes);
    let tiers: Vec<&str> = one.tiers.iter().map(|t| t.name).collect();
    let count = |name: &str| tiers.iter().filter(|tier| **tier == name).count();
    assert_eq!(["expert", "noisy", "medium", "random"].map(count), [3, 4, 2, 1]);
    assert_eq!((one.success, one.lives), (Some(vec![true; 10]), None));
    assert_eq!(one.terminated, [true; 10]);
    assert_eq!((one.episodes.rows(), one.episodes.returns()), (40, vec![10.0; 10]));
    let (Observations::Vectors { values, .. }, Actions::Continuous { values: actions, .. }) =
        (one.episodes.observations(), one.episodes.actions())
    else {
        panic!("an arm has vectors")
    };
    for (episode, tier) in tiers.iter().enumerate() {
        let rows = one.episodes.rows_of(episode);
        // The hand is 1, 0.5, 0 and -0.5 away from its goal: full strides there, none, one back.
        let controller = [1.0, 1.0, 0.0, -1.0].map(|a| [a; 3]).concat();
        assert_eq!(actions[3 * rows.start..3 * rows.end] == controller, *tier == "expert", "{tier} {episode}");
        assert_eq!(values[12 * rows.start..][..12], [[0.0; 9].as_slice(), &[1.0; 3]].concat());
    }
    assert!(actions.iter().all(|a| (-1.0..=1.0).contains(a)));
}

#[test]
fn games_are_advised_cut_and_saved_with_their_lives() {
    if none() {
        return;
    }
    let maker = maker("ALE/Toy-v5", &GAME.replace("ADVICE", "2")).expect("a game");
    let made = made(&maker, 3, 2);
    let Actions::Discrete { count: 4, ids } = made.episodes.actions() else { panic!("four actions") };
    let agree = |name: &str| {
        let of = |e: usize| ids[made.episodes.rows_of(e)].iter();
        let all: Vec<u32> = (0..10).filter(|e| made.tiers[*e].name == name).flat_map(of).copied().collect();
        all.iter().filter(|id| **id == 2).count() as f64 / all.len() as f64
    };
    assert_eq!(agree("expert"), 1.0);
    assert!(agree("noisy") > 0.7 && agree("random") < 0.7, "{} {}", agree("noisy"), agree("random"));
    assert_eq!((made.episodes.rows(), &made.terminated[..], &made.success), (50, &[false; 10][..], &None));
    let lives = made.lives.as_deref().expect("lives");
    assert_eq!(lives, [3, 3, 3, 2, 2].repeat(10));
    let Observations::Frames { bytes, .. } = made.episodes.observations() else { panic!("frames") };
    assert_eq!(bytes[6..12], [1, 1, 1, 1, 1, 255]);

    let path = std::env::temp_dir().join(format!("tsn-dt-io-make-{}.npz", std::process::id()));
    save_npz_with(&made.episodes, Extras { lives: Some(lives), success: Some(&[true; 10]) }, &path).expect("a file");
    let bytes = std::fs::read(&path).expect("bytes");
    let at = |text: &[u8]| bytes.windows(text.len()).position(|window| window == text).expect("in the file");
    let array = npyz::NpyFile::new(&bytes[at(b"lives.npy") + 9..]).expect("npy");
    assert_eq!(array.into_vec::<u8>().expect("bytes"), lives);
    // A loader does not mind them; the last action was perhaps never done.
    let loaded = load_npz(&path, &Expect::default()).expect("loads");
    assert_eq!((loaded.observations(), loaded.rewards()), (made.episodes.observations(), made.episodes.rewards()));
    std::fs::remove_file(&path).expect("removed");
}

#[test]
fn what_cannot_be_made_is_told() {
    let text = |result: Result<Maker, Error>| result.expect_err("refused").to_string();
    assert!(text(maker("Pusher-v5", "")).contains("no controller for Pusher-v5: expected CartPole-v1, ALE/..."));
    if none() {
        return;
    }
    // Another environment behind the name.
    assert!(text(maker("PandaPushDense-v3", ARM)).contains("no controller for PandaPushDense-v3"));
    assert!(text(maker("ALE/Toy-v5", ARM)).contains("no controller for ALE/Toy-v5"));
    let maker = maker("ALE/Toy-v5", &GAME.replace("ADVICE", "4")).expect("a game");
    let recipe = Recipe { seed: 0, episodes: 2, most_steps: 5, workers: 2 };
    let error = maker.make(&recipe, &AtomicBool::new(false), |_, _| ()).expect_err("bad advice").to_string();
    assert!(error.contains("ALE/Toy-v5") && error.contains("actions: expected numbers below 4, found 4"), "{error}");
}

#[test]
fn a_stop_leaves_nothing() {
    if none() {
        return;
    }
    let maker = maker("PandaReachDense-v3", ARM).expect("an arm");
    let recipe = Recipe { seed: 0, episodes: 100_000, most_steps: 5, workers: 2 };
    let stop = AtomicBool::new(false);
    let mut heard = (0, 0);
    let made = maker.make(&recipe, &stop, |done, all| {
        heard = (done, all);
        stop.store(true, Ordering::Relaxed);
    });
    assert!(made.expect("no error").is_none());
    assert!(heard.0 > 0 && heard.1 == 500_000, "{heard:?}");
}

/// A walk on a line: action 1 goes right, 2 left. A reward waits at `GOAL`, a life is lost at -2.
const WALK: &str = r#"
class Walk:
    def __init__(self, goal): self.at, self.left, self.goal, self.acts = 0, 3, goal, 0
    def act(self, action):
        self.acts += 1
        self.at += {0: 0, 10: 1, 20: -1}[action]
        self.left -= self.at == -2
        return float(self.at == self.goal)
    def lives(self): return self.left
    def game_over(self): return self.at in (-2, self.goal)
    def cloneState(self): return (self.at, self.left)
    def restoreState(self, state): self.at, self.left = state
def walk(goal, at=0, most=200):
    game, steps = Walk(goal), []
    game.at = at
    planner = Planner(game, [0, 10, 20], 1, 7)
    while not game.game_over() and len(steps) < most:
        before = (game.at, game.left)
        steps.append(planner.advise())
        assert before == (game.at, game.left), "planning leaves the game as it is"
        game.act([0, 10, 20][steps[-1]])
    return game.at, steps
print(json.dumps([walk(5), walk(45), walk(1000, most=9), walk(5) == walk(5)]))
"#;

#[test]
fn the_planner_finds_rewards_near_and_far_and_rests_without() {
    if none() {
        return;
    }
    let script = format!("import json\n{}\n{WALK}", include_str!("../bridge/plan.py"));
    let output = Command::new(python()).args(["-c", &script]).output().expect("Python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(found[0], serde_json::json!([5, [1, 1, 1, 1, 1]]), "straight to what is near");
    assert_eq!(found[1], serde_json::json!([45, vec![1; 45]]), "and to what is beyond its horizon");
    // Going left loses a life; nothing else is to be had, so that it stays.
    let rest = found[2].as_array().expect("a walk");
    assert_eq!(rest[0], 0, "{rest:?}");
    assert_eq!(rest[1], serde_json::json!([0, 0, 0, 0, 0, 0, 0, 0, 0]));
    assert_eq!(found[3], true);
}
