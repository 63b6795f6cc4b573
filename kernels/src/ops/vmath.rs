//! Vectors of f32 for several instruction sets, and the functions built on them.
//!
//! A kernel body is written once against [`Simd`] and run by [`Simd::run`], which compiles it for the instruction set.
//! The value of a `Simd` type is proof that the CPU has the instructions: only `run` makes one, after looking.
//! [`exp_nonpos`] and [`normal_cdf`] state their errors; the tests walk through their whole range.

use crate::philox::philox;

/// A kernel body, compiled once per instruction set. `run` must be `#[inline(always)]`.
pub(crate) trait Body {
    fn run<S: Simd>(self, s: S);
}

/// Vectors of `WIDTH` f32.
pub(crate) trait Simd: Copy {
    type V: Copy;
    const WIDTH: usize;
    /// Runs a body compiled for this instruction set.
    ///
    /// # Panics
    /// If the CPU lacks it: a variant was run without a look at what it needs.
    fn run(body: impl Body);
    fn splat(self, x: f32) -> Self::V;
    /// The first `WIDTH` elements.
    fn load(self, from: &[f32]) -> Self::V;
    /// To the first `WIDTH` elements.
    fn store(self, v: Self::V, to: &mut [f32]);
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `1 / a` within an ulp, for results that are normal numbers.
    #[inline(always)]
    fn reciprocal(self, a: Self::V) -> Self::V {
        self.div(self.splat(1.0), a)
    }
    /// The larger; `b` if either is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    fn abs(self, a: Self::V) -> Self::V;
    /// `a * b + c`, rounded once where the CPU can.
    fn madd(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `c - a * b`.
    fn nmadd(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `a * a` in two parts: their sum is exact or nearly so, and the first is what `exp` reduces.
    fn square(self, a: Self::V) -> (Self::V, Self::V);
    /// `a < b ? yes : no` per element; NaN chooses `no`.
    fn select_lt(self, a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V;
    /// `v * 2^n` where `biased = n + 1.5 * 2^23`, for results that are normal numbers.
    fn shift_exponent(self, v: Self::V, biased: Self::V) -> Self::V;
    /// `v` where the bit of the element is set (the first is bit 0), 0 elsewhere.
    fn keep(self, v: Self::V, bits: u32) -> Self::V;
    /// `yes` where the bit of the element is set (the first is bit 0), `no` elsewhere.
    fn select(self, bits: u32, yes: Self::V, no: Self::V) -> Self::V;
    /// For each of `WIDTH` Philox blocks, given by the low and high half of its number: a byte whose bit `i` says that
    /// half-word `i` of the block reaches the threshold.
    fn reached(self, low: &[u32], high: &[u32], random: Random, to: &mut [u32]);

    /// Asks for memory that is read soon.
    #[inline(always)]
    fn fetch(self, _soon: &[f32]) {}
    /// Asks for memory that is written soon.
    #[inline(always)]
    fn fetch_to_write(self, _soon: &mut [f32]) {}

    /// Transposes: `to[c * to_ld + r] = from[r * ld + c]` for `rows` and `cols` of at most `WIDTH`.
    #[inline(always)]
    fn turn(self, from: &[f32], ld: usize, rows: usize, cols: usize, to: &mut [f32], to_ld: usize) {
        turn_plain(from, ld, rows, cols, to, to_ld);
    }

    /// Largest element; none is NaN.
    #[inline(always)]
    fn largest(self, v: Self::V) -> f32 {
        let mut all = [f32::NEG_INFINITY; 16];
        self.store(v, &mut all);
        let mut n = Self::WIDTH;
        while n > 1 {
            n /= 2;
            for i in 0..n {
                all[i] = if all[i] > all[i + n] { all[i] } else { all[i + n] };
            }
        }
        all[0]
    }

    /// Sum of the elements, halves onto halves.
    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        let mut all = [0.0; 16];
        self.store(v, &mut all);
        let mut n = Self::WIDTH;
        while n > 1 {
            n /= 2;
            for i in 0..n {
                all[i] += all[i + n];
            }
        }
        all[0]
    }

    /// All of `from` (at most `WIDTH`), then zeros.
    #[inline(always)]
    fn load_part(self, from: &[f32]) -> Self::V {
        let mut all = [0.0; 16];
        all[..from.len()].copy_from_slice(from);
        self.load(&all)
    }

    /// To all of `to` (at most `WIDTH`).
    #[inline(always)]
    fn store_part(self, v: Self::V, to: &mut [f32]) {
        let mut all = [0.0; 16];
        self.store(v, &mut all);
        to.copy_from_slice(&all[..to.len()]);
    }
}

/// What Philox blocks have in common, and what is asked of their half-words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Random {
    pub(crate) key: [u32; 2],
    /// Upper half of the counter.
    pub(crate) tail: [u32; 2],
    pub(crate) threshold: u16,
}

#[inline(always)]
fn turn_plain(from: &[f32], ld: usize, rows: usize, cols: usize, to: &mut [f32], to_ld: usize) {
    for r in 0..rows {
        for (x, to) in from[r * ld..][..cols].iter().zip(to[r..].iter_mut().step_by(to_ld)) {
            *to = *x;
        }
    }
}

/// Plain Rust, eight at a time.
#[derive(Clone, Copy)]
pub(crate) struct Portable(());

/// aarch64 has a fused multiply-add in its baseline; elsewhere `mul_add` may be a library call.
const FUSED: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));

macro_rules! each {
    (|$i:ident| $e:expr) => {{
        let mut out = [0.0f32; 8];
        for $i in 0..8 {
            out[$i] = $e;
        }
        out
    }};
}

impl Simd for Portable {
    type V = [f32; 8];
    const WIDTH: usize = 8;

    fn run(body: impl Body) {
        body.run(Portable(()));
    }

    #[inline(always)]
    fn splat(self, x: f32) -> [f32; 8] {
        [x; 8]
    }

    #[inline(always)]
    fn load(self, from: &[f32]) -> [f32; 8] {
        let from = &from[..8];
        each!(|i| from[i])
    }

    #[inline(always)]
    fn store(self, v: [f32; 8], to: &mut [f32]) {
        to[..8].copy_from_slice(&v);
    }

    #[inline(always)]
    fn add(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        each!(|i| a[i] + b[i])
    }

    #[inline(always)]
    fn sub(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        each!(|i| a[i] - b[i])
    }

    #[inline(always)]
    fn mul(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        each!(|i| a[i] * b[i])
    }

    #[inline(always)]
    fn div(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        each!(|i| a[i] / b[i])
    }

    #[inline(always)]
    fn max(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        each!(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn abs(self, a: [f32; 8]) -> [f32; 8] {
        each!(|i| a[i].abs())
    }

    #[inline(always)]
    fn madd(self, a: [f32; 8], b: [f32; 8], c: [f32; 8]) -> [f32; 8] {
        each!(|i| if FUSED { a[i].mul_add(b[i], c[i]) } else { a[i] * b[i] + c[i] })
    }

    #[inline(always)]
    fn nmadd(self, a: [f32; 8], b: [f32; 8], c: [f32; 8]) -> [f32; 8] {
        each!(|i| if FUSED { (-a[i]).mul_add(b[i], c[i]) } else { c[i] - a[i] * b[i] })
    }

    #[inline(always)]
    fn square(self, a: [f32; 8]) -> ([f32; 8], [f32; 8]) {
        // The upper 12 bits have an exact square.
        let high = each!(|i| f32::from_bits(a[i].to_bits() & 0xFFFF_F000));
        (self.mul(high, high), self.mul(self.sub(a, high), self.add(a, high)))
    }

    #[inline(always)]
    fn select_lt(self, a: [f32; 8], b: [f32; 8], yes: [f32; 8], no: [f32; 8]) -> [f32; 8] {
        each!(|i| if a[i] < b[i] { yes[i] } else { no[i] })
    }

    #[inline(always)]
    fn shift_exponent(self, v: [f32; 8], biased: [f32; 8]) -> [f32; 8] {
        each!(|i| f32::from_bits(v[i].to_bits().wrapping_add(biased[i].to_bits() << 23)))
    }

    #[inline(always)]
    fn keep(self, v: [f32; 8], bits: u32) -> [f32; 8] {
        each!(|i| if bits >> i & 1 == 1 { v[i] } else { 0.0 })
    }

    #[inline(always)]
    fn select(self, bits: u32, yes: [f32; 8], no: [f32; 8]) -> [f32; 8] {
        each!(|i| if bits >> i & 1 == 1 { yes[i] } else { no[i] })
    }

    #[inline(always)]
    fn reached(self, low: &[u32], high: &[u32], random: Random, to: &mut [u32]) {
        let Random { key, tail, threshold } = random;
        for ((low, high), to) in low[..8].iter().zip(&high[..8]).zip(&mut to[..8]) {
            let halves = philox([*low, *high, tail[0], tail[1]], key).map(|word| [word as u16, (word >> 16) as u16]);
            let bits = halves.iter().flatten().enumerate().map(|(i, half)| u32::from(*half >= threshold) << i);
            *to = bits.sum();
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86;

/// Adding and subtracting this rounds to an integer, which then sits in the low bits.
const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23

/// `exp(high + low)` for `high <= 0` and `|low|` below 0.05: within 2 ulp, NaN for NaN.
///
/// Results below the smallest normal number are 0, so that masked scores cost no slow denormal arithmetic.
#[inline(always)]
pub(crate) fn exp_nonpos<S: Simd>(s: S, high: S::V, low: S::V) -> S::V {
    let biased = s.madd(high, s.splat(std::f32::consts::LOG2_E), s.splat(ROUND));
    let n = s.sub(biased, s.splat(ROUND));
    // ln 2 in two parts; the first has 9 zero bits at its end, so its product with n is exact.
    let r = s.nmadd(n, s.splat(0.693_359_4), high);
    let r = s.add(s.nmadd(n, s.splat(-2.121_944_4e-4), r), low);
    // e^r = 1 + r + r^2 p(r), p by Chebyshev interpolation on |r| <= 0.4, error 6e-10.
    let mut p = s.splat(1.990_751_6e-4);
    p = s.madd(p, r, s.splat(1.394_853_2e-3));
    p = s.madd(p, r, s.splat(8.333_294e-3));
    p = s.madd(p, r, s.splat(4.166_631e-2));
    p = s.madd(p, r, s.splat(0.166_666_67));
    p = s.madd(p, r, s.splat(0.5));
    let e = s.add(s.madd(s.mul(r, r), p, r), s.splat(1.0));
    s.select_lt(high, s.splat(-87.3), s.splat(0.0), s.shift_exponent(e, biased))
}

/// The standard normal distribution function and `exp(-x^2 / 2)`; both NaN for NaN.
///
/// The distribution is within 4 ulp above -13, and 0 below about -13.2. `(1 + erf(x / sqrt 2)) / 2` would lose all
/// digits in the lower tail; this form has one exponential, one division and no branch.
#[inline(always)]
pub(crate) fn normal_cdf<S: Simd>(s: S, x: S::V) -> (S::V, S::V) {
    let a = s.abs(x);
    let a = s.select_lt(s.splat(14.0), a, s.splat(14.0), a);
    let (high, low) = s.square(a);
    let half = s.splat(-0.5);
    let e = exp_nonpos(s, s.mul(half, high), s.mul(half, low));
    // (a + 4) exp(a^2 / 2) cdf(-a) as a polynomial in u = (a - 4) / (a + 4), Chebyshev interpolation on 0 <= a <= 14.5,
    // error 1.3e-8.
    let t = s.reciprocal(s.add(a, s.splat(4.0)));
    let u = s.mul(s.sub(a, s.splat(4.0)), t);
    let mut p = s.splat(-1.229_831_5e-4);
    p = s.madd(p, u, s.splat(1.948_018_5e-4));
    p = s.madd(p, u, s.splat(1.569_313_7e-3));
    p = s.madd(p, u, s.splat(-3.523_574e-3));
    p = s.madd(p, u, s.splat(-7.527_213e-3));
    p = s.madd(p, u, s.splat(6.040_647e-2));
    p = s.madd(p, u, s.splat(-0.186_523));
    p = s.madd(p, u, s.splat(0.387_136_67));
    p = s.madd(p, u, s.splat(-0.607_896_6));
    p = s.madd(p, u, s.splat(0.755_285_14));
    let tail = s.mul(s.mul(p, t), e);
    (s.select_lt(s.splat(0.0), x, s.sub(s.splat(1.0), tail), tail), e)
}
