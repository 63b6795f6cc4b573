//! What `build.rs` has compiled.
#![expect(unsafe_code, reason = "calls code compiled from C++")]

use std::ffi::{CStr, c_char, c_void};

/// A compiled kernel.
#[repr(C)]
pub(crate) struct Kernel {
    module: *const c_char,
    entry: *const c_char,
    run: *const c_void,
    bytes: *const usize,
}

// SAFETY: a constant of the compiled tables, and its code may run on any thread.
unsafe impl Sync for Kernel {}

/// Some blocks of a launch.
#[repr(C)]
pub(crate) struct Launch {
    pub(crate) kernel: *const c_char,
    pub(crate) grid: [u32; 3],
    pub(crate) threads: u32,
    pub(crate) shared_bytes: u32,
    pub(crate) order: u32,
    pub(crate) first: u64,
    pub(crate) count: u64,
}

#[repr(C)]
struct RawMember {
    op: *const c_char,
    name: *const c_char,
    offset: usize,
    size: usize,
}

unsafe extern "C" {
    fn emulator_kernel(at: usize) -> *const Kernel;
    fn emulator_member(at: usize) -> *const RawMember;
    fn emulator_run(kernel: *const Kernel, launch: *const Launch, argument: *const c_void);
}

fn text(from: *const c_char) -> &'static str {
    // SAFETY: the texts of the compiled tables are string literals.
    unsafe { CStr::from_ptr(from) }.to_str().unwrap_or_default()
}

impl Kernel {
    /// The kernel of a module and a name.
    pub(crate) fn find(module: &str, entry: &str) -> Option<&'static Kernel> {
        // SAFETY: null or a kernel of a static table.
        let all = (0..).map_while(|at| unsafe { emulator_kernel(at).as_ref() });
        all.into_iter().find(|kernel| text(kernel.module) == module && text(kernel.entry) == entry)
    }

    /// Its name.
    pub(crate) fn name(&self) -> *const c_char {
        self.entry
    }

    /// Its name as text.
    pub(crate) fn entry(&self) -> &'static str {
        text(self.entry)
    }

    /// Name of its module.
    pub(crate) fn module(&self) -> &'static str {
        text(self.module)
    }

    /// Size of its argument.
    pub(crate) fn argument_bytes(&self) -> usize {
        // SAFETY: points to a constant of the compiled unit.
        unsafe { *self.bytes }
    }

    /// Runs some blocks on this thread.
    ///
    /// # Safety
    /// The argument has [`Kernel::argument_bytes`] and its pointers are what the kernel takes them for.
    pub(crate) unsafe fn run(&self, launch: &Launch, argument: &[u8]) {
        // SAFETY: promised by the caller.
        unsafe { emulator_run(self, launch, argument.as_ptr().cast()) }
    }
}

/// A member of the argument of an op's kernels, as the C++ compiler places it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Name of the op.
    pub op: &'static str,
    /// Name.
    pub name: &'static str,
    /// Its first byte.
    pub offset: usize,
    /// Bytes of the whole argument.
    pub size: usize,
}

/// Every member of every op's argument.
pub fn members() -> impl Iterator<Item = Member> {
    // SAFETY: null or a member of a static table.
    let all = (0..).map_while(|at| unsafe { emulator_member(at).as_ref() });
    all.map(|raw| Member { op: text(raw.op), name: text(raw.name), offset: raw.offset, size: raw.size })
}
