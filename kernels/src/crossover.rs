//! Where kept-weight lists overtake bits applied while packing: a measured table, looked up by size.
//!
//! The choice changes the order of sums, so it is a function of the table and the call alone, never of a clock.
//! `cargo xtask tune` measures a table for a machine; [`Crossover::SHIPPED`] is the one in `crossover/shipped.rs`.

mod hash;
mod shipped;

pub use hash::KERNEL_HASH;

use crate::simd::Isa;
use std::borrow::Cow;

/// One line of the table: masked products of a shape class on one instruction set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Entry {
    /// Name of the op: `masked_gemm`, `masked_gemm_dx` or `masked_gemm_dw`.
    pub op: &'static str,
    /// Instruction set of the variants compared.
    pub isa: Isa,
    /// Most rows of the class.
    pub rows_up_to: usize,
    /// Most inputs in the class: `i` for `masked_gemm` and `masked_gemm_dw`, `o` for `masked_gemm_dx`.
    pub width_up_to: usize,
    /// Lists run if the mask keeps less than this share of the weights.
    pub lists_below_keep: f32,
}

/// The table. Of the entries of an op and instruction set whose bounds hold a call, the first counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Crossover {
    entries: Cow<'static, [Entry]>,
}

impl Crossover {
    /// The table in the source, measured on the machine that it names.
    pub const SHIPPED: &'static Crossover = &Crossover { entries: Cow::Borrowed(shipped::ENTRIES) };

    /// A table of these entries. An empty one never chooses lists.
    pub fn new(entries: Vec<Entry>) -> Crossover {
        Crossover { entries: Cow::Owned(entries) }
    }

    /// The entries, in the order in which they are searched.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The share of kept weights below which lists run; zero where the table says nothing.
    pub fn lists_below_keep(&self, op: &str, isa: Isa, rows: usize, width: usize) -> f32 {
        let fits = |e: &&Entry| e.op == op && e.isa == isa && rows <= e.rows_up_to && width <= e.width_up_to;
        self.entries.iter().find(fits).map_or(0.0, |e| e.lists_below_keep)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_entry_that_holds_a_call_counts() {
        let entry = |rows_up_to, lists_below_keep| Entry {
            op: "masked_gemm",
            isa: Isa::Avx2,
            rows_up_to,
            width_up_to: 128,
            lists_below_keep,
        };
        let table = Crossover::new(vec![entry(16, 0.1), entry(usize::MAX, 0.5)]);
        let at = |isa, rows, width| table.lists_below_keep("masked_gemm", isa, rows, width);
        assert_eq!([at(Isa::Avx2, 16, 128), at(Isa::Avx2, 17, 128)], [0.1, 0.5]);
        assert_eq!([at(Isa::Avx2, 17, 129), at(Isa::Avx512, 16, 128)], [0.0, 0.0]);
    }

    #[test]
    fn the_shipped_table_covers_every_size() {
        let table = Crossover::SHIPPED;
        for op in ["masked_gemm", "masked_gemm_dx", "masked_gemm_dw"] {
            for isa in [Isa::Scalar, Isa::Avx2, Isa::Avx512, Isa::Amx] {
                let found = table.entries().iter().any(|e| (e.op, e.isa, e.rows_up_to) == (op, isa, usize::MAX));
                assert!(found, "{op} {isa:?}");
                for (rows, width) in [(1, 1), (60, 128), (3840, 512), (100_000, 4096)] {
                    let keep = table.lists_below_keep(op, isa, rows, width);
                    assert!((0.0..=1.0).contains(&keep), "{op} {isa:?} {rows} {width}: {keep}");
                }
            }
        }
    }
}
