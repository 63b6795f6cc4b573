//! Workers: the only place that knows about threads, and the only user of rayon.
//!
//! A [`Pool`] borrows threads of a rayon pool for as long as it lives. They wait for jobs by spinning shortly and then
//! sleeping, so that a job costs no allocation and a wake-up between the calls of a step costs well under a
//! microsecond. A helper that wakes late finds the job closed and is not waited for. Sums are formed over blocks whose
//! size does not depend on the number of workers, so results do not either.
#![expect(unsafe_code, reason = "lends disjoint parts of a workspace, and a borrowed closure, to other threads")]

mod split;

use split::Parts;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, TryLockError};

pub(crate) use split::{HeadMut, SplitHeads, SplitTiles, TileMut};
pub use split::{Split, SplitBits, SplitMat};

/// A team of workers. Worker 0 is the calling thread.
pub struct Pool {
    workers: usize,
    team: Arc<Team>,
    busy: Mutex<()>,
    #[cfg(feature = "parallel")]
    _threads: Option<Arc<rayon::ThreadPool>>,
}

type Job<'a> = dyn Fn(usize) + Sync + 'a;

/// State word: active helpers in bits 0..16, OPEN in bit 16, job number above.
const OPEN: u64 = 1 << 16;
const ACTIVE: u64 = OPEN - 1;
const SPINS: u32 = 2000;

/// The next task of a worker's share, alone on its cache lines.
#[repr(align(128))]
struct Share {
    next: AtomicUsize,
}

struct Team {
    state: AtomicU64,
    /// One for each worker.
    shares: Box<[Share]>,
    job: UnsafeCell<Option<*const Job<'static>>>,
    sleepers: AtomicUsize,
    started: AtomicUsize,
    lock: Mutex<()>,
    wake: Condvar,
    stop: AtomicBool,
    panicked: AtomicBool,
    spins: u32,
}

// SAFETY: `job` is written only by the thread that holds `Pool::busy` while no helper is active, and read only by
// helpers that became active while OPEN was set (see `serve`), which the writer waits for before it returns.
unsafe impl Sync for Team {}
// SAFETY: the pointer in `job` is to a `Sync` closure and is only followed while its owner waits in `Pool::run`.
unsafe impl Send for Team {}

impl Pool {
    /// One worker, the calling thread.
    pub fn serial() -> Pool {
        Pool {
            workers: 1,
            team: Arc::new(Team::new(1)),
            busy: Mutex::new(()),
            #[cfg(feature = "parallel")]
            _threads: None,
        }
    }

    /// `workers` workers on a pool of their own; 0 means one per core. Without the feature `parallel`, one worker.
    pub fn new(workers: usize) -> Pool {
        #[cfg(feature = "parallel")]
        {
            let workers = match workers {
                0 => std::thread::available_parallelism().map_or(1, usize::from),
                n => n.min(ACTIVE as usize),
            };
            if workers == 1 {
                return Pool::serial();
            }
            let builder = rayon::ThreadPoolBuilder::new().thread_name(|i| format!("tsn-worker-{}", i + 1));
            // A system that refuses threads still computes, on one.
            let Ok(threads) = builder.num_threads(workers - 1).build() else { return Pool::serial() };
            let pool = Pool::on(Arc::new(threads));
            // A thread allocates while it starts; nothing may be allocated later. The pool is its own, so every helper
            // does start.
            while pool.team.started.load(Ordering::SeqCst) + 1 < pool.workers {
                std::thread::yield_now();
            }
            pool
        }
        #[cfg(not(feature = "parallel"))]
        {
            let _ = workers;
            Pool::serial()
        }
    }

    /// The calling thread and all threads of a given rayon pool, which are lent until this value is dropped.
    #[cfg(feature = "parallel")]
    pub fn on(threads: Arc<rayon::ThreadPool>) -> Pool {
        let workers = threads.current_num_threads() + 1;
        let team = Arc::new(Team::new(workers));
        for helper in 1..workers {
            let team = Arc::clone(&team);
            threads.spawn(move || team.serve(helper));
        }
        Pool { workers, team, busy: Mutex::new(()), _threads: Some(threads) }
    }

    /// Number of workers, the calling thread included.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Runs `f(task, scratch)` once for every task in `0..count`. `scratch` is divided evenly among the workers.
    ///
    /// A worker begins with its share of neighbouring tasks, the same one in every job, so that what it wrote in one is in
    /// its own cache in the next; when they are done it takes those that others have not begun.
    ///
    /// Called from inside a task, or while another thread uses the pool, it runs on the calling thread alone.
    pub fn tasks(&self, count: usize, scratch: &mut [f32], f: impl Fn(usize, &mut [f32]) + Sync) {
        let part = scratch.len() / self.workers;
        let one = |task: usize, own: &mut [f32]| f(task, own);
        // Known to the compiler without threads: this function is copied for every kernel.
        if cfg!(not(feature = "parallel")) || self.workers == 1 || count <= 1 {
            return (0..count).for_each(|task| one(task, &mut scratch[..part]));
        }
        let _busy = match self.busy.try_lock() {
            Ok(guard) => guard,
            // A task that panicked left nothing half done: the lock guards no data.
            Err(TryLockError::Poisoned(guard)) => guard.into_inner(),
            Err(TryLockError::WouldBlock) => return (0..count).for_each(|task| one(task, &mut scratch[..part])),
        };
        let parts = Parts::new(scratch);
        let shares = &*self.team.shares;
        let begin = |worker: usize| worker * count / self.workers;
        // Nobody else reads or counts here: the last `run` closed its job and waited for every helper in it, one that wakes
        // late cannot join a closed job, and joining the one that `run` opens below makes these stores visible.
        for (worker, share) in shares.iter().enumerate() {
            share.next.store(begin(worker), Ordering::Relaxed);
        }
        self.run(&|worker| {
            // SAFETY: worker numbers are below `workers` and each is held by one thread, so the ranges are in bounds
            // and disjoint.
            let own = unsafe { parts.range(worker * part, part) };
            for whose in (worker..self.workers).chain(0..worker) {
                loop {
                    let task = shares[whose].next.fetch_add(1, Ordering::Relaxed);
                    if task >= begin(whose + 1) {
                        break;
                    }
                    one(task, own);
                }
            }
        });
    }

    /// Cuts outputs into blocks of `block` rows and runs `f(first_row, outputs_of_the_block, scratch)` for each.
    ///
    /// `block` must not depend on the number of workers if sums are formed per block.
    pub fn rows<S: Split>(
        &self,
        outputs: S,
        block: usize,
        scratch: &mut [f32],
        f: impl Fn(usize, S::Part, &mut [f32]) + Sync,
    ) {
        let rows = outputs.rows();
        let block = block.max(1);
        self.tasks(rows.div_ceil(block), scratch, |task, own| {
            let first = task * block;
            // SAFETY: every task number is handed out once, so the row ranges are disjoint.
            let part = unsafe { outputs.part(first, block.min(rows - first)) };
            f(first, part, own);
        });
    }

    fn run(&self, job: &Job<'_>) {
        let team = &*self.team;
        let job: *const Job<'_> = job;
        // SAFETY: only the lifetime changes; the pointer is followed only by helpers that this function waits for.
        let job: *const Job<'static> = unsafe { std::mem::transmute(job) };
        // SAFETY: `busy` is held and no helper is active (the last `run` waited), so nobody reads the cell.
        unsafe { *team.job.get() = Some(job) };
        let number = team.state.load(Ordering::Relaxed) / (2 * OPEN) + 1;
        team.state.store((number * 2 * OPEN) | OPEN, Ordering::SeqCst);
        if team.sleepers.load(Ordering::SeqCst) > 0 {
            drop(team.lock.lock());
            team.wake.notify_all();
        }
        // SAFETY: the closure outlives this call.
        let own = catch_unwind(AssertUnwindSafe(|| unsafe { (*job)(0) }));
        team.state.fetch_and(!OPEN, Ordering::SeqCst);
        let mut waited = 0u32;
        while team.state.load(Ordering::Acquire) & ACTIVE != 0 {
            waited += 1;
            if waited < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
        // Taken back before this thread's own panic goes on, or the next job would be blamed for it.
        let helper_panicked = team.panicked.swap(false, Ordering::Relaxed);
        if let Err(panic) = own {
            resume_unwind(panic);
        }
        assert!(!helper_panicked, "a worker panicked; its message is above");
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.team.stop.store(true, Ordering::SeqCst);
        drop(self.team.lock.lock());
        self.team.wake.notify_all();
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({} workers)", self.workers)
    }
}

impl Team {
    fn new(workers: usize) -> Team {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Team {
            state: AtomicU64::new(0),
            shares: (0..workers).map(|_| Share { next: AtomicUsize::new(0) }).collect(),
            job: UnsafeCell::new(None),
            sleepers: AtomicUsize::new(0),
            started: AtomicUsize::new(0),
            lock: Mutex::new(()),
            wake: Condvar::new(),
            stop: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            // Spinning on a core that another worker needs only delays it.
            spins: if workers > cores { 0 } else { SPINS },
        }
    }

    #[cfg_attr(not(feature = "parallel"), expect(dead_code, reason = "helpers exist only with threads"))]
    fn serve(&self, worker: usize) {
        self.started.fetch_add(1, Ordering::SeqCst);
        let mut seen = 0;
        while let Some(number) = self.join(seen) {
            seen = number;
            // SAFETY: `join` made this helper active while OPEN was set, so the owner of the closure is inside `run`
            // and waits there until the helper is no longer active.
            let done = catch_unwind(AssertUnwindSafe(|| unsafe {
                if let Some(job) = *self.job.get() {
                    (*job)(worker);
                }
            }));
            if done.is_err() {
                self.panicked.store(true, Ordering::Relaxed);
            }
            self.state.fetch_sub(1, Ordering::Release);
        }
    }

    /// Waits for an open job other than `seen` and becomes active in it; `None` at the end.
    fn join(&self, seen: u64) -> Option<u64> {
        let mut waited = 0;
        loop {
            let state = self.state.load(Ordering::SeqCst);
            let number = state / (2 * OPEN);
            if self.stop.load(Ordering::SeqCst) {
                return None;
            }
            if state & OPEN != 0 && number != seen {
                if self.state.compare_exchange(state, state + 1, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
                    return Some(number);
                }
            } else if waited < self.spins {
                waited += 1;
                std::hint::spin_loop();
            } else {
                self.sleep(seen);
                waited = 0;
            }
        }
    }

    fn sleep(&self, seen: u64) {
        let Ok(mut guard) = self.lock.lock() else { return };
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        // `run` opens the job before it looks at `sleepers`, so either it sees this sleeper or this sees the job.
        loop {
            let state = self.state.load(Ordering::SeqCst);
            if self.stop.load(Ordering::SeqCst) || (state & OPEN != 0 && state / (2 * OPEN) != seen) {
                break;
            }
            guard = match self.wake.wait(guard) {
                Ok(guard) => guard,
                Err(_) => break,
            };
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operand::MatMut;

    #[test]
    fn every_row_once_for_any_number_of_workers() {
        for workers in [1, 2, 4, 8] {
            let pool = Pool::new(workers);
            let mut scratch = vec![0.0; 3 * pool.workers()];
            for round in 0..if cfg!(miri) { 3 } else { 200 } {
                let mut data = vec![0u32; 37 * 5];
                pool.rows(MatMut::dense(&mut data, 37, 5).split(), 4, &mut scratch, |first, mut part, own| {
                    own[0] += 1.0;
                    for r in 0..part.rows {
                        part.row(r).fill((first + r + round) as u32 + 1);
                    }
                });
                assert!(data.iter().enumerate().all(|(i, v)| *v as usize == i / 5 + round + 1));
            }
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_survives() {
        let pool = Pool::new(2);
        let hit = catch_unwind(AssertUnwindSafe(|| pool.tasks(8, &mut [], |task, _| assert!(task != 5))));
        assert!(hit.is_err());
        let count = AtomicUsize::new(0);
        pool.tasks(8, &mut [], |_, _| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.into_inner(), 8);
    }

    #[test]
    fn panics_of_caller_and_helper_in_one_job_do_not_reach_the_next() {
        let pool = Pool::new(2);
        for _ in 0..if cfg!(miri) { 2 } else { 50 } {
            // Each task waits for the other, so that both workers are in the job when they panic.
            let inside = AtomicUsize::new(0);
            let job = |_: usize, _: &mut [f32]| {
                inside.fetch_add(1, Ordering::SeqCst);
                while inside.load(Ordering::SeqCst) < pool.workers() {
                    std::thread::yield_now();
                }
                // No message: fifty of them would hide others.
                resume_unwind(Box::new(()));
            };
            assert!(catch_unwind(AssertUnwindSafe(|| pool.tasks(pool.workers(), &mut [], job))).is_err());
            pool.tasks(8, &mut [], |_, _| {});
        }
    }

    /// Callers on several threads, jobs of every length, helpers asleep and awake: every task once, none lost.
    #[test]
    fn many_callers_and_pools_that_come_and_go() {
        let rounds = if cfg!(miri) { 4 } else { 150 };
        for workers in [2, 3, 5] {
            for round in 0..rounds / 10 + 1 {
                let pool = Pool::new(workers);
                // Long enough for helpers to fall asleep before the first job of some pools.
                (0..round % 3 * 400).for_each(|_| std::thread::yield_now());
                std::thread::scope(|scope| {
                    for caller in 0..3 {
                        let pool = &pool;
                        scope.spawn(move || {
                            for job in 0..rounds {
                                let count = (caller + job) % 7;
                                let hits: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                                let mut scratch = vec![0.0; 2 * pool.workers()];
                                pool.tasks(count, &mut scratch, |task, own| {
                                    own.iter_mut().for_each(|v| *v += 1.0);
                                    hits[task].fetch_add(1, Ordering::Relaxed);
                                });
                                assert!(hits.iter().all(|h| h.load(Ordering::Relaxed) == 1));
                                assert_eq!(scratch.iter().sum::<f32>(), 2.0 * count as f32);
                            }
                        });
                    }
                });
            }
        }
    }

    #[cfg(feature = "parallel")]
    #[test]
    fn a_dropped_pool_gives_its_threads_back() {
        let threads = rayon::ThreadPoolBuilder::new().num_threads(2).build().map(Arc::new);
        let Ok(threads) = threads else { return };
        for round in 0..20 {
            let pool = Pool::on(Arc::clone(&threads));
            // A second team on the same threads has no helper until the first is gone; it still computes.
            let second = Pool::on(Arc::clone(&threads));
            let count = AtomicUsize::new(0);
            for pool in [&pool, &second] {
                pool.tasks(5 + round, &mut [], |_, _| {
                    count.fetch_add(1, Ordering::Relaxed);
                });
            }
            assert_eq!(count.into_inner(), 2 * (5 + round));
        }
        // Runs only once all helpers have left.
        assert_eq!(threads.install(|| rayon::join(|| 1, || 2)), (1, 2));
    }

    #[test]
    fn views_whose_rows_overlap_are_refused() {
        let refused = |rows, cols, ld| {
            let mut data = [0.0f32; 12];
            catch_unwind(AssertUnwindSafe(|| MatMut { data: &mut data, rows, cols, ld }.split().rows())).is_err()
        };
        assert!(refused(4, 3, 0) && refused(2, 6, 5) && refused(5, 3, 3) && refused(3, 1, usize::MAX / 2 + 1));
        assert!(!refused(4, 3, 3) && !refused(1, 12, 0) && !refused(0, 9, 0));
    }

    #[test]
    fn nested_calls_run_on_the_caller() {
        let pool = Pool::new(2);
        let count = AtomicUsize::new(0);
        pool.tasks(4, &mut [], |_, _| {
            pool.tasks(4, &mut [], |_, _| {
                count.fetch_add(1, Ordering::Relaxed);
            });
        });
        assert_eq!(count.into_inner(), 16);
    }

    #[test]
    fn every_element_is_in_one_head() {
        let (sequences, tokens, heads, parts, width, ld) = (3, 4, 2, 3, 5, 33);
        let cols = heads * parts * width;
        for pool in [Pool::serial(), Pool::new(3)] {
            let mut all = vec![0.0; (sequences * tokens - 1) * ld + cols];
            let mat = MatMut { data: &mut all, rows: sequences * tokens, cols, ld };
            pool.rows(SplitHeads::new(mat, tokens, heads, parts), 1, &mut [], |at, mut head, _| {
                for (token, part) in (0..tokens).flat_map(|token| (0..parts).map(move |part| (token, part))) {
                    head.row(token, part).iter_mut().for_each(|x| *x += 1.0 + at as f32);
                }
            });
            for (at, x) in all.iter().enumerate() {
                let (row, col) = (at / ld, at % ld);
                let head = row / tokens * heads + col / width % heads;
                assert_eq!(*x, if col < cols { 1.0 + head as f32 } else { 0.0 }, "row {row}, column {col}");
            }
        }
    }
}
