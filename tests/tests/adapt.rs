//! Masks from a few demonstrations: what they are made of, what they leave alone, and that they help.

use dt::config::Config;
use dt::env::cartpole::Derived;
use engine::Device;
use tsn::adapt::{METHODS, Method, Pick, demonstrations};
use tsn::bank::{CopyRecord, TaskRecord};
use tsn::memory::{Masks, Memory, TimeEmbedding};
use tsn::state::State;
use tsn::suite::{Suite, config_for};
use tsn::{Bank, Error, Learner, Options, Profile, Silent, Strategy, Task};

/// The demo's three tasks and a model small enough for a debug build.
fn setting() -> (Vec<Task>, Config, Options) {
    let mut tasks = Suite::Demo.generate(Derived::Refreshed, 3, 10).unwrap();
    let fitting = config_for(&mut tasks, Profile::Corrected).unwrap();
    let config = Config { width: 32, layers: 1, heads: 2, context: 6, ..fitting };
    let mut options = Options::corrected(Strategy::TsnAffinity);
    (options.steps, options.batch, options.warmup) = (40, 16, 5);
    (options.keep_ratio, options.lr, options.seed) = (0.2, 5e-3, 5);
    (tasks, config, options)
}

/// A bank of the first two tasks.
fn learned() -> (Learner, Task) {
    let (mut tasks, config, options) = setting();
    let mut learner = Learner::new(Device::cpu(1), config, options).unwrap();
    tasks[..2].iter().for_each(|task| _ = learner.learn(task, None, &mut Silent).unwrap());
    (learner, tasks.remove(2))
}

fn again(bank: &Bank, name: &str) -> (Learner, Task) {
    let (mut tasks, config, options) = setting();
    let mut task = tasks.remove(2);
    task.name = name.to_owned();
    // Scores start 2 apart at most, so that a few steps move the mask only if they are long.
    let options = Options { score_lr_scale: 50.0, ..options };
    (Learner::with(Device::cpu(1), config, options, bank.clone()).unwrap(), task)
}

/// Bits of the weights that are claimed before, and of everything unmasked.
fn kept(copy: &CopyRecord, before: &CopyRecord) -> Vec<u32> {
    let mut bits = Vec::new();
    for (weight, old) in copy.weights.iter().zip(&before.weights) {
        let flags = old.occupied.as_ref().map(|mask| mask.flags().collect::<Vec<bool>>());
        let kept = |at: usize| flags.as_ref().is_none_or(|flags| flags[at]);
        bits.extend(weight.values.iter().enumerate().filter(|(at, _)| kept(*at)).map(|(_, v)| v.to_bits()));
    }
    bits
}

fn outputs(learner: &mut Learner, record: &TaskRecord, task: &Task) -> Vec<u32> {
    let (config, options) = (learner.config, learner.options.clone());
    let sampler = task.held_out(&config, &options, learner.evaluator().batch()).unwrap();
    let mut batch = sampler.batch();
    sampler.fill_tile(&mut batch, 0);
    let state = State::of_task(&learner.bank, record);
    learner.evaluator().outputs(&state, &batch).unwrap().iter().map(|v| v.to_bits()).collect()
}

#[test]
fn masks_are_of_claimed_weights_and_change_nothing_earlier() {
    let (mut first, task) = learned();
    let bank = first.bank.clone();
    let (earlier, _, _) = setting();
    let played = outputs(&mut first, &bank.tasks[0], &earlier[0]);
    let memory = |bank: &Bank| Memory::of(bank, |_| false).factor(Masks::Packed, TimeEmbedding::Excluded).unwrap();
    let mut made = Vec::new();
    for method in METHODS {
        let (mut learner, mut task) = again(&bank, &task.name);
        demonstrations(&mut task, 3, Pick::First).unwrap();
        let adapted = learner.adapt(&mut task, method, 12, &mut Silent).unwrap();
        let total: f64 = adapted.sources.iter().map(|s| s.weight).sum();
        assert!((total - 1.0).abs() < 1e-12 && adapted.sources.len() == 2, "{:?}", adapted.sources);
        let record = &learner.bank.tasks[2];
        let source = adapted.sources.iter().min_by(|a, b| a.error.total_cmp(&b.error)).unwrap().task;
        assert_eq!((record.source, record.notes["adapted.method"].as_str()), (Some(source), method.name()));
        assert_eq!(record.obs_mean, bank.tasks[source].obs_mean);
        assert_eq!(learner.bank.tasks[..2], bank.tasks[..], "{method:?}");
        assert_eq!(kept(&learner.bank.copies[0], &bank.copies[0]), kept(&bank.copies[0], &bank.copies[0]));
        assert!(memory(&learner.bank) > memory(&bank), "{method:?}: the mask is counted");
        if method == Method::TuneFree {
            assert!(record.claimed > 0);
        } else {
            assert_eq!((record.claimed, &learner.bank.copies), (0, &bank.copies), "{method:?}");
            assert_eq!(record.norms, bank.tasks[source].norms, "{method:?}");
            for ((_, occupied), mask) in bank.copies[0].masked().zip(&record.masks) {
                assert!(mask.count() > 0 && mask.and_not(occupied).count() == 0, "{method:?}");
            }
        }
        if method == Method::Retrieve {
            assert_eq!(record.masks, bank.tasks[source].masks);
        }
        let record = learner.bank.tasks[0].clone();
        assert_eq!(outputs(&mut learner, &record, &earlier[0]), played, "{method:?}");
        // A bank with an adapted task is one like any other.
        let bytes = learner.bank.to_writer().unwrap().encode().unwrap();
        let read = Bank::from_file(tsn::TensorFile::parse(bytes).unwrap()).unwrap();
        assert_eq!(read.tasks, learner.bank.tasks);
        made.push(learner.bank.tasks[2].masks.clone());
    }
    assert!(made[1] != made[2] && made[2] != made[3], "training scores moves the mask");
}

#[test]
fn no_step_of_tuning_is_the_composed_mask_and_steps_repeat() {
    let (first, task) = learned();
    let run = |method, steps| {
        let (mut learner, mut task) = again(&first.bank, &task.name);
        learner.options.score_lr_scale = 5.0;
        demonstrations(&mut task, 5, Pick::Best).unwrap();
        learner.adapt(&mut task, method, steps, &mut Silent).unwrap();
        learner.bank
    };
    let (composed, untuned) = (run(Method::Compose, 0), run(Method::Tune, 0));
    assert_eq!(composed.tasks[2].masks, untuned.tasks[2].masks);
    let tuned = run(Method::Tune, 300);
    assert!(tuned.tasks[2].masks != composed.tasks[2].masks, "training moves the mask");
    assert_eq!(tuned, run(Method::Tune, 300), "same bits again");
}

#[test]
fn demonstrations_are_the_first_or_the_best() {
    let (tasks, ..) = setting();
    let returns = tasks[2].episodes.returns();
    let train = tasks[2].split.train.clone();
    let some = |n, pick| {
        let mut task = setting().0.remove(2);
        demonstrations(&mut task, n, pick).map(|()| task.episodes.returns())
    };
    assert_eq!(some(2, Pick::First).unwrap(), [returns[train[0]], returns[train[1]]]);
    let mut ranked: Vec<f64> = train.iter().map(|e| returns[*e]).collect();
    ranked.sort_by(|a, b| b.total_cmp(a));
    assert_eq!(some(3, Pick::Best).unwrap(), ranked[..3]);
    assert!(some(0, Pick::First).unwrap_err().to_string().contains("1 to 8"));
    assert!(some(9, Pick::First).unwrap_err().to_string().contains("found 9"));
}

#[test]
fn what_cannot_be_adapted_is_named() {
    let (mut tasks, config, options) = setting();
    let mut empty = Learner::new(Device::cpu(1), config, options.clone()).unwrap();
    let error = empty.adapt(&mut tasks[0], Method::Retrieve, 0, &mut Silent).unwrap_err();
    assert!(error.to_string().contains("at least 1 to adapt from"), "{error}");
    let naive = Options { strategy: Strategy::Naive, ..options.clone() };
    let mut dense = Learner::new(Device::cpu(1), config, naive).unwrap();
    let error = dense.adapt(&mut tasks[0], Method::Retrieve, 0, &mut Silent).unwrap_err();
    assert!(matches!(error, Error::Option { name: "strategy of the bank", .. }), "{error}");
    empty.learn(&tasks[0], None, &mut Silent).unwrap();
    let error = empty.adapt(&mut tasks[0], Method::Retrieve, 0, &mut Silent).unwrap_err();
    assert!(matches!(error, Error::Known { .. }), "{error}");
    tasks[1].valid = Some(vec![0, 1]);
    tasks[1].layout = Some(dt::data::batch::Layout { width: 9, places: vec![0, 1, 2, 3] });
    let error = empty.adapt(&mut tasks[1], Method::Retrieve, 0, &mut Silent).unwrap_err();
    assert!(error.to_string().contains("observations of the task"), "{error}");
    assert_eq!(empty.bank.tasks.len(), 1);
}
