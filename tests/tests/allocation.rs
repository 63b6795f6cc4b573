//! After `bind` a training step allocates nothing, on no thread.
//!
//! One test in one file: the counter is that of the whole process.

#![expect(unsafe_code, reason = "a counting allocator")]

use engine::Device;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
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
fn training_steps_allocate_nothing() {
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
            kept.push(training);
        }
    }
}
