//! Peers that lie, stall and die, written in Python's standard library; and real simulators, where they are installed.
//!
//! A test whose interpreter or package is missing says on stderr that it did not run; `REQUIRE=python,simulators` makes
//! that a failure.

use dt::env::cartpole::{CartPole, CartPoleParams, variants};
use dt::env::{ActionSpace, Env, Envs, Moves, ObsShape, Step};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tsn_dt_io::bridge::{Error, Patience, Simulator, packages, requirements};

/// Answers requests: `reply(op, header, body)` gives the fields and arrays of an answer.
const FAKE: &str = r#"
import json, os, struct, sys, time
def read(n):
    data = sys.stdin.buffer.read(n)
    if len(data) < n: sys.exit(0)
    return data
def write(fields, *arrays):
    fields = dict(fields, arrays=[[n, d, s] for n, d, s, _ in arrays])
    text = json.dumps(fields).encode()
    body = b"".join(a[3] for a in arrays)
    sys.stdout.buffer.write(struct.pack("<4sII", b"TSNB", len(text), len(body)) + text + body)
    sys.stdout.buffer.flush()
def floats(*v): return struct.pack("<%df" % len(v), *v)
MADE = {"obs": {"kind": "vector", "shape": [2]}, "action": {"kind": "discrete", "n": 3}, "limit": 9, "fire": None}
def serve(made=MADE, reset=None, step=None):
    while True:
        _, h, b = struct.unpack("<4sII", read(12))
        header, body = json.loads(read(h)), read(b)
        n = header["n"]
        if header["op"] == "make": write(dict(made, n=n, ok=True)); continue
        k = header["arrays"][0][2][0]
        if header["op"] == "reset":
            if reset: reset(n, k)
            else: write({"n": n}, ("obs", "<f4", [k, 2], floats(*range(2 * k))))
        elif step: step(n, k)
        else: answer(n, k)
def answer(n, k, obs=None, rewards=None, shape=None):
    write({"n": n}, ("obs", "<f4", shape or [k, 2], floats(*(obs or [7.0] * 2 * k))),
          ("rewards", "<f4", [k], floats(*(rewards or [0.5] * k))), ("ends", "|u1", [k], bytes([2] * k)),
          ("success", "|i1", [k], bytes([255] + [1] * (k - 1))), ("lives", "<i4", [k], struct.pack("<%di" % k, *[-1] * k)))
"#;

fn python() -> PathBuf {
    std::env::var_os("TSN_PYTHON").map_or_else(|| "python3".into(), PathBuf::from)
}

/// A reason not to run; a failure where `REQUIRE` names `what`.
fn not_run(what: &str, why: &str) {
    assert!(!std::env::var("REQUIRE").unwrap_or_default().split(',').any(|name| name == what), "REQUIRE: {why}");
    eprintln!("not run: {why}");
}

/// A fake peer; nothing where there is no Python at all.
fn fake(body: &str, patience: Duration) -> Option<Simulator> {
    if let Err(error) = packages(&python()) {
        not_run("python", &error.to_string());
        return None;
    }
    let patience = Patience { make: Duration::from_secs(60), answer: patience };
    Some(Simulator::with(&python(), &format!("{FAKE}\n{body}"), "Fake-v0", &Map::new(), patience))
}

const LONG: Duration = Duration::from_secs(60);

/// Resets two environments of a fake and steps them once.
fn play(simulator: &Simulator) -> Result<([f32; 4], [Step; 2]), dt::Error> {
    let mut envs =
        simulator.open(2).map_err(|e| dt::Error::Environment { name: "open".into(), reason: e.to_string() })?;
    let (mut obs, mut steps) = ([0.0; 4], [Step::default(); 2]);
    envs.reset(&[0, 1], &[5, 6], &mut obs)?;
    assert_eq!(obs, [0.0, 1.0, 2.0, 3.0]);
    envs.step(&[0, 1], Moves::Discrete(&[0, 2]), &mut obs, &mut steps)?;
    Ok((obs, steps))
}

/// What is wrong with a fake, as the rollout hears it.
fn complaint(body: &str, patience: Duration) -> Option<String> {
    let error = play(&fake(body, patience)?).expect_err(body).to_string();
    assert!(error.contains("Fake-v0"), "{error}");
    Some(error)
}

#[test]
fn a_good_peer_is_played_and_kept() {
    let Some(simulator) = fake("serve()", LONG) else { return };
    for _ in 0..2 {
        let (obs, steps) = play(&simulator).expect("plays");
        assert_eq!(obs, [7.0; 4]);
        let step = Step { reward: 0.5, terminated: false, truncated: true, success: None, lives: None };
        assert_eq!(steps, [step, Step { success: Some(true), ..step }]);
    }
    let mut envs = simulator.open(3).expect("opens");
    let kind = (envs.slots(), envs.obs_shape(), envs.action_space(), envs.step_limit());
    assert_eq!(kind, (3, ObsShape::Vector { dim: 2 }, ActionSpace::Discrete(3), 9));
    // Mistakes of the caller do not reach the peer.
    let mut obs = [0.0; 2];
    assert!(matches!(envs.reset(&[3], &[0], &mut obs), Err(dt::Error::Size { .. })));
    assert!(matches!(envs.reset(&[0], &[], &mut obs), Err(dt::Error::Size { .. })));
    // Slices that are no whole rows of what was asked for.
    assert!(matches!(envs.reset(&[0], &[0], &mut [0.0; 3]), Err(dt::Error::Size { expected: 2, found: 3, .. })));
    let odd = envs.step(&[0], Moves::Discrete(&[1]), &mut [0.0; 3], &mut [Step::default()]);
    assert!(matches!(odd, Err(dt::Error::Size { expected: 2, found: 3, .. })));
    let mut step = |moves: Moves<'_>| envs.step(&[0], moves, &mut [0.0; 2], &mut [Step::default()]);
    assert!(matches!(step(Moves::Discrete(&[3])), Err(dt::Error::Action { value: 3, count: 3, .. })));
    assert!(matches!(step(Moves::Continuous(&[0.0])), Err(dt::Error::Kind { .. })));
    assert!(step(Moves::Discrete(&[1])).is_ok());
    assert!(matches!(simulator.open(0), Err(Error::Refused { .. })));
    assert!(matches!(simulator.open(1 << 20), Err(Error::Refused { .. })));

    // Four answers with all the values there may be are longer than a message, three are not.
    let Some(wide) = fake("serve(made=dict(MADE, obs={'kind': 'vector', 'shape': [1 << 22]}))", LONG) else { return };
    let error = wide.open(4).expect_err("too long").to_string();
    assert!(error.contains("4 environments answer a step with 16777226 bytes each"), "{error}");
    assert!(error.contains("67108864") && error.ends_with("3 environments"), "{error}");
    assert!(wide.open(3).is_ok());
}

#[test]
fn a_dead_peer_is_named_with_its_last_words() {
    let Some(text) = complaint(
        "def die(n, k): print('segment 7 is missing', file=sys.stderr, flush=True); os._exit(9)\nserve(step=die)",
        LONG,
    ) else {
        return;
    };
    assert!(text.contains("ended while asked to step") && text.contains("9"), "{text}");
    assert!(text.ends_with("its stderr ends: segment 7 is missing"), "{text}");
    // In the middle of a message, and before the first one.
    let cut = complaint("def cut(n, k): os.write(1, b'TSNB\\x10\\0'); os._exit(0)\nserve(step=cut)", LONG);
    assert!(cut.is_some_and(|text| text.contains("its output ends inside a message")));
    let dead = play(&fake("raise ValueError('no licence')", LONG).expect("as above")).expect_err("dead").to_string();
    assert!(dead.contains("make environments") && dead.contains("ValueError: no licence"), "{dead}");
}

#[test]
fn a_silent_peer_is_given_up_and_killed() {
    let body = "def hang(n, k):\n    while True: time.sleep(60)\nserve(reset=hang)";
    let Some(simulator) = fake(body, Duration::from_millis(200)) else { return };
    let mut envs = simulator.open(1).expect("opens");
    let mut reset = || envs.reset(&[0], &[0], &mut [0.0; 2]).expect_err("silent").to_string();
    let text = reset();
    assert!(text.contains("did not answer within 0.2 s when asked to reset"), "{text}");
    assert_eq!(reset(), text, "it stays dead");
    // A new process takes its place.
    drop(envs);
    assert!(simulator.open(1).is_ok());
}

#[test]
fn babble_is_named() {
    let talk = "def talk(n, k): print('Hello from C++', flush=True)\nserve(step=talk)";
    let Some(text) = complaint(talk, LONG) else { return };
    assert!(text.contains("expected a message, found \"Hello from C\""), "{text}");
    let step = |code: &str| {
        let text = complaint(&format!("def step(n, k): {code}\nserve(step=step)"), LONG);
        text.expect("Python ran above")
    };
    let huge = step("os.write(1, struct.pack('<4sII', b'TSNB', 10, 0xfffffff0))");
    assert!(huge.contains("claims 4294967280 bytes of arrays, the limit is 67108864"), "{huge}");
    let flood = step("[write({'n': 0}) for _ in range(10**9)]");
    assert!(flood.contains("it answers another request"), "{flood}");
    let text = step("os.write(1, b'x' * 100000)");
    assert!(text.contains("expected a message, found \"xxxxxxxxxxxx\""), "{text}");
    for (code, found) in [
        ("answer(n, k, shape=[2 * k])", "array obs: expected <f4[2, 2], found <f4[4]"),
        ("answer(n, k, obs=[0.0, float('nan')] * k)", "array obs: expected finite numbers, found NaN"),
        ("answer(n, k, rewards=[float('inf')] * k)", "array rewards: expected finite numbers, found inf"),
        ("write({'n': n})", "array obs: expected <f4[2, 2], found none"),
        ("write({'n': n, 'error': 'failed', 'text': 'the arm fell off'})", "the arm fell off"),
    ] {
        let text = step(code);
        assert!(text.contains(found), "{text}");
    }
    for (made, found) in [
        ("dict(MADE, limit=-1)", "limit: expected a number"),
        ("dict(MADE, fire=3)", "fire: expected 0..3, found 3"),
        ("dict(MADE, obs={'kind': 'vector', 'shape': [2**40]})", "obs.shape: expected 1 to"),
        ("dict(MADE, obs={'kind': 'cube', 'shape': [1]})", "expected a vector or a frame"),
        ("dict(MADE, action={'kind': 'box', 'n': 0})", "expected discrete or box actions"),
        ("{}", "obs.shape: expected a list of sizes"),
    ] {
        let text = complaint(&format!("serve(made={made})"), LONG).expect("Python ran above");
        assert!(text.contains(found), "{text}");
    }
}

#[test]
fn absence_is_told_from_failure() {
    let nowhere = Simulator::new(Path::new("no/such/python"), "CartPole-v1", &Map::new()).open(1).expect_err("absent");
    assert!(matches!(nowhere, Error::NoPython { .. }) && nowhere.is_absence());
    assert!(nowhere.to_string().contains("no/such/python"));
    assert!(packages(Path::new("no/such/python")).is_err());
    assert!(requirements().iter().any(|p| p.name == "panda-gym" && p.requirement.starts_with("panda-gym==3")));
    for (kind, absent) in [("missing", true), ("unknown", true), ("failed", false)] {
        let body = format!("MADE['error'] = '{kind}'; MADE['text'] = 'why'; serve()");
        let Some(simulator) = fake(&body, LONG) else { return };
        let error = simulator.open(1).expect_err("refused");
        assert_eq!(error.is_absence(), absent, "{error}");
        assert!(error.to_string().contains("why"));
    }
}

/// Real environments; nothing where their package is missing.
fn real(env: &str, params: Value) -> Option<Simulator> {
    let params = params.as_object().cloned().unwrap_or_default();
    let simulator = Simulator::new(&python(), env, &params);
    match simulator.open(1) {
        Ok(_) => Some(simulator),
        Err(error) if error.is_absence() => {
            not_run("simulators", &error.to_string());
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn the_native_cartpole_is_that_of_gymnasium() {
    for variant in variants() {
        let params: Map<String, Value> = variant.changes.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
        let Some(simulator) = real("CartPole-v1", Value::Object(params)) else { return };
        let mut envs = simulator.open(3).expect("opens");
        let stale = CartPoleParams::with(variant.changes.iter().copied(), dt::env::cartpole::Derived::Stale);
        let mut native = CartPole::new(stale.expect("valid")).expect("valid");
        let (mut obs, mut own, mut steps) = ([0.0; 4], [0.0; 4], [Step::default()]);
        for seed in [0, 1, 977] {
            envs.reset(&[2], &[seed], &mut obs).expect("resets");
            native.reset(seed, &mut own).expect("resets");
            assert_eq!(obs, own);
            for at in 0..60 {
                let action = u32::from(at % 3 == 0 || own[2] > 0.0);
                envs.step(&[2], Moves::Discrete(&[action]), &mut obs, &mut steps).expect("steps");
                let step = native.step(dt::env::Action::Discrete(action), &mut own).expect("steps");
                assert_eq!((obs, steps[0]), (own, step), "{} seed {seed} step {at}", variant.name);
                if step.ends() {
                    break;
                }
            }
        }
    }
}

#[test]
fn an_arm_depends_on_its_seed_alone() {
    let Some(simulator) = real("PandaPushDense-v3", json!({"time_feature": true})) else { return };
    let mut envs = simulator.open(2).expect("opens");
    assert_eq!((envs.obs_shape(), envs.step_limit()), (ObsShape::Vector { dim: 25 }, 50));
    assert_eq!(envs.action_space(), ActionSpace::Box(3));
    let mut episode = |slot: usize, seed: u64| {
        let (mut obs, mut steps) = ([0.0; 25], [Step::default()]);
        let mut all = Vec::new();
        envs.reset(&[slot], &[seed], &mut obs).expect("resets");
        assert_eq!(obs[18], 1.0, "the time feature");
        for _ in 0..12 {
            // Towards the object, so that contacts happen.
            let action: Vec<f32> = (0..3).map(|d| ((obs[19 + d] - obs[d]) * 10.0).clamp(-1.0, 1.0)).collect();
            envs.step(&[slot], Moves::Continuous(&action), &mut obs, &mut steps).expect("steps");
            let far = (0..3).map(|d| (obs[19 + d] - obs[22 + d]).powi(2)).sum::<f32>().sqrt();
            assert!((steps[0].reward + far).abs() < 1e-5, "{} {far}", steps[0].reward);
            assert_eq!(steps[0].success, Some(steps[0].terminated));
            all.extend_from_slice(&obs);
            if steps[0].ends() {
                break;
            }
        }
        all
    };
    let first = episode(0, 5);
    let other = episode(0, 6);
    assert_ne!(first, other);
    assert_eq!(episode(0, 5), first);
    assert_eq!(episode(1, 5), first);
}

#[test]
fn a_game_keeps_its_protocols() {
    let Some(deterministic) = real("ALE/Breakout-v5", json!({})) else { return };
    let trace = |simulator: &Simulator, seed: u64| {
        let mut envs = simulator.open(1).expect("opens");
        let frame = ObsShape::Frame { height: 84, width: 84 };
        assert_eq!((envs.obs_shape(), envs.action_space()), (frame, ActionSpace::Discrete(4)));
        assert_eq!((envs.fire(), envs.step_limit()), (Some(1), 27_000));
        let (mut obs, mut steps) = (vec![0.0; 84 * 84], [Step::default()]);
        envs.reset(&[0], &[seed], &mut obs).expect("resets");
        let mut all = obs.clone();
        for at in 0..15 {
            envs.step(&[0], Moves::Discrete(&[[1, 2, 3][at % 3]]), &mut obs, &mut steps).expect("steps");
            assert_eq!(steps[0].lives, Some(5));
            all.extend_from_slice(&obs);
        }
        assert!(all.iter().all(|v| v.fract() == 0.0 && (0.0..256.0).contains(v)) && all.iter().any(|v| *v > 0.0));
        all
    };
    assert_eq!(trace(&deterministic, 1), trace(&deterministic, 2));
    let stochastic = real("ALE/Breakout-v5", json!({"protocol": "stochastic"})).expect("installed");
    assert_eq!(trace(&stochastic, 1), trace(&stochastic, 1));
    assert_ne!(trace(&stochastic, 1), trace(&stochastic, 2));
    for params in [json!({"protocol": "random"}), json!({"sticky": 2}), json!({"resize": "wide"}), json!({"lives": 3})]
    {
        let error = Simulator::new(&python(), "ALE/Breakout-v5", params.as_object().expect("an object")).open(1);
        assert!(matches!(error, Err(Error::Refused { .. })), "{params}");
    }
}
