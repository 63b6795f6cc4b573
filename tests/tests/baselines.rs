//! What dense baselines and pruning promise, on data made for it.

use dt::config::Config;
use dt::data::episodes::{Actions, Episodes, Observations, Rewards};
use dt::env::cartpole::Derived;
use engine::Device;
use kernels::philox::{Rng, Stream};
use tsn::options::Fisher;
use tsn::replay::buffer_bytes;
use tsn::suite::{Suite, config_for};
use tsn::{Bank, Baseline, Learner, Options, Profile, Sequence, Silent, Strategy, Task};

/// Two tasks that contradict each other: the same states, the action is the sign of the first entry or its opposite.
fn contradiction() -> (Vec<Task>, Config) {
    let lengths = [20u32; 20];
    let rows = lengths.iter().sum::<u32>() as usize;
    let task = |name: &str, flip: bool| {
        let mut rng = Rng::new(3, Stream::Data, [0, 0]);
        let values: Vec<f32> = (0..rows * 3).map(|_| rng.normal() as f32).collect();
        let ids = values.chunks(3).map(|x| u32::from((x[0] > 0.0) != flip)).collect();
        let (observations, actions) = (Observations::Vectors { dim: 3, values }, Actions::Discrete { count: 2, ids });
        let rewards = vec![1.0; rows];
        let episodes = Episodes::new(observations, actions, rewards, &lengths, Rewards::AsStored).expect("valid");
        Task::new(name, 7, episodes).expect("a task")
    };
    let mut tasks = vec![task("plain", false), task("flipped", true)];
    let config = config_for(&mut tasks, Profile::Corrected).expect("tasks of one kind");
    (tasks, Config { width: 32, layers: 1, heads: 2, context: 4, dropout: 0.0, ..config })
}

fn options(strategy: Strategy) -> Options {
    Options { steps: 60, batch: 16, lr: 5e-3, warmup: 0, keep_ratio: 0.3, ..Options::corrected(strategy) }
}

fn learn(tasks: &[Task], config: Config, options: Options) -> Bank {
    let learner = Learner::new(Device::cpu(1), config, options).expect("sound settings");
    let mut sequence = Sequence::new(learner, tasks, 1, Vec::new(), Vec::new());
    while sequence.next(None, &mut Silent).expect("learns").is_some() {}
    sequence.learner.bank
}

/// Held-out loss of every task under the final model.
fn losses(tasks: &[Task], config: Config, options: &Options, bank: &Bank) -> Vec<f64> {
    let mut learner = Learner::with(Device::cpu(1), config, options.clone(), bank.clone()).expect("its own bank");
    let measure = |(task, record)| {
        let state = tsn::state::State::of_task(bank, record);
        let evaluator = learner.evaluator();
        let sampler = Task::held_out(task, &config, options, evaluator.batch()).expect("held-out episodes");
        evaluator.held_out(&state, &sampler).expect("the program runs").loss
    };
    tasks.iter().zip(&bank.tasks).map(measure).collect()
}

fn first_loss(strategy: Strategy, change: impl Fn(&mut Options)) -> Vec<f64> {
    let (tasks, config) = contradiction();
    let mut options = options(strategy);
    change(&mut options);
    let bank = learn(&tasks, config, options.clone());
    losses(&tasks, config, &options, &bank)
}

#[test]
fn replay_and_penalties_keep_what_naive_training_forgets() {
    let naive = first_loss(Strategy::Naive, |_| {});
    assert!(naive[0] > 1.0 && naive[1] < 0.4, "the second task overwrites the first: {naive:?}");
    for strategy in [Strategy::Cumulative, Strategy::MultiTask] {
        let joint = first_loss(strategy, |_| {});
        // The tasks contradict each other on equal states: the best of both is chance.
        assert!(joint.iter().all(|loss| (0.6..0.95).contains(loss)), "{}: {joint:?}", strategy.name());
    }
    for (strategy, strength) in [(Strategy::Ewc, 1e9), (Strategy::Si, 1e6)] {
        let held = first_loss(strategy, |o| o.baseline.strength = strength);
        assert!(held[0] < 0.6 * naive[0], "{} forgot: {held:?} against {naive:?}", strategy.name());
        let free = first_loss(strategy, |o| o.baseline.strength = 0.0);
        assert_eq!(free[0].to_bits(), naive[0].to_bits(), "{} without strength is naive", strategy.name());
    }
}

#[test]
fn importance_is_carried_once_and_never_negative() {
    let (tasks, config) = contradiction();
    for strategy in [Strategy::Ewc, Strategy::Si] {
        let mut options = options(strategy);
        options.baseline = Baseline { cap: Some(1e-4), ..options.baseline };
        let bank = learn(&tasks, config, options);
        let importance =
            |task: usize| bank.tasks[task].extra.iter().filter(|named| named.name.ends_with(".importance"));
        assert_eq!(importance(0).count(), 0, "handed over to the second task");
        let values: Vec<f32> = importance(1).flat_map(|named| named.values.clone()).collect();
        assert!(values.iter().all(|v| *v >= 0.0) && values.iter().any(|v| *v > 0.0), "{}", strategy.name());
        let largest = values.iter().fold(0.0f32, |most, v| most.max(*v));
        assert!(strategy == Strategy::Ewc || largest == 1e-4, "the cap holds: {largest}");
    }
}

/// The square of a mean is at most the mean of squares.
#[test]
fn the_batch_mean_underestimates_the_fisher_information() {
    let (tasks, config) = contradiction();
    let total = |fisher: Fisher| {
        let mut options = options(Strategy::Ewc);
        options.baseline = Baseline { fisher, fisher_batches: [10, 16], ..options.baseline };
        let bank = learn(&tasks[..1], config, options);
        let importance = bank.tasks[0].extra.iter().filter(|named| named.name.ends_with(".importance"));
        importance.flat_map(|named| &named.values).map(|v| f64::from(*v)).sum::<f64>()
    };
    let (mean, window) = (total(Fisher::BatchMean), total(Fisher::PerWindow));
    assert!(mean > 0.0 && mean < 0.5 * window, "{mean} against {window}");
}

#[test]
fn packnet_prunes_to_the_ratio_and_keeps_earlier_tasks() {
    let (tasks, config) = contradiction();
    let options = options(Strategy::PackNet);
    let bank = learn(&tasks, config, options.clone());
    for (at, (weight, occupied)) in bank.copies[0].masked().enumerate() {
        let [first, second] = [0, 1].map(|task: usize| &bank.tasks[task].masks[at]);
        assert_eq!(first.count(), tsn::claim::count(0.3, first.len()), "{}", weight.name);
        assert_eq!(first.and_not(second).count(), 0, "the second task sees all of the first");
        assert_eq!(*occupied, *second);
        let mut outside = weight.values.iter().zip(second.flags()).filter(|(_, set)| !set);
        assert!(outside.all(|(value, _)| *value == 0.0), "{}: pruned weights are zero", weight.name);
    }
    let held_out = losses(&tasks, config, &options, &bank);
    assert!(held_out.iter().all(|loss| *loss < 0.5), "both are learned: {held_out:?}");
}

#[test]
fn a_buffer_holds_no_more_than_it_may() {
    let tasks = Suite::Demo.generate(Derived::Refreshed, 3, 30).expect("generated data");
    let options = |buffer: usize, strategy: Strategy| {
        let base = Options::corrected(strategy);
        Options { baseline: Baseline { buffer, ..base.baseline }, ..base }
    };
    let bytes = |buffer: usize| buffer_bytes(&tasks, &options(buffer, Strategy::Cumulative));
    let rows = |task: &Task| task.split.train.iter().map(|e| task.episodes.rows_of(*e).len()).sum::<usize>();
    assert_eq!(bytes(1000), 28 * tasks.iter().map(rows).sum::<usize>() as u64, "all of them, four numbers each");
    let longest = 28 * tasks.iter().map(|t| t.episodes.longest() as u64).max().expect("three tasks");
    assert!((1..=10 * longest).contains(&bytes(10)));
    assert_eq!(buffer_bytes(&tasks, &options(10, Strategy::Naive)), 0);
}
