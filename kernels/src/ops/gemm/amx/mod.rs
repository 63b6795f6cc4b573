//! Products on matrix tiles (AMX): of bf16, and of f32 as three bf16 each.
//!
//! One instruction adds the product of two tiles of bf16 to a tile of 16 x 16 f32 sums, sixteen times the work of an
//! AVX-512 multiply-add in the same time. An f32 has 24 significant bits and a bf16 has 8, so an f32 is exactly the sum of
//! three bf16, `x = h + m + l`, each the rounded remainder of those before. Of the nine products of two such sums the six
//! that matter are formed:
//!
//! ```text
//!   x w  =  h h'   +   m h' + l h' + m m' + h m' + h l'        left out: m l' + l m' + l l', at most 2^-24 of |x w|
//!           ----       -------------------------------
//!           sums       sums of their own, 2^-8 as large, added to the first at the end
//! ```
//! The rounding error is that of the first sums, which an f32 chain has as well. Six products at sixteen times the rate leave
//! 2.7 times the f32 rate of AVX-512 at equal clocks; with random numbers the clock falls, and packing and sums take their
//! time, so that 1.3 to 1.7 times are left. The instruction takes denormals for zero, factors and products: values, and
//! products of two, below about 2^-103 lose bits. NaN makes NaN of the sums it is in, and so does an infinity, or a finite
//! value that rounds to one (above 3.39e38).
//!
//! ```text
//!                        right[k / 32, 32]    two tiles wide, packed: a weight once, for as long as it stays; one panel at
//!                                             a time is in the first-level cache
//!                      +------------+
//!   left[rows, k / 32] | sums       |         left rows are packed for each block of k, and pass by each panel
//!                      +------------+
//! ```
//! A block of k is at most [`Element::STEPS`] tiles deep; sums of blocks are added to the output in ascending order. Neither
//! blocks nor tiles depend on the number of workers or rows, so no bit does.
//!
//! Source: splitting a float for products of lower precision, Henry, Tang and Heinecke 2019, "Leveraging the bfloat16
//! artificial intelligence datatype for higher-precision computations"; layout and blocks are this project's.

mod element;
mod gradient;
mod meet;
mod pack;
mod product;
#[cfg(test)]
mod tests;
mod tile;

pub(crate) use element::Element;
pub(crate) use gradient::{outer, outer_pays, outer_scratch};
pub(crate) use meet::{meet, meet_room};
pub(crate) use product::{back_len, back_pays, forward_len, forward_pays, pack_back, pack_forward, product, scratch};
pub(crate) use tile::{FLOPS, busy};
