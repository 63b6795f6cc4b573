//! Several calls on the same rows in one launch: a warp holds a row and does one thing after the other to it.
//!
//! A kernel whose rows need nothing of other rows may be a [`Stage`]: `kernels/src/cuda/rows.h` has its body for a row that is
//! held in registers. A [`Head`] is a kernel that goes on with stages on the rows that it computed: that of a product
//! ([`Launch::heading`](super::Launch::heading)), or [`ROWS`], which has stages alone. `args.h` numbers the ops that are stages.

use super::Contract;
#[cfg(feature = "launches")]
use super::{Module, Target};
use crate::ops::OPS;

/// How a launch is a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// The argument that it takes as the stage before left it, row by row; `None` if it gathers its rows and can only be first.
    pub from: Option<&'static str>,
    /// The argument whose rows it leaves.
    pub to: &'static str,
}

/// A kernel that goes on with stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Name of the kernel; its argument is [`stages_bytes`].
    pub entry: &'static str,
    /// The argument whose rows it leaves, where it is one of a call.
    pub to: &'static str,
    /// Rows of a block of [`THREADS`].
    pub rows: u32,
    /// Bytes of dynamic shared memory.
    pub shared_bytes: u32,
}

/// Threads of a block of every head.
pub const THREADS: u32 = 256;

/// Most columns of a row that is held.
pub const WIDTH: u32 = 128;

/// The head that has stages alone. In place of a call's struct its argument begins with the number of rows, 8 bytes.
pub const ROWS: Head = Head { entry: "rows", to: "", rows: 8, shared_bytes: 0 };

/// The module of [`ROWS`].
#[cfg(feature = "launches")]
pub const ROWS_MODULE: Module = Module {
    name: "rows",
    path: "cuda/rows.cu",
    #[cfg(feature = "cuda")]
    ptx: include_str!("../../cuda/ptx/rows.ptx"),
    #[cfg(not(feature = "cuda"))]
    ptx: "",
    target: Target::Sm80,
};

/// Ops that are stages, in the order of their numbers.
pub fn staged_ops() -> impl Iterator<Item = &'static Contract> {
    let staged = |op: &&Contract| op.cuda.iter().flat_map(|variant| variant.launches).any(|l| l.stage.is_some());
    OPS.iter().copied().filter(staged)
}

/// Number of an op among those that are stages.
pub fn stage_number(op: &Contract) -> Option<u64> {
    (0..).zip(staged_ops()).find(|(_, other)| std::ptr::eq(*other, op)).map(|(number, _)| number)
}

/// The bytes of the argument of a head: the struct of its own call, then address and number of pairs of a stage's number and
/// the address of its struct.
pub fn stages_bytes(call: &[u8], stages: u64, count: u64) -> Vec<u8> {
    [call, &stages.to_ne_bytes(), &count.to_ne_bytes()].concat()
}

/// The part of `args.h` that numbers stages.
pub(super) fn numbers() -> String {
    let names: String = staged_ops().map(|op| format!("    {},\n", op.name)).collect();
    format!(
        "\n// Ops that are done to rows which a warp holds: `rows.h`.\nenum class RowOp : unsigned long long {{\n{names}}};\n"
    )
}
