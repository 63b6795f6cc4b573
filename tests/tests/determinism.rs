//! One seed, one set of bits: from run to run and for any number of workers.

use engine::Device;
use tsn_tests::training::{Training, models};

const STEPS: u32 = 30;

/// Digest of all state, and the last loss, after training on a number of workers.
fn trained(config: &dt::config::Config, workers: usize) -> (u64, u32) {
    let mut training = Training::new(config, &Device::cpu(workers));
    let before = training.digest();
    training.run(0, STEPS);
    assert_ne!(training.digest(), before, "training changes the state");
    assert!(training.loss().is_finite(), "loss {}", training.loss());
    (training.digest(), training.loss().to_bits())
}

#[test]
fn training_gives_the_same_bits_for_any_number_of_workers() {
    for (name, config) in models() {
        let one = trained(&config, 1);
        assert_eq!(trained(&config, 1), one, "{name}: two runs on one worker");
        for workers in [2, 4, 8] {
            assert_eq!(trained(&config, workers), one, "{name}: {workers} workers and one");
        }
    }
}

#[test]
fn the_digest_sees_every_step() {
    let [(_, config), ..] = models();
    let mut training = Training::new(&config, &Device::cpu(1));
    let mut seen = std::collections::BTreeSet::from([training.digest()]);
    for step in 0..5 {
        training.run(step, step + 1);
        assert!(seen.insert(training.digest()), "step {step} changed nothing");
    }
}

#[test]
fn a_run_cut_in_two_gives_the_bits_of_a_whole_one() {
    let [(_, config), ..] = models();
    let mut whole = Training::new(&config, &Device::cpu(2));
    whole.run(0, 8);
    let mut parts = Training::new(&config, &Device::cpu(2));
    parts.run(0, 3);
    parts.run(3, 8);
    assert_eq!(parts.digest(), whole.digest());
}
