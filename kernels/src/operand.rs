//! What a CPU variant sees: typed matrices over the arena.

use crate::contract::{Dims, MAX_ARGS};
use crate::crossover::Crossover;
use crate::ops::gemm::micro::low_bits;
use crate::par::Pool;
use half::{bf16, f16};

/// A matrix that is read: `rows x cols`, row `r` starts at `data[r * ld]`.
#[derive(Clone, Copy, Debug)]
pub struct Mat<'a, T> {
    /// Elements, from the first of row 0 to the last of the last row.
    pub data: &'a [T],
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Distance between rows.
    pub ld: usize,
}

impl<'a, T> Mat<'a, T> {
    /// A matrix without gaps.
    pub fn dense(data: &'a [T], rows: usize, cols: usize) -> Mat<'a, T> {
        debug_assert_eq!(data.len(), rows * cols, "a dense matrix has rows * cols elements");
        Mat { data, rows, cols, ld: cols }
    }

    /// Row `r`.
    #[inline]
    pub fn row(&self, r: usize) -> &'a [T] {
        &self.data[r * self.ld..][..self.cols]
    }

    /// `rows` rows from row `first` on; `first` may be past the end if there are none.
    #[inline]
    pub fn block(self, first: usize, rows: usize) -> Mat<'a, T> {
        debug_assert!(first + rows <= self.rows, "rows {first}.. of {} has {rows} rows", self.rows);
        Mat { data: &self.data[(first * self.ld).min(self.data.len())..], rows, ..self }
    }
}

/// A matrix that is written.
#[derive(Debug)]
pub struct MatMut<'a, T> {
    /// Elements, from the first of row 0 to the last of the last row.
    pub data: &'a mut [T],
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Distance between rows.
    pub ld: usize,
}

impl<'a, T> MatMut<'a, T> {
    /// A matrix without gaps.
    pub fn dense(data: &'a mut [T], rows: usize, cols: usize) -> MatMut<'a, T> {
        debug_assert_eq!(data.len(), rows * cols, "a dense matrix has rows * cols elements");
        MatMut { data, rows, cols, ld: cols }
    }

    /// Row `r`.
    #[inline]
    pub fn row(&mut self, r: usize) -> &mut [T] {
        &mut self.data[r * self.ld..][..self.cols]
    }

    /// The same matrix for a shorter time.
    pub fn reborrow(&mut self) -> MatMut<'_, T> {
        MatMut { data: self.data, rows: self.rows, cols: self.cols, ld: self.ld }
    }
}

/// A bit matrix that is read: one bit per element, `ld` words per row.
#[derive(Clone, Copy, Debug)]
pub struct BitMat<'a> {
    /// Words, rows back to back.
    pub words: &'a [u32],
    /// Rows.
    pub rows: usize,
    /// Columns (bits).
    pub cols: usize,
    /// Words per row.
    pub ld: usize,
}

impl<'a> BitMat<'a> {
    /// Words of row `r`.
    #[inline]
    pub fn row(&self, r: usize) -> &'a [u32] {
        &self.words[r * self.ld..][..self.cols.div_ceil(32)]
    }

    /// Bit of row `r`, column `c`.
    #[inline]
    pub fn get(&self, r: usize, c: usize) -> bool {
        self.words[r * self.ld + c / 32] >> (c % 32) & 1 == 1
    }

    /// Columns whose bit is set in row `r`, ascending.
    #[inline]
    pub fn ones(&self, r: usize) -> impl Iterator<Item = usize> + use<'a> {
        let cols = self.cols;
        self.row(r).iter().enumerate().flat_map(move |(word, bits)| {
            // Bits behind the last column may be anything.
            let mut left = *bits & low_bits(cols - 32 * word);
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros() as usize)?;
                left &= left - 1; // clear the lowest set bit
                Some(word * 32 + bit)
            })
        })
    }
}

/// A bit matrix that is written.
#[derive(Debug)]
pub struct BitMatMut<'a> {
    /// Words, rows back to back.
    pub words: &'a mut [u32],
    /// Rows.
    pub rows: usize,
    /// Columns (bits).
    pub cols: usize,
    /// Words per row.
    pub ld: usize,
}

impl BitMatMut<'_> {
    /// Words of row `r`.
    #[inline]
    pub fn row(&mut self, r: usize) -> &mut [u32] {
        &mut self.words[r * self.ld..][..self.cols.div_ceil(32)]
    }
}

/// One argument of a call.
#[derive(Debug)]
pub enum Operand<'a> {
    /// An optional argument that was left out.
    Absent,
    /// f32, read.
    F32(Mat<'a, f32>),
    /// f32, written or updated.
    F32Mut(MatMut<'a, f32>),
    /// f16, read.
    F16(Mat<'a, f16>),
    /// f16, written.
    F16Mut(MatMut<'a, f16>),
    /// bf16, read.
    Bf16(Mat<'a, bf16>),
    /// bf16, written.
    Bf16Mut(MatMut<'a, bf16>),
    /// u32, read.
    U32(Mat<'a, u32>),
    /// u32, written.
    U32Mut(MatMut<'a, u32>),
    /// u16, read.
    U16(Mat<'a, u16>),
    /// u16, written.
    U16Mut(MatMut<'a, u16>),
    /// u8, read.
    U8(Mat<'a, u8>),
    /// u8, written.
    U8Mut(MatMut<'a, u8>),
    /// Bits, read.
    Bits(BitMat<'a>),
    /// Bits, written.
    BitsMut(BitMatMut<'a>),
}

/// A call as a CPU variant sees it. Arguments were checked against the contract and are disjoint where written.
pub struct Call<'a> {
    /// Sizes and scalars.
    pub dims: &'a Dims,
    /// Workers.
    pub pool: &'a Pool,
    /// Where one way to compute an op overtakes another.
    pub crossover: &'a Crossover,
    /// Workspace shared by all workers, as long as the variant's `scratch` asked for. Holds garbage at the start.
    pub shared: &'a mut [f32],
    /// What the variant's [`Prepare`](crate::contract::Prepare) wrote, or is about to write.
    pub prepared: &'a mut [f32],
    /// Workspace of the workers: pass it to [`Pool`], which hands each worker its own part.
    pub workers: &'a mut [f32],
    /// Arguments in contract order; the accessors take them out.
    pub args: [Operand<'a>; MAX_ARGS],
}

impl<'a> Call<'a> {
    /// A call without workspaces, under the shipped table.
    pub fn new(dims: &'a Dims, pool: &'a Pool, args: [Operand<'a>; MAX_ARGS]) -> Call<'a> {
        Call { dims, pool, crossover: Crossover::SHIPPED, shared: &mut [], prepared: &mut [], workers: &mut [], args }
    }
}

macro_rules! accessors {
    ($($read:ident $read_opt:ident $mutable:ident $mutable_opt:ident $R:ident $M:ident $T:ty;)*) => {
        impl<'a> Call<'a> {$(
            /// Takes a read argument of this type.
            ///
            /// # Panics
            /// If the contract says another type or the argument is absent: a broken contract, not bad input.
            pub fn $read(&mut self, at: usize) -> Mat<'a, $T> {
                self.$read_opt(at).unwrap_or_else(|| panic!("argument {at} is absent"))
            }

            /// Takes an optional read argument of this type.
            pub fn $read_opt(&mut self, at: usize) -> Option<Mat<'a, $T>> {
                match std::mem::replace(&mut self.args[at], Operand::Absent) {
                    Operand::$R(m) => Some(m),
                    Operand::Absent => None,
                    other => panic!("argument {at} is {other:?}"),
                }
            }

            /// Takes a written argument of this type.
            ///
            /// # Panics
            /// If the contract says another type or the argument is absent: a broken contract, not bad input.
            pub fn $mutable(&mut self, at: usize) -> MatMut<'a, $T> {
                self.$mutable_opt(at).unwrap_or_else(|| panic!("argument {at} is absent"))
            }

            /// Takes an optional written argument of this type.
            pub fn $mutable_opt(&mut self, at: usize) -> Option<MatMut<'a, $T>> {
                match std::mem::replace(&mut self.args[at], Operand::Absent) {
                    Operand::$M(m) => Some(m),
                    Operand::Absent => None,
                    other => panic!("argument {at} is {other:?}"),
                }
            }
        )*}
    };
}

accessors! {
    f32 f32_opt f32_mut f32_mut_opt F32 F32Mut f32;
    f16 f16_opt f16_mut f16_mut_opt F16 F16Mut f16;
    bf16 bf16_opt bf16_mut bf16_mut_opt Bf16 Bf16Mut bf16;
    u32 u32_opt u32_mut u32_mut_opt U32 U32Mut u32;
    u16 u16_opt u16_mut u16_mut_opt U16 U16Mut u16;
    u8 u8_opt u8_mut u8_mut_opt U8 U8Mut u8;
}

/// Element of a matrix of real numbers.
pub(crate) trait Real: Copy + Sync + Into<f32> + 'static {
    /// Takes a read argument of this type.
    fn read<'a>(c: &mut Call<'a>, at: usize) -> Mat<'a, Self>;
}

impl Real for f32 {
    fn read<'a>(c: &mut Call<'a>, at: usize) -> Mat<'a, f32> {
        c.f32(at)
    }
}

impl Real for f16 {
    fn read<'a>(c: &mut Call<'a>, at: usize) -> Mat<'a, f16> {
        c.f16(at)
    }
}

impl<'a> Call<'a> {
    /// Takes a read bit matrix.
    ///
    /// # Panics
    /// If the contract says another type or the argument is absent: a broken contract, not bad input.
    pub fn bits(&mut self, at: usize) -> BitMat<'a> {
        self.bits_opt(at).unwrap_or_else(|| panic!("argument {at} is absent"))
    }

    /// Takes an optional read bit matrix.
    pub fn bits_opt(&mut self, at: usize) -> Option<BitMat<'a>> {
        match std::mem::replace(&mut self.args[at], Operand::Absent) {
            Operand::Bits(m) => Some(m),
            Operand::Absent => None,
            other => panic!("argument {at} is {other:?}"),
        }
    }

    /// Takes a written bit matrix.
    ///
    /// # Panics
    /// If the contract says another type or the argument is absent: a broken contract, not bad input.
    pub fn bits_mut(&mut self, at: usize) -> BitMatMut<'a> {
        match std::mem::replace(&mut self.args[at], Operand::Absent) {
            Operand::BitsMut(m) => m,
            other => panic!("argument {at} is {other:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_behind_the_last_column_are_no_columns() {
        let words = [1 << 3 | 1 << 31, 0xFFFF_FF00 | 1 << 7, 0, u32::MAX];
        let bits = BitMat { words: &words, rows: 2, cols: 40, ld: 2 };
        assert_eq!(bits.ones(0).collect::<Vec<_>>(), [3, 31, 39]);
        assert_eq!(bits.ones(1).collect::<Vec<_>>(), (32..40).collect::<Vec<_>>());
    }
}
