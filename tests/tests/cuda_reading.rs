//! Where reading waits, losses of several steps are read together: nothing of them is lost, and a stop is a step later.

use dt::config::Config;
use dt::env::cartpole::Derived;
use engine::Device;
use std::sync::Arc;
use tsn::fit::Checkpoint;
use tsn::suite::{Suite, config_for};
use tsn::{Error, Event, Flow, Learner, Observer, Options, Profile, Silent, Strategy, Task};
use tsn_emulator::{Emulator, Order};

/// What was told of every step; asks for a stop after one.
#[derive(Default)]
struct Log {
    told: Vec<(u64, f32, f32)>,
    stop: Option<u64>,
    kept: Option<Checkpoint>,
}

impl Observer for Log {
    fn event(&mut self, event: Event<'_>) -> Result<Flow, Error> {
        match event {
            Event::Step { step, loss, norm, .. } => {
                self.told.push((step, loss, norm));
                return Ok(if Some(step) == self.stop { Flow::Stop } else { Flow::Continue });
            }
            Event::Checkpoint(checkpoint) => self.kept = Some(checkpoint.clone()),
            _ => {}
        }
        Ok(Flow::Continue)
    }
}

fn emulator() -> Device {
    Device::cuda_over(Arc::new(Emulator::new(Order::Scattered)))
}

/// One task for a model of a few hundred weights; the mask is fixed after 18 of 20 steps.
fn task() -> (Vec<Task>, Config, Options) {
    let mut tasks = Suite::Demo.generate(Derived::Refreshed, 3, 6).expect("generated data");
    tasks.truncate(1);
    let config = config_for(&mut tasks, Profile::Corrected).expect("tasks of one kind");
    let config = Config { width: 16, layers: 1, heads: 2, context: 4, ..config };
    let base = Options::corrected(Strategy::TsnAffinity);
    (tasks, config, Options { steps: 20, batch: 4, lr: 1e-2, warmup: 0, fix_mask_after: 0.9, ..base })
}

fn learner(device: Device, config: Config, options: &Options) -> Learner {
    Learner::new(device, config, options.clone()).expect("sound settings")
}

#[test]
fn every_step_is_told_in_order_and_a_stopped_task_goes_on_with_the_same_bits() {
    let (tasks, config, options) = task();
    let [mut whole, mut cpu] = [Log::default(), Log::default()];
    let mut ours = learner(emulator(), config, &options);
    ours.learn(&tasks[0], None, &mut whole).expect("learns");
    learner(Device::cpu(1), config, &options).learn(&tasks[0], None, &mut cpu).expect("learns");
    assert_eq!(whole.told.len(), 20);
    for (found, expected) in whole.told.iter().zip(&cpu.told) {
        assert_eq!(found.0, expected.0);
        for (found, expected) in [(found.1, expected.1), (found.2, expected.2)] {
            assert!((found - expected).abs() <= 1e-3 * expected.abs(), "{found}, not {expected}");
        }
    }

    let mut parts = learner(emulator(), config, &options);
    let mut stopped = Log { stop: Some(3), ..Log::default() };
    let error = parts.learn(&tasks[0], None, &mut stopped);
    assert!(matches!(error, Err(Error::Stopped { step: 16, .. })), "{error:?}");
    assert_eq!(stopped.told, whole.told[..16]);
    parts.learn(&tasks[0], stopped.kept, &mut Silent).expect("goes on");
    assert!(parts.bank == ours.bank);
}

#[test]
fn a_loss_that_is_no_number_is_found_later_and_named_with_its_step() {
    let (tasks, config, options) = task();
    let options = Options { lr: 1e300, ..options };
    let [found, expected] = [emulator(), Device::cpu(1)].map(|device| {
        learner(device, config, &options).learn(&tasks[0], None, &mut Silent).map(|_| ()).expect_err("not finite")
    });
    let step = |error: &Error| match error {
        Error::NotFinite { step, .. } => *step,
        other => panic!("{other}"),
    };
    assert!(step(&expected) < 16, "{expected}");
    assert_eq!(step(&found), step(&expected), "{found}");
}
