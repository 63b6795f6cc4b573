//! Learning with quantised weights: what is replaced, what is left alone, and that tuning pays.

use dt::config::Config;
use dt::env::cartpole::Derived;
use engine::Device;
use kernels::BitMask;
use std::collections::BTreeSet;
use tsn::memory::{Masks, Memory, TimeEmbedding};
use tsn::state::State;
use tsn::suite::{Suite, config_for};
use tsn::{Bank, Learner, Options, Profile, Quantise, Silent, Strategy, Task, TensorFile};

/// Two CartPole tasks with opposite actions and a model small enough for a debug build.
fn setting() -> (Vec<Task>, Config, Options) {
    let mut tasks = Suite::CartPoleConflict.generate(Derived::Refreshed, 3, 10).unwrap();
    let fitting = config_for(&mut tasks, Profile::Corrected).unwrap();
    let config = Config { width: 32, layers: 1, heads: 2, context: 6, ..fitting };
    let mut options = Options::corrected(Strategy::Tsn);
    (options.steps, options.batch, options.warmup) = (40, 16, 5);
    (options.keep_ratio, options.lr, options.seed) = (0.3, 5e-3, 5);
    (tasks, config, options)
}

fn quantise(tune_steps: u64) -> Option<Quantise> {
    Some(Quantise { tune_steps, ..Quantise::default() })
}

fn learner(workers: usize, config: Config, options: &Options, quantise: Option<Quantise>) -> Learner {
    Learner::new(Device::cpu(workers), config, Options { quantise, ..options.clone() }).unwrap()
}

/// Mean loss over the batches that tuning draws.
fn training_loss(learner: &mut Learner, task: &Task) -> f64 {
    let state = State::of_task(&learner.bank, &learner.bank.tasks[0]);
    let (config, options) = (learner.config, learner.options.clone());
    let sampler = task.sampler(&config, &options, options.batch, 0).unwrap();
    let first = options.steps as u32;
    let fill = |batch: &mut _, index: usize| sampler.fill(batch, first + index as u32);
    learner.evaluator().measure(&state, &sampler, 60, fill).unwrap().loss
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// Values of the entries whose bit is `set`.
fn part(values: &[f32], mask: &BitMask, set: bool) -> Vec<u32> {
    values.iter().zip(mask.flags()).filter(|(_, flag)| *flag == set).map(|(value, _)| value.to_bits()).collect()
}

#[test]
fn claimed_weights_take_few_values_and_tuning_lowers_the_loss() {
    let (tasks, config, options) = setting();
    let [mut plain, mut rough, mut tuned] =
        [None, quantise(0), quantise(60)].map(|quantise| learner(1, config, &options, quantise));
    for learner in [&mut plain, &mut rough, &mut tuned] {
        learner.learn(&tasks[0], None, &mut Silent).unwrap();
    }
    assert!(plain.bank.tasks[0].codebooks.is_empty());

    let books = &tuned.bank.tasks[0].codebooks;
    let mut quantised = 0;
    for (at, mask) in tuned.bank.tasks[0].masks.iter().enumerate() {
        let [(before, _), (after, _)] =
            [&plain, &tuned].map(|learner| learner.bank.copies[0].masked().nth(at).unwrap());
        assert_eq!(mask, &plain.bank.tasks[0].masks[at], "{}", before.name);
        assert_eq!(part(&before.values, mask, false), part(&after.values, mask, false), "{}", before.name);
        let distinct: BTreeSet<u32> = part(&after.values, mask, true).into_iter().collect();
        match books.iter().find(|book| book.tensor == after.name) {
            Some(book) => {
                quantised += 1;
                assert!(after.name.ends_with(".weight") && (2..=16).contains(&book.centres.len()), "{}", after.name);
                assert!(distinct.is_subset(&bits(&book.centres).into_iter().collect()), "{}", after.name);
            }
            None => assert_eq!(bits(&before.values), bits(&after.values), "{}", before.name),
        }
    }
    let weights = tuned.bank.copies[0].masked().filter(|(weight, _)| weight.name.ends_with(".weight"));
    assert_eq!(quantised, weights.count());
    assert_eq!(plain.bank.tasks[0].norms, tuned.bank.tasks[0].norms);

    let [exact, coarse, fine] = [&mut plain, &mut rough, &mut tuned].map(|learner| training_loss(learner, &tasks[0]));
    assert!(fine < coarse, "loss {exact} plain, {coarse} quantised, {fine} tuned");
}

#[test]
fn quantised_tasks_survive_later_tasks_and_the_file() {
    let (tasks, config, options) = setting();
    let mut one = learner(1, config, &options, quantise(8));
    let first = one.learn(&tasks[0], None, &mut Silent).unwrap();
    let before = one.bank.clone();
    one.learn(&tasks[1], None, &mut Silent).unwrap();

    assert_eq!(before.tasks[0], one.bank.tasks[0]);
    for ((old, occupied), (new, _)) in before.copies[0].masked().zip(one.bank.copies[0].masked()) {
        assert_eq!(part(&old.values, occupied, true), part(&new.values, occupied, true), "{}", old.name);
    }
    let bank = one.bank.clone();
    assert_eq!(one.fingerprint(&bank, 0, &tasks[0]).unwrap(), first.fingerprint);
    assert_eq!(bank.tasks[1].copy, 0, "the second task must share the copy for this test to say anything");
    assert!(!bank.tasks[1].codebooks.is_empty());

    // Bank::check holds every code against its weight, on the way out and on the way in.
    let bytes = bank.to_writer().unwrap().encode().unwrap();
    let back = Bank::from_file(TensorFile::parse(bytes).unwrap()).unwrap();
    assert_eq!((&back.tasks, &back.copies), (&bank.tasks, &bank.copies));

    // 4 bits for each coded weight (a tensor's codes fill whole bytes), 4 bytes for each centre.
    let memory = Memory::of(&bank, |_| false);
    let books = || bank.tasks.iter().flat_map(|task| &task.codebooks);
    let codes: u64 = books().map(|book| book.codes.len() as u64).sum();
    let expected: u64 = books().map(|b| (b.codes.len() as u64).div_ceil(2) + 4 * b.centres.len() as u64).sum();
    assert_eq!((memory.codebooks, memory.coded_weights), (expected, 4 * codes));
    let saved = memory.persistent(Masks::Packed, TimeEmbedding::Included)
        - memory.persistent_coded(Masks::Packed, TimeEmbedding::Included);
    assert_eq!(saved, 4 * codes);

    let mut two = learner(2, config, &options, quantise(8));
    for task in &tasks {
        two.learn(task, None, &mut Silent).unwrap();
    }
    assert_eq!(two.bank, bank, "bits depend on the number of workers");
}

#[test]
fn a_tuning_rate_must_be_a_number() {
    let (_, _, mut options) = setting();
    options.quantise = Some(Quantise { tune_rate: f64::NAN, ..Quantise::default() });
    assert!(options.validate().unwrap_err().to_string().contains("tune_rate"));
}
