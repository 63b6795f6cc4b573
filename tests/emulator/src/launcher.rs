//! The emulator as a launcher.
#![expect(unsafe_code, reason = "device memory is memory that kernels reach by its address")]

use crate::table::{Kernel, Launch};
use engine::kernels::contract::cuda::{MAP_BYTES, Module};
use engine::{CudaInfo, CudaLaunch, CudaMatrix, Error, Launcher, Result};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Bytes before and behind an allocation, which no kernel may change.
const GUARD: usize = 1024;
const GUARD_BYTE: u8 = 0xA5;
/// Fewer threads than this are not worth another OS thread.
const SHARE: u64 = 4096;

/// To which tensor maps are aligned behind an argument.
const MAP_ALIGN: usize = 64;
/// Begins a tensor map, as `async.h` reads it.
const MAP: u64 = u64::from_le_bytes(*b"hand-map");

/// In which order the threads of a block run from one barrier to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The first thread first.
    Ascending,
    /// The last thread first.
    Descending,
    /// Neighbours far from each other.
    Scattered,
}

impl Order {
    /// All of them.
    pub const ALL: [Order; 3] = [Order::Ascending, Order::Descending, Order::Scattered];
}

/// A device of the capability 9.0 that is the CPU.
pub struct Emulator {
    info: CudaInfo,
    order: Order,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Size by address.
    memory: BTreeMap<u64, usize>,
    graphs: BTreeMap<u64, Vec<CudaLaunch>>,
    last_graph: u64,
    fault: Option<Error>,
    /// Launches, if they are recorded.
    records: Option<Records>,
}

/// Launches with the memory they found, as `replay.cpp` reads them; the first of each kernel that is wanted.
#[derive(Default)]
struct Records {
    count: u64,
    wanted: BTreeSet<String>,
    bytes: Vec<u8>,
}

impl Records {
    fn add(&mut self, kernel: &Kernel, launch: &CudaLaunch, argument: &[u8], memory: &BTreeMap<u64, usize>) {
        if !self.wanted.remove(kernel.entry()) {
            return;
        }
        self.count += 1;
        for text in [kernel.module().as_bytes(), kernel.entry().as_bytes(), argument] {
            self.number(text.len() as u64);
            self.bytes.extend(text);
        }
        let words = launch.grid.into_iter().chain([launch.threads, launch.shared_bytes]);
        self.bytes.extend(words.flat_map(u32::to_ne_bytes));
        self.number(memory.len() as u64);
        for (address, bytes) in memory {
            self.number(*address);
            self.number(*bytes as u64);
            // SAFETY: an allocation of `alloc` that has not been freed; no kernel runs yet.
            self.bytes.extend(unsafe { std::slice::from_raw_parts(*address as *const u8, *bytes) });
        }
    }

    fn number(&mut self, n: u64) {
        self.bytes.extend(n.to_ne_bytes());
    }
}

impl Emulator {
    /// A device whose threads run in an order.
    pub fn new(order: Order) -> Emulator {
        let info = CudaInfo {
            index: 0,
            name: format!("emulator, {order:?}"),
            capability: (9, 0),
            memory_bytes: 1 << 32,
            processors: 1,
            driver: (12, 0),
        };
        Emulator { info, order, state: Mutex::default() }
    }

    /// The same, which keeps the first launch of some kernels for [`Emulator::recorded`].
    pub fn recording(order: Order, kernels: impl IntoIterator<Item = String>) -> Emulator {
        let emulator = Emulator::new(order);
        let wanted = kernels.into_iter().collect();
        emulator.locked().records = Some(Records { wanted, ..Records::default() });
        emulator
    }

    /// Kernels whose first launch is still to come.
    pub fn missing(&self) -> BTreeSet<String> {
        self.locked().records.as_ref().map(|records| records.wanted.clone()).unwrap_or_default()
    }

    /// The file that `replay.cpp` reads: the number of launches since the last call, and the launches.
    pub fn recorded(&self) -> Vec<u8> {
        let mut state = self.locked();
        let records = state
            .records
            .as_mut()
            .map(|records| (std::mem::take(&mut records.count), std::mem::take(&mut records.bytes)));
        let (count, bytes) = records.unwrap_or_default();
        [count.to_ne_bytes().as_slice(), &bytes].concat()
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.locked();
        match &state.fault {
            Some(fault) => Err(fault.clone()),
            None => Ok(state),
        }
    }

    /// Whether a range lies in an allocation; what lies elsewhere a driver would refuse, too.
    fn holds(state: &State, at: u64, bytes: usize) -> Result<()> {
        let inside = |(from, size): (&u64, &usize)| at + bytes as u64 <= from + *size as u64;
        match state.memory.range(..=at).next_back().is_some_and(inside) {
            true => Ok(()),
            false => Err(Error::Gpu { what: "copying".to_owned(), cause: format!("{bytes} bytes outside memory") }),
        }
    }

    /// The launch itself: blocks are shared among OS threads.
    fn run(&self, launch: &CudaLaunch) -> Result<()> {
        // SAFETY: `function` has made the handle from a kernel of a static table.
        let kernel = unsafe { &*(launch.function as *const Kernel) };
        let mut argument = launch.argument.clone();
        if !launch.maps.is_empty() {
            argument.resize(argument.len().next_multiple_of(MAP_ALIGN), 0);
            argument.extend(&launch.maps);
        }
        if kernel.argument_bytes() != argument.len() {
            let (expected, found) = (kernel.argument_bytes(), argument.len());
            let cause = format!("its argument has {expected} bytes, the launch {found}");
            return Err(Error::Gpu { what: "a launch".to_owned(), cause });
        }
        let mut state = self.locked();
        let State { records, memory, .. } = &mut *state;
        if let Some(records) = records {
            records.add(kernel, launch, &argument, memory);
        }
        drop(state);
        let blocks: u64 = launch.grid.iter().map(|n| u64::from(*n)).product();
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
        let shares = (blocks * u64::from(launch.threads) / SHARE).clamp(1, cores);
        let part = |nth: u64| {
            let [first, end] = [nth, nth + 1].map(|n| blocks * n / shares);
            let CudaLaunch { grid, threads, shared_bytes, .. } = *launch;
            let order = self.order as u32;
            let part = Launch { kernel: kernel.name(), grid, threads, shared_bytes, order, first, count: end - first };
            // SAFETY: the argument has the size of the kernel's, and its pointers are those that the engine was given;
            // whether the kernel stays inside is what is under test.
            unsafe { kernel.run(&part, &argument) };
        };
        std::thread::scope(|scope| {
            (1..shares).for_each(|nth| drop(scope.spawn(move || part(nth))));
            part(0);
        });
        Ok(())
    }

    /// Complains once about guard bytes that changed, and then always: the device is lost.
    fn check(&self) -> Result<()> {
        let mut state = self.state()?;
        let changed = state.memory.iter().find(|(address, bytes)| !intact(**address, **bytes));
        if let Some((_, bytes)) = changed {
            let cause = format!("a kernel wrote outside an allocation of {bytes} bytes");
            state.fault = Some(Error::Lost { device: self.info.name.clone(), cause });
        }
        drop(state);
        self.state().map(|_| ())
    }
}

fn layout(bytes: usize) -> Result<Layout> {
    let all = bytes.checked_add(2 * GUARD).and_then(|all| Layout::from_size_align(all, 256).ok());
    all.ok_or(Error::Memory { bytes })
}

/// The guards of an allocation.
fn intact(address: u64, bytes: usize) -> bool {
    let guard = |at: u64| {
        // SAFETY: both guards belong to the allocation of `alloc`.
        let bytes = unsafe { std::slice::from_raw_parts(at as *const u8, GUARD) };
        bytes.iter().all(|byte| *byte == GUARD_BYTE)
    };
    guard(address - GUARD as u64) && guard(address + bytes as u64)
}

impl Launcher for Emulator {
    fn info(&self) -> &CudaInfo {
        &self.info
    }

    fn alloc(&self, bytes: usize) -> Result<u64> {
        let layout = layout(bytes)?;
        let free = self.info.memory_bytes;
        if bytes as u64 > free {
            return Err(Error::DeviceMemory { device: self.info.name.clone(), bytes: bytes as u64, free });
        }
        // SAFETY: the layout is not empty.
        let begin = unsafe { alloc_zeroed(layout) };
        if begin.is_null() {
            return Err(Error::DeviceMemory { device: self.info.name.clone(), bytes: bytes as u64, free: 0 });
        }
        for at in [0, GUARD + bytes] {
            // SAFETY: both guards lie inside the layout.
            unsafe { begin.add(at).write_bytes(GUARD_BYTE, GUARD) };
        }
        let address = begin as u64 + GUARD as u64;
        self.state()?.memory.insert(address, bytes);
        Ok(address)
    }

    fn free(&self, address: u64) {
        let mut state = self.locked();
        if let Some(bytes) = state.memory.remove(&address)
            && let Ok(layout) = layout(bytes)
        {
            // SAFETY: `alloc` made it with this layout, and it is in no list any more.
            unsafe { dealloc((address - GUARD as u64) as *mut u8, layout) };
        }
    }

    fn upload(&self, to: u64, bytes: &[u8]) -> Result<()> {
        Emulator::holds(&*self.state()?, to, bytes.len())?;
        // SAFETY: the range lies in an allocation, by the line above.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to as *mut u8, bytes.len()) };
        Ok(())
    }

    fn download(&self, from: u64, bytes: &mut [u8]) -> Result<()> {
        self.check()?;
        Emulator::holds(&*self.state()?, from, bytes.len())?;
        // SAFETY: the range lies in an allocation, by the line above.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    fn function(&self, module: &Module, entry: &str, _: u32) -> Result<u64> {
        let missing = || Error::Gpu { what: format!("kernel {entry}"), cause: format!("{} has none", module.name) };
        Kernel::find(module.name, entry).map(|kernel| std::ptr::from_ref(kernel) as u64).ok_or_else(missing)
    }

    fn tensor_map(&self, matrix: &CudaMatrix) -> Result<[u8; MAP_BYTES]> {
        let CudaMatrix { address, rows, cols, pitch_bytes } = *matrix;
        let mut map = [0; MAP_BYTES];
        let words = [MAP, address, rows.into(), cols.into(), pitch_bytes];
        map.iter_mut().zip(words.into_iter().flat_map(u64::to_ne_bytes)).for_each(|(to, from)| *to = from);
        Ok(map)
    }

    fn launch(&self, launch: &CudaLaunch) -> Result<()> {
        drop(self.state()?);
        self.run(launch)
    }

    fn wait(&self) -> Result<()> {
        self.check()
    }

    fn capture(&self, launches: &[&CudaLaunch]) -> Result<u64> {
        let mut state = self.state()?;
        state.last_graph += 1;
        let handle = state.last_graph;
        state.graphs.insert(handle, launches.iter().map(|launch| (*launch).clone()).collect());
        Ok(handle)
    }

    fn replay(&self, graph: u64) -> Result<()> {
        let launches = self.state()?.graphs.get(&graph).cloned().unwrap_or_default();
        launches.iter().try_for_each(|launch| self.run(launch))
    }

    fn drop_graph(&self, graph: u64) {
        self.locked().graphs.remove(&graph);
    }

    fn timed(&self, count: usize, submit: &mut dyn FnMut(usize) -> Result<()>) -> Result<Vec<f64>> {
        let time = |part: usize| {
            let begin = Instant::now();
            submit(part)?;
            Ok(begin.elapsed().as_secs_f64() * 1e6)
        };
        (0..count).map(time).collect()
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let addresses: Vec<u64> =
            self.state.get_mut().unwrap_or_else(PoisonError::into_inner).memory.keys().copied().collect();
        addresses.into_iter().for_each(|address| self.free(address));
    }
}
