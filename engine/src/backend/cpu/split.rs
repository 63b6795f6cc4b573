//! Arenas of aligned lines, and the one function that splits them into the operands of a call.
#![expect(unsafe_code, reason = "gives a call several disjoint views of one arena")]

use crate::error::{Error, Result};
use crate::layout::{Space, View};
use kernels::contract::MAX_ARGS;
use kernels::{Access, BitMat, BitMatMut, Contract, DType, Mat, MatMut, Operand};

/// Bytes of a cache line, the alignment of an arena.
const LINE: usize = 64;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; LINE]);

/// Zeroed memory, aligned to a cache line, in large pages if the system has some.
pub(crate) struct Memory {
    lines: Vec<Line>,
    bytes: usize,
}

impl Memory {
    /// # Errors
    /// [`Error::Memory`] if the allocator refuses.
    pub(crate) fn zeroed(bytes: usize) -> Result<Memory> {
        let count = bytes.div_ceil(LINE);
        let mut lines = Vec::new();
        lines.try_reserve_exact(count).map_err(|_| Error::Memory { bytes })?;
        kernels::pages::ask_for_large(lines.spare_capacity_mut());
        lines.resize(count, Line([0; LINE]));
        Ok(Memory { lines, bytes })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `Line` is `LINE` plain bytes without padding, and `bytes <= lines.len() * LINE` by `zeroed`.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.bytes) }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.bytes) }
    }
}

/// The memory of a program.
pub(crate) struct Arenas {
    pub(crate) state: Memory,
    pub(crate) step: Memory,
    pub(crate) prepared: Memory,
}

impl Arenas {
    pub(crate) fn of(&self, space: Space) -> &Memory {
        match space {
            Space::State => &self.state,
            Space::Step => &self.step,
            Space::Prepared => &self.prepared,
        }
    }

    pub(crate) fn of_mut(&mut self, space: Space) -> &mut Memory {
        match space {
            Space::State => &mut self.state,
            Space::Step => &mut self.step,
            Space::Prepared => &mut self.prepared,
        }
    }
}

/// A placed workspace of a call: f32 elements, nothing else while the call runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) space: Space,
    /// First byte.
    pub(crate) at: usize,
    pub(crate) bytes: usize,
}

/// The operands of a call and its two workspaces (shared, prepared), taken out of the arenas.
///
/// # Panics
/// If a view leaves its arena, is misaligned, or an output overlaps anything: the planner made a mistake.
pub(crate) fn split<'a>(
    op: &Contract,
    views: &[Option<View>],
    works: [Room; 2],
    arenas: &'a mut Arenas,
) -> ([Operand<'a>; MAX_ARGS], [&'a mut [f32]; 2]) {
    prove_disjoint(op, views, works, arenas);
    let [state, step, prepared] =
        [Space::State, Space::Step, Space::Prepared].map(|space| arenas.of_mut(space).bytes_mut().as_mut_ptr());
    let base = |space| match space {
        Space::State => state,
        Space::Step => step,
        Space::Prepared => prepared,
    };
    let mut operands: [Operand<'a>; MAX_ARGS] = std::array::from_fn(|_| Operand::Absent);
    for ((operand, view), arg) in operands.iter_mut().zip(views).zip(op.args) {
        let Some(view) = view else { continue };
        // SAFETY: in bounds, aligned, and disjoint from every other view if written, by `prove_disjoint`; the arenas
        // are borrowed exclusively for 'a, and every bit pattern is valid for the element types.
        *operand = unsafe { operand_at(base(view.space).add(view.at), view, arg.access != Access::Read) };
    }
    // SAFETY: as above; `prove_disjoint` holds the workspaces against each other and against all views.
    let works = works.map(|w| unsafe { std::slice::from_raw_parts_mut(base(w.space).add(w.at).cast(), w.bytes / 4) });
    (operands, works)
}

fn prove_disjoint(op: &Contract, views: &[Option<View>], works: [Room; 2], arenas: &Arenas) {
    let meet = |a: (Space, usize, usize), b: (Space, usize, usize)| a.0 == b.0 && a.1 < b.2 && b.1 < a.2;
    let range = |v: &View| (v.space, v.at, v.end());
    let works = works.map(|w| (w.space, w.at, w.at + w.bytes));
    for work in works {
        let inside = work.2 <= arenas.of(work.0).bytes && work.1.is_multiple_of(4);
        assert!(inside, "workspace of {} leaves the arena", op.name);
    }
    assert!(!meet(works[0], works[1]), "workspaces of {} overlap", op.name);
    for (nth, (view, arg)) in views.iter().zip(op.args).enumerate() {
        let Some(view) = view else { continue };
        let limit = arenas.of(view.space).bytes;
        let row = view.dtype.row_units(view.cols as u32) as usize;
        let needs = if view.rows == 0 || row == 0 { 0 } else { (view.rows - 1) * view.ld + row };
        assert!(view.end() <= limit && view.units >= needs, "{} of {} leaves the arena", arg.name, op.name);
        assert!(view.at % view.dtype.unit_bytes() == 0, "{} of {} is misaligned", arg.name, op.name);
        assert!(
            !works.iter().any(|work| meet(range(view), *work)),
            "{} of {} overlaps the workspace",
            arg.name,
            op.name
        );
        if arg.access != Access::Read {
            let clash =
                views.iter().enumerate().any(|(i, v)| i != nth && v.is_some_and(|v| meet(range(view), range(&v))));
            assert!(!clash, "{} of {} overlaps another argument", arg.name, op.name);
        }
    }
}

/// # Safety
/// `base` must be valid for `view.units` elements for 'a, exclusively if `written`.
unsafe fn operand_at<'a>(base: *mut u8, view: &View, written: bool) -> Operand<'a> {
    let View { units, rows, cols, ld, .. } = *view;
    macro_rules! matrix {
        ($T:ty, $Read:ident, $Write:ident) => {{
            let base: *mut $T = base.cast();
            if written {
                // SAFETY: the caller's promise.
                let data = unsafe { std::slice::from_raw_parts_mut(base, units) };
                Operand::$Write(MatMut { data, rows, cols, ld })
            } else {
                // SAFETY: the caller's promise.
                let data = unsafe { std::slice::from_raw_parts(base.cast_const(), units) };
                Operand::$Read(Mat { data, rows, cols, ld })
            }
        }};
    }
    match view.dtype {
        DType::F32 => matrix!(f32, F32, F32Mut),
        DType::F16 => matrix!(kernels::f16, F16, F16Mut),
        DType::Bf16 => matrix!(kernels::bf16, Bf16, Bf16Mut),
        DType::U32 => matrix!(u32, U32, U32Mut),
        DType::U16 => matrix!(u16, U16, U16Mut),
        DType::U8 => matrix!(u8, U8, U8Mut),
        DType::Bits if written => {
            // SAFETY: the caller's promise.
            let words = unsafe { std::slice::from_raw_parts_mut(base.cast(), units) };
            Operand::BitsMut(BitMatMut { words, rows, cols, ld })
        }
        DType::Bits => {
            // SAFETY: the caller's promise.
            let words = unsafe { std::slice::from_raw_parts(base.cast_const().cast(), units) };
            Operand::Bits(BitMat { words, rows, cols, ld })
        }
    }
}
