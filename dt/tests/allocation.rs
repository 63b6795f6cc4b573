//! Filling a batch allocates nothing.

#![expect(unsafe_code, reason = "a counting allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use tsn_dt::data::batch::{Choice, Sampler, Sampling};
use tsn_dt::data::disk::{DiskRows, Keep};
use tsn_dt::data::episodes::{Actions, Episodes, Observations, Rewards};
use tsn_dt::env::ObsShape;
use tsn_dt::env::cartpole::CartPoleParams;
use tsn_dt::env::expert::{USUAL_MIX, generate};

thread_local! {
    /// Allocations of this thread, so that tests beside this one do not count.
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is passed on to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
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

fn allocations(work: impl FnOnce()) -> usize {
    let before = COUNT.with(Cell::get);
    work();
    COUNT.with(Cell::get) - before
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![1u8; 100]))), 1);
}

#[test]
fn filling_vector_batches() {
    let made = generate(&CartPoleParams::default(), 1, 10, &USUAL_MIX).expect("valid");
    let chosen: Vec<usize> = (0..10).collect();
    for choice in [Choice::Windows, Choice::Episodes] {
        let how = Sampling { choice, moments: made.episodes.moments(), ..Sampling::new(16, 20) };
        let sampler = Sampler::new(&made.episodes, &chosen, how).expect("valid");
        let mut batch = sampler.batch();
        let count = allocations(|| (0..50).for_each(|step| sampler.fill(&mut batch, step)));
        assert_eq!(count, 0);
        let count = allocations(|| (0..sampler.tile_batches()).for_each(|i| sampler.fill_tile(&mut batch, i)));
        assert_eq!(count, 0);
    }
}

#[test]
fn filling_frame_batches() {
    let observations = Observations::Frames { height: 8, width: 8, bytes: vec![7; 64 * 30] };
    let actions = Actions::Continuous { dim: 2, values: vec![0.5; 60] };
    let data = Episodes::new(observations, actions, vec![1.0; 30], &[10, 20], Rewards::Sign).expect("valid");
    let sampler = Sampler::new(&data, &[0, 1], Sampling { stack: 4, ..Sampling::new(8, 12) }).expect("valid");
    let mut batch = sampler.batch();
    assert_eq!(allocations(|| (0..50).for_each(|step| sampler.fill(&mut batch, step))), 0);
}

#[test]
fn filling_from_disk() {
    let path = std::env::temp_dir().join(format!("tsn-dt-allocation-{}", std::process::id()));
    std::fs::write(&path, vec![0; 4 * 30 * 64]).expect("a file");
    for shape in [ObsShape::Vector { dim: 64 }, ObsShape::Frame { height: 8, width: 8 }] {
        let rows = DiskRows::open(&path, 0, 30, shape, Keep::Always).expect("rows");
        let actions = Actions::Continuous { dim: 2, values: vec![0.5; 60] };
        let observations = Observations::Disk(Arc::new(rows));
        let data = Episodes::new(observations, actions, vec![1.0; 30], &[10, 20], Rewards::Sign).expect("valid");
        let stack = if matches!(shape, ObsShape::Frame { .. }) { 4 } else { 1 };
        let sampler = Sampler::new(&data, &[0, 1], Sampling { stack, ..Sampling::new(8, 12) }).expect("valid");
        let mut batch = sampler.batch();
        assert_eq!(allocations(|| (0..50).for_each(|step| sampler.fill(&mut batch, step))), 0);
    }
    std::fs::remove_file(&path).expect("removable");
}
