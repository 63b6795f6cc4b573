//! The learner at the edges of its settings and data: every strategy, smallest sizes, errors, stops and restarts.

use dt::config::Config;
use dt::data::episodes::{Actions, Episodes, Observations, Rewards};
use dt::env::cartpole::Derived;
use engine::Device;
use kernels::philox::{Rng, Stream};
use tsn::affinity::{Mode, Thresholds};
use tsn::fit::Checkpoint;
use tsn::suite::{Suite, config_for};
use tsn::{
    Bank, Error, Event, Flow, KeepSchedule, Learner, Observer, Options, Profile, Selection, Sequence, Silent, Strategy,
    Task, WarmStart,
};

const PROFILES: [Profile; 2] = [Profile::Corrected, Profile::Official];
const MODES: [Mode; 6] = [Mode::Action, Mode::Latent, Mode::Hybrid, Mode::HybridAbs, Mode::Cosine, Mode::Kl];

/// A model of a few hundred weights for a list of tasks.
fn small(tasks: &mut [Task], profile: Profile) -> Config {
    let config = config_for(tasks, profile).expect("tasks of one kind");
    Config { width: 16, layers: 1, heads: 2, context: 4, ..config }
}

fn options(profile: Profile, strategy: Strategy) -> Options {
    let base = match profile {
        Profile::Corrected => Options { keep_ratio: 0.2, ..Options::corrected(strategy) },
        Profile::Official => Options { keep_ratio: 0.3, ..Options::official(strategy) },
    };
    Options { steps: 6, batch: 4, lr: 1e-2, warmup: 0, ..base }
}

fn cartpoles() -> Vec<Task> {
    Suite::Demo.generate(Derived::Refreshed, 3, 6).expect("generated data")
}

/// Random vectors and actions; `actions` is a number of ids, or of dimensions if `continuous`.
fn vectors(name: &str, dim: usize, actions: Actions, lengths: &[u32]) -> Task {
    let rows = lengths.iter().sum::<u32>() as usize;
    let mut rng = Rng::new(5, Stream::Data, [dim as u32, rows as u32]);
    let observations = Observations::Vectors { dim, values: (0..rows * dim).map(|_| rng.normal() as f32).collect() };
    task(name, observations, actions, lengths)
}

fn task(name: &str, observations: Observations, actions: Actions, lengths: &[u32]) -> Task {
    let rows = lengths.iter().sum::<u32>() as usize;
    let rewards = (0..rows).map(|row| (row % 3) as f32).collect();
    let episodes = Episodes::new(observations, actions, rewards, lengths, Rewards::AsStored).expect("valid episodes");
    Task::new(name, 7, episodes).expect("a task")
}

fn ids(count: u32, lengths: &[u32]) -> Actions {
    Actions::Discrete { count, ids: (0..lengths.iter().sum::<u32>()).map(|row| row * 7 / 3 % count).collect() }
}

fn numbers(dim: usize, lengths: &[u32]) -> Actions {
    let rows = lengths.iter().sum::<u32>() as usize;
    Actions::Continuous { dim, values: (0..rows * dim).map(|i| (i as f32 * 0.7).sin()).collect() }
}

fn learner(config: Config, options: Options) -> Learner {
    Learner::new(Device::cpu(1), config, options).expect("sound settings")
}

/// Learns all tasks and plays them once each; checks what must hold whatever the strategy.
fn learns_all(what: &str, tasks: &[Task], config: Config, options: Options) -> Bank {
    let (masked, most) = (options.strategy.is_masked(), options.max_copies);
    let mut sequence = Sequence::new(learner(config, options), tasks, 1, Vec::new(), Vec::new());
    for number in 0..tasks.len() {
        match sequence.next(None, &mut Silent) {
            Ok(report) => assert!(report.is_some_and(|r| r.own_loss.is_finite()), "{what}"),
            Err(Error::NoRoom { .. }) if most.is_some() => break,
            Err(error) => panic!("{what}, task {number}: {error}"),
        }
    }
    let unchanged = sequence.unchanged().expect("programs run");
    assert!(!masked || unchanged.iter().all(|same| *same), "{what}: {unchanged:?}");
    let bank = sequence.learner.bank;
    bank.check().unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(most.is_none_or(|most| bank.copies.len() <= most), "{what}");
    bank
}

#[test]
fn every_strategy_learns_and_masks_never_forget() {
    for profile in PROFILES {
        let mut tasks = cartpoles();
        let config = small(&mut tasks, profile);
        for strategy in tsn::options::STRATEGIES {
            for max_copies in [None, Some(1)] {
                if max_copies.is_some() && !strategy.is_masked() {
                    continue;
                }
                let options = Options { max_copies, ..options(profile, strategy) };
                let what = format!("{profile:?} {} {max_copies:?}", strategy.name());
                let bank = learns_all(&what, &tasks, config, options);
                let copies = match strategy {
                    Strategy::Single => 3,
                    strategy if strategy.goes_on() || strategy == Strategy::PackNet => 1,
                    _ => continue,
                };
                assert_eq!(bank.copies.len(), copies, "{what}");
            }
        }
    }
}

#[test]
fn every_mode_routes() {
    let lengths = [6, 3, 9];
    for profile in PROFILES {
        let mut tasks: Vec<Task> =
            ["a", "b", "c"].iter().map(|name| vectors(name, 4, ids(2, &lengths), &lengths)).collect();
        let config = small(&mut tasks, profile);
        for mode in MODES {
            for strategy in [Strategy::TsnAffinity, Strategy::FirstMatch, Strategy::Random] {
                let options = Options { mode, steps: 2, ..options(profile, strategy) };
                learns_all(&format!("{profile:?} {mode:?} {}", strategy.name()), &tasks, config, options);
            }
        }
    }
}

#[test]
fn a_warm_start_inherits_the_share_it_is_told() {
    let mut tasks = cartpoles();
    tasks.truncate(2);
    let config = small(&mut tasks, Profile::Corrected);
    let learn = |inherit: f64, nudge: f32, limit: f64| {
        let thresholds = Thresholds { action: limit, ..Thresholds::SCALED };
        let warm_start = WarmStart::Nudge(nudge);
        let options = Options { inherit, warm_start, thresholds, ..options(Profile::Corrected, Strategy::FirstMatch) };
        let mut learner = learner(config, options);
        let first = learner.learn(&tasks[0], None, &mut Silent).expect("learns");
        let second = learner.learn(&tasks[1], None, &mut Silent).expect("learns");
        let now = learner.fingerprint(&learner.bank.clone(), 0, &tasks[0]).expect("runs");
        assert_eq!(now, first.fingerprint, "inherit {inherit}");
        (second, learner.bank)
    };
    // A limit that every source meets, and one that none does.
    let (all, none) = (1e9, 0.0);
    for (inherit, least, most) in [(0.5, 0.5, 0.6), (0.9, 0.1, 0.25), (1.0, 0.0, 0.0), (0.0, 1.0, 1.0)] {
        let (report, _) = learn(inherit, 0.1, all);
        let new = report.newly_claimed / report.density;
        assert!(report.warm_started && new >= least && new <= most, "inherit {inherit}: {new} is new");
        assert_eq!(learn(inherit, 0.1, all).0.fingerprint, report.fingerprint, "inherit {inherit}: another run");
    }
    let (fresh, _) = learn(0.9, 0.1, none);
    assert!(!fresh.warm_started && fresh.route.source.is_none());
    assert_eq!(fresh.fingerprint, learn(0.5, 0.1, none).0.fingerprint, "only a warm start inherits");
    // A head start that training cannot catch up with keeps the source's mask.
    let (_, bank) = learn(1.0, 1e3, all);
    assert_eq!(bank.tasks[1].masks, bank.tasks[0].masks);
}

#[test]
fn smallest_settings_and_data() {
    let lengths: [&[u32]; 4] = [&[1], &[1, 1, 1], &[2, 1], &[1, 2, 3, 9, 2, 1]];
    let mut tasks: Vec<Task> = (0..).zip(lengths).map(|(at, l)| vectors(&format!("t{at}"), 3, ids(2, l), l)).collect();
    for profile in PROFILES {
        let config = small(&mut tasks, profile);
        for strategy in tsn::options::STRATEGIES {
            for (steps, batch, fix_mask_after) in [(1, 1, 0.0), (1, 1, 1.0), (1, 1, 0.5), (4, 2, 0.0), (3, 1, 1.0)] {
                let options = Options { steps, batch, fix_mask_after, ..options(profile, strategy) };
                let what = format!("{profile:?} {} {steps} {batch} {fix_mask_after}", strategy.name());
                learns_all(&what, &tasks, config, options);
            }
        }
        for mode in MODES {
            let options = Options { mode, steps: 1, batch: 1, ..options(profile, Strategy::TsnAffinity) };
            learns_all(&format!("{profile:?} {mode:?}"), &tasks, config, options);
        }
    }
}

#[test]
fn continuous_tasks_of_different_widths() {
    let lengths = [5, 1, 8, 3, 4];
    let sizes = [(3, 2), (7, 4), (5, 1)];
    let mut tasks: Vec<Task> = sizes
        .iter()
        .map(|(dim, actions)| vectors(&format!("d{dim}"), *dim, numbers(*actions, &lengths), &lengths))
        .collect();
    for profile in PROFILES {
        let config = small(&mut tasks, profile);
        for strategy in tsn::options::STRATEGIES {
            let options = options(profile, strategy);
            let bank = learns_all(&format!("{profile:?} {}", strategy.name()), &tasks, config, options);
            for memory in bank.tasks.iter().flat_map(|t| t.extra.iter().filter(|named| named.name == "memory")) {
                assert_eq!(memory.shape[1], 7, "memories of all tasks pair the same quantities");
            }
        }
    }
}

#[test]
fn image_tasks() {
    let lengths = [3, 2];
    let frames = |seed: u32| {
        let mut rng = Rng::new(9, Stream::Data, [seed, 0]);
        Observations::Frames { height: 36, width: 36, bytes: (0..5 * 36 * 36).map(|_| rng.u32() as u8).collect() }
    };
    let mut tasks =
        [task("one", frames(1), ids(3, &lengths), &lengths), task("two", frames(2), ids(2, &lengths), &lengths)];
    for profile in PROFILES {
        let config = Config { context: 2, ..small(&mut tasks, profile) };
        for strategy in [Strategy::Tsn, Strategy::TsnAffinity, Strategy::TsnKl, Strategy::Naive] {
            let options = Options { steps: 2, batch: 1, ..options(profile, strategy) };
            learns_all(&format!("{profile:?} {}", strategy.name()), &tasks, config, options);
        }
    }
}

#[test]
fn data_without_a_chance_level() {
    let lengths = [4, 4];
    let mut tasks: Vec<Task> = ["a", "b", "c"]
        .iter()
        .zip([3, 4, 5])
        .map(|(name, dim)| vectors(name, dim, ids(1, &lengths), &lengths))
        .collect();
    let flat = || Actions::Continuous { dim: 2, values: vec![0.5; 16] };
    let mut constant: Vec<Task> = ["a", "b", "c"].iter().map(|name| vectors(name, 3, flat(), &lengths)).collect();
    for profile in PROFILES {
        for (kind, tasks) in [("one action", &mut tasks), ("constant actions", &mut constant)] {
            let config = small(tasks, profile);
            for mode in MODES {
                let options = Options { mode, ..options(profile, Strategy::TsnAffinity) };
                learns_all(&format!("{kind} {profile:?} {mode:?}"), tasks, config, options);
            }
        }
    }
}

#[test]
fn a_new_budget_fills_masks_whatever_the_selection() {
    let lengths = [9, 9, 9];
    let mut tasks: Vec<Task> =
        ["a", "b", "c"].iter().map(|name| vectors(name, 4, ids(3, &lengths), &lengths)).collect();
    let config = small(&mut tasks, Profile::Corrected);
    for selection in [Selection::Any, Selection::Split] {
        let base = options(Profile::Corrected, Strategy::TsnAffinity);
        let options = Options { selection, schedule: KeepSchedule::NewBudget, keep_ratio: 0.5, ..base };
        let bank = learns_all(&format!("{selection:?}"), &tasks, config, options);
        for record in &bank.tasks {
            for mask in &record.masks {
                assert_eq!(mask.count(), tsn::claim::count(0.5, mask.len()), "{selection:?}, {}", record.name);
            }
        }
    }
}

/// Stops after a number of steps, or refuses an event.
#[derive(Default)]
struct Script {
    stop: Option<u64>,
    refuse_learned: bool,
    refuse_scored: bool,
    kept: Option<Checkpoint>,
}

impl Observer for Script {
    fn event(&mut self, event: Event<'_>) -> Result<Flow, Error> {
        let refuse = || Err(Error::Broken { what: "refused by the test".into() });
        match event {
            Event::Step { step, .. } if Some(step) == self.stop => return Ok(Flow::Stop),
            Event::Checkpoint(checkpoint) => self.kept = Some(checkpoint.clone()),
            Event::Learned(_) if self.refuse_learned => return refuse(),
            Event::Scored { .. } if self.refuse_scored => return refuse(),
            _ => {}
        }
        Ok(Flow::Continue)
    }
}

#[test]
fn a_stopped_task_goes_on_with_the_same_bits() {
    for (profile, strategy) in [
        (Profile::Corrected, Strategy::TsnAffinity),
        (Profile::Official, Strategy::TsnAffinity),
        (Profile::Corrected, Strategy::Naive),
        (Profile::Corrected, Strategy::PackNet),
        (Profile::Corrected, Strategy::Cumulative),
        (Profile::Corrected, Strategy::Ewc),
        (Profile::Official, Strategy::Si),
        (Profile::Corrected, Strategy::MultiTask),
    ] {
        let mut tasks = cartpoles();
        let config = Config { dropout: 0.2, ..small(&mut tasks, profile) };
        let options = Options { warmup: 1, ..options(profile, strategy) };
        let mut whole = learner(config, options.clone());
        for (number, task) in tasks.iter().enumerate() {
            let company = strategy.company(&tasks, number);
            whole.learn_among(task, &company, None, &mut Silent).expect("learns");
        }
        for stop in 1..options.steps {
            let mut parts = learner(config, options.clone());
            for (number, task) in tasks.iter().enumerate() {
                let company = strategy.company(&tasks, number);
                let before = parts.bank.clone();
                let mut script = Script { stop: Some(stop), ..Script::default() };
                let stopped = parts.learn_among(task, &company, None, &mut script);
                assert!(matches!(stopped, Err(Error::Stopped { step, .. }) if step == stop));
                assert_eq!(parts.bank, before);
                // A process of its own: nothing but bank and checkpoint is left.
                parts = Learner::with(Device::cpu(2), config, options.clone(), before).expect("its own bank");
                parts.learn_among(task, &company, script.kept, &mut Silent).expect("goes on");
            }
            assert_eq!(parts.bank, whole.bank, "{profile:?} {} stopped after {stop}", strategy.name());
        }
    }
}

#[test]
fn errors_leave_everything_as_it_was() {
    let mut tasks = cartpoles();
    let config = small(&mut tasks, Profile::Corrected);
    let options = options(Profile::Corrected, Strategy::TsnAffinity);
    let mut learner = learner(config, options.clone());
    learner.learn(&tasks[0], None, &mut Silent).expect("learns");
    let before = learner.bank.clone();
    let mut keep = Script { stop: Some(2), ..Script::default() };
    assert!(matches!(learner.learn(&tasks[1], None, &mut keep), Err(Error::Stopped { .. })));
    let other = keep.kept.map(|checkpoint| Checkpoint { task: 0, ..checkpoint });
    assert!(matches!(learner.learn(&tasks[1], other, &mut Silent), Err(Error::Range { .. })));
    assert!(matches!(learner.learn(&tasks[0], None, &mut Silent), Err(Error::Known { .. })));
    let mut refusing = Script { refuse_learned: true, ..Script::default() };
    assert!(matches!(learner.learn(&tasks[1], None, &mut refusing), Err(Error::Broken { .. })));
    assert_eq!(learner.bank, before);
    // A step to infinity: the loss that shows it is the next step's, or after the last one the held-out loss.
    learner.options.lr = 1e300;
    for steps in [1, 6] {
        learner.options.steps = steps;
        assert!(matches!(learner.learn(&tasks[1], None, &mut Silent), Err(Error::NotFinite { .. })), "{steps}");
    }
    learner.options = options;
    tasks[1].valid = Some(vec![]);
    assert!(learner.learn(&tasks[1], None, &mut Silent).is_err());
    tasks[1].valid = Some(vec![1, 0]);
    assert!(matches!(learner.learn(&tasks[1], None, &mut Silent), Err(Error::Bank { .. })));
    assert_eq!(learner.bank, before);
    let mut bad = before.clone();
    bad.tasks[0].obs_mean.pop();
    bad.tasks[0].obs_std.pop();
    assert!(Learner::with(Device::cpu(1), config, learner.options.clone(), bad).is_err());

    tasks[1].valid = None;
    let mut sequence = Sequence::new(learner, &tasks, 1, Vec::new(), Vec::new());
    sequence.learner.bank = Bank::default();
    let mut refusing = Script { refuse_scored: true, ..Script::default() };
    assert!(sequence.next(None, &mut refusing).is_err());
    assert_eq!(sequence.learner.bank, Bank::default());
    assert!(sequence.next(None, &mut Silent).is_ok_and(|report| report.is_some()), "the task can be learned again");
}

#[test]
fn an_untrained_model_scores_the_same_before_and_after_learning() {
    let mut tasks = cartpoles();
    let config = small(&mut tasks, Profile::Corrected);
    let score = |strategy: Strategy, trained: bool| {
        let mut learner = learner(config, options(Profile::Corrected, strategy));
        if trained {
            learner.learn(&tasks[0], None, &mut Silent).expect("learns");
            let state = tsn::state::State::of_task(&learner.bank, &learner.bank.tasks[0]);
            learner.evaluator().play(&state, &tasks[0], &[1, 2]).expect("plays");
        }
        Sequence::untrained(&mut learner, &tasks, 2).expect("plays")
    };
    let dense = score(Strategy::Naive, false);
    for (strategy, trained) in [(Strategy::Naive, true), (Strategy::TsnAffinity, false), (Strategy::TsnAffinity, true)]
    {
        assert_eq!(score(strategy, trained), dense, "{} {trained}", strategy.name());
    }
}

#[test]
fn a_task_of_one_action_cannot_disagree_with_its_data() {
    let lengths = [6, 5, 4];
    let mut tasks = [vectors("three", 4, ids(3, &lengths), &lengths), vectors("one", 4, ids(1, &lengths), &lengths)];
    let config = small(&mut tasks, Profile::Corrected);
    let options = Options { steps: 20, ..options(Profile::Corrected, Strategy::Naive) };
    let mut learner = learner(config, options.clone());
    for task in &tasks {
        learner.learn(task, None, &mut Silent).expect("learns");
    }
    // Biases that make the other actions win wherever they may.
    let mut state = tsn::state::State::of_task(&learner.bank, &learner.bank.tasks[1]);
    state.put("dt.act_head.bias", &[0.0, 50.0, 50.0]);
    let sampler = tasks[1].held_out(&config, &options, learner.evaluator().batch()).expect("a sampler");
    let measured = learner.evaluator().held_out(&state, &sampler).expect("programs run");
    assert_eq!(measured.disagreement, 0.0);
}
