//! After `bind` a training step and a decision allocate nothing, on no thread.
//!
//! One test in one file: the counter is that of the whole process.

#![expect(unsafe_code, reason = "a counting allocator")]

use dt::config::{Config, Observation};
use dt::decision::{feed_newest, plan_act};
use dt::history::{History, Preprocess};
use dt::train::output;
use engine::{Device, Program};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use tsn::fit::frozen;
use tsn::state::State;
use tsn_tests::training::{Training, models};

static BYTES: AtomicUsize = AtomicUsize::new(0);

/// Counts the bytes that any thread asks for.
struct Counting;

// SAFETY: every call is passed on to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`, and all blocks come from `System`.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn bytes(work: &mut dyn FnMut()) -> usize {
    let before = BYTES.load(Ordering::SeqCst);
    work();
    BYTES.load(Ordering::SeqCst) - before
}

#[test]
fn training_steps_and_decisions_allocate_nothing() {
    let counted = bytes(&mut || {
        let other = std::thread::spawn(|| drop(std::hint::black_box(vec![1u8; 12_345])));
        other.join().expect("the thread ends");
    });
    assert!(counted >= 12_345, "the counter sees other threads");

    // Kept to the end: threads of a dropped pool allocate while they end, whenever that is.
    let mut kept = Vec::with_capacity(16);
    for (name, config) in models() {
        for workers in [1, 2] {
            let mut training = Training::new(&config, &Device::cpu(workers));
            // The first steps are counted too: everything is allocated by `bind`.
            let counted = training.measured(0, 50, bytes);
            assert_eq!(counted, 0, "{name}, {workers} workers");
            assert!(training.loss().is_finite(), "{name}: loss {}", training.loss());
            let mut deciding = Deciding::new(&config, workers);
            // More decisions than a window has steps.
            let counted = bytes(&mut || (0..2 * config.context).for_each(|step| deciding.decide(step)));
            assert_eq!(counted, 0, "decisions of {name}, {workers} workers");
            assert!(deciding.output.iter().all(|v| v.is_finite()), "{name}: {:?}", deciding.output);
            kept.push((training, deciding));
        }
    }
}

/// Two episodes of a fresh model.
struct Deciding {
    program: Program,
    history: History,
    how: Preprocess,
    obs: Vec<f32>,
    output: Vec<f32>,
}

impl Deciding {
    fn new(config: &Config, workers: usize) -> Deciding {
        let plan = plan_act(config, 2, |spec| frozen(spec, false)).expect("a valid model");
        let mut program = plan.bind(&Device::cpu(workers)).expect("memory");
        State::fresh(config, 1, 0).load(&mut program).expect("sizes agree");
        let pixels = match config.observation {
            Observation::Vector(n) => n,
            Observation::Image { height, width, .. } => height * width,
        };
        Deciding {
            program,
            history: History::new(config, 2),
            how: Preprocess { moments: None, layout: None, rtg_scale: 1.0, max_ep_len: config.max_ep_len },
            obs: vec![1.0; pixels as usize],
            output: vec![f32::NAN; 2 * config.action.outputs() as usize],
        }
    }

    fn decide(&mut self, step: u32) {
        for slot in 0..2 {
            self.history.observe(slot, &self.how, &self.obs, 1.0, step);
        }
        feed_newest(&mut self.program, &self.history).expect("two slots");
        self.program.run().expect("a cpu runs");
        self.program.read(output::OUTPUT, &mut self.output).expect("two rows");
        self.history.act_discrete(0, 0);
        self.history.act_continuous(1, &[0.5]);
    }
}
