//! What this CPU can do at most: multiply-adds in registers, and reading and copying memory.
//!
//! The profiler holds kernels against these numbers. They are measured, not looked up: clocks, ports and the share of a
//! cache that a virtual machine gets are not in any register. Every function returns the best of many short runs, so a
//! disturbed machine gives a low number only if it is disturbed throughout.
#![cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "calls functions compiled for an instruction set"))]

use crate::par::Pool;
use crate::simd::Isa;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Chains of multiply-adds: more than latency times ports of any core this runs on.
const CHAINS: usize = 10;
/// Rounds of all chains in one timed run of a worker: about 50 microseconds.
const ROUNDS: usize = 20_000;
/// Floats of a cache line.
const LINE: usize = 16;

/// GFLOP/s of independent f32 multiply-adds of an instruction set, over all workers of a pool; of matrix tiles, of f32 in three
/// parts.
///
/// `None` if this CPU does not have the set. Takes about `span`.
pub fn multiply_add(isa: Isa, pool: &Pool, span: Duration) -> Option<f64> {
    if !Isa::detect().has(isa) {
        return None;
    }
    if isa == Isa::Amx {
        return tiles(pool, span).map(|rate| rate / 6.0);
    }
    let run: fn(usize) = match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `Isa::detect` found the instruction set above.
        Isa::Avx512 | Isa::Avx512Bf16 => |n| unsafe { x86::chains_avx512(n) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `Isa::detect` found the instruction set above.
        Isa::Avx2 => |n| unsafe { x86::chains_avx2(n) },
        Isa::Neon => chains_fused,
        _ => chains_plain,
    };
    let lanes = if isa.has(Isa::Avx512) { 16 } else { 8 };
    let seconds = best(span, || pool.tasks(pool.workers(), &mut [], |_, _| run(ROUNDS)));
    Some((pool.workers() * ROUNDS * CHAINS * lanes * 2) as f64 / seconds / 1e9)
}

/// GFLOP/s of products of bf16 on matrix tiles in first-level cache, over all workers of a pool.
///
/// `None` if this CPU or system has no tiles. Takes about `span`.
pub fn tiles(pool: &Pool, span: Duration) -> Option<f64> {
    /// Half a millisecond: power settles.
    const TILE_ROUNDS: usize = 2000;
    if !Isa::detect().has(Isa::Amx) {
        return None;
    }
    #[cfg(target_arch = "x86_64")]
    {
        use crate::ops::gemm::amx::{FLOPS, busy};
        let seconds = best(span, || {
            pool.tasks(pool.workers(), &mut [], |_, _| {
                // SAFETY: tiles were found above.
                unsafe { busy(TILE_ROUNDS) }
            });
        });
        Some((pool.workers() * TILE_ROUNDS * FLOPS) as f64 / seconds / 1e9)
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (pool, span, TILE_ROUNDS);
        None
    }
}

/// GB/s of reading `data` again and again, each worker its own part. Takes about `span`, or two passes if that is more.
pub fn read(data: &[f32], pool: &Pool, span: Duration) -> f64 {
    let data = &data[lines(data)..];
    let part = data.len().div_ceil(pool.workers()).next_multiple_of(LINE).max(LINE);
    let add = adder();
    // Short parts are read several times in a run, so that starting workers costs nothing.
    let passes = (1 << 20) / data.len().clamp(1, 1 << 20);
    let seconds = best(span, || {
        pool.tasks(pool.workers(), &mut [], |worker, _| {
            let mine = data.chunks(part).nth(worker).unwrap_or(&[]);
            (0..passes).for_each(|_| _ = black_box(add(black_box(mine))));
        });
    });
    (size_of_val(data) * passes) as f64 / seconds / 1e9
}

/// GB/s of copying half of `data` to the other half, bytes read and written counted. One worker.
pub fn copy(data: &mut [f32], span: Duration) -> f64 {
    let start = lines(data);
    let data = &mut data[start..];
    let passes = (1 << 20) / data.len().clamp(1, 1 << 20);
    let half = data.len() / 2 / LINE * LINE;
    let seconds = best(span, || {
        (0..passes).for_each(|_| {
            let (to, from) = black_box(&mut *data).split_at_mut(half);
            to.copy_from_slice(&from[..half]);
        });
    });
    (2 * half * size_of::<f32>() * passes) as f64 / seconds / 1e9
}

/// Reads a buffer once, which pushes out of the caches what was there.
pub fn sweep(data: &[f32]) {
    black_box(adder()(black_box(data)));
}

/// Where the first whole cache line begins: a vector across two lines costs two loads.
fn lines(data: &[f32]) -> usize {
    data.as_ptr().align_offset(LINE * size_of::<f32>()).min(data.len())
}

/// Least seconds of a run, over at least two runs and about `span`.
fn best(span: Duration, mut run: impl FnMut()) -> f64 {
    let begin = Instant::now();
    let mut least = f64::INFINITY;
    let mut runs = 0;
    while runs < 2 || begin.elapsed() < span {
        let start = Instant::now();
        run();
        least = least.min(start.elapsed().as_secs_f64());
        runs += 1;
    }
    least.max(1e-9)
}

/// The fastest way to read and add up floats.
fn adder() -> fn(&[f32]) -> f32 {
    #[cfg(target_arch = "x86_64")]
    match Isa::detect() {
        // SAFETY: the instruction set was detected in the line above.
        Isa::Avx512 | Isa::Avx512Bf16 | Isa::Amx => return |data| unsafe { x86::sum_avx512(data) },
        // SAFETY: the instruction set was detected above.
        Isa::Avx2 => return |data| unsafe { x86::sum_avx2(data) },
        _ => {}
    }
    sum::<64>
}

/// A sum in `N` lanes, whatever the compiler makes of it.
#[inline(always)]
fn sum<const N: usize>(data: &[f32]) -> f32 {
    let mut lanes = [0.0f32; N];
    for chunk in data.chunks_exact(N) {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += x;
        }
    }
    lanes.iter().sum()
}

/// Chains of fused multiply-adds in the vectors that the compiler picks.
#[inline(always)]
fn chains<const W: usize>(rounds: usize, step: impl Fn(f32, f32, f32) -> f32) {
    let mut sums = black_box([[1.0f32; W]; CHAINS]);
    let (a, b) = black_box(([0.5f32; W], [0.5f32; W]));
    for _ in 0..rounds {
        for chain in &mut sums {
            for j in 0..W {
                chain[j] = step(chain[j], a[j], b[j]);
            }
        }
    }
    black_box(sums);
}

fn chains_fused(rounds: usize) {
    chains::<8>(rounds, f32::mul_add);
}

/// Products and sums apart: without an instruction set `mul_add` is a function call.
fn chains_plain(rounds: usize) {
    chains::<8>(rounds, |x, a, b| x * a + b);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{CHAINS, black_box};
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx512f")]
    pub(super) fn chains_avx512(rounds: usize) {
        let mut sums = [_mm512_set1_ps(black_box(1.0)); CHAINS];
        let half = _mm512_set1_ps(black_box(0.5));
        for _ in 0..rounds {
            sums.iter_mut().for_each(|sum| *sum = _mm512_fmadd_ps(*sum, half, half));
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn chains_avx2(rounds: usize) {
        let mut sums = [_mm256_set1_ps(black_box(1.0)); CHAINS];
        let half = _mm256_set1_ps(black_box(0.5));
        for _ in 0..rounds {
            sums.iter_mut().for_each(|sum| *sum = _mm256_fmadd_ps(*sum, half, half));
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn sum_avx512(data: &[f32]) -> f32 {
        let mut sums = [_mm512_setzero_ps(); 8];
        for chunk in data.as_chunks::<128>().0 {
            for (sum, part) in sums.iter_mut().zip(chunk.as_chunks::<16>().0) {
                // SAFETY: `part` is an array of 16 floats.
                *sum = _mm512_add_ps(*sum, unsafe { _mm512_loadu_ps(part.as_ptr()) });
            }
        }
        sums.into_iter().map(|sum| _mm512_reduce_add_ps(sum)).sum()
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn sum_avx2(data: &[f32]) -> f32 {
        let mut sums = [_mm256_setzero_ps(); 8];
        for chunk in data.as_chunks::<64>().0 {
            for (sum, part) in sums.iter_mut().zip(chunk.as_chunks::<8>().0) {
                // SAFETY: `part` is an array of 8 floats.
                *sum = _mm256_add_ps(*sum, unsafe { _mm256_loadu_ps(part.as_ptr()) });
            }
        }
        let mut lanes = [0.0f32; 8];
        for sum in sums {
            let mut part = [0.0f32; 8];
            // SAFETY: `part` is an array of 8 floats.
            unsafe { _mm256_storeu_ps(part.as_mut_ptr(), sum) };
            lanes.iter_mut().zip(part).for_each(|(lane, x)| *lane += x);
        }
        lanes.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_adder_adds_all() {
        let data: Vec<f32> = (0..1280).map(|i| (i % 7) as f32).collect();
        let expected: f32 = data.iter().sum();
        assert_eq!(adder()(&data), expected);
        assert_eq!(sum::<64>(&data), expected);
        #[cfg(target_arch = "x86_64")]
        if Isa::detect().has(Isa::Avx2) {
            // SAFETY: the instruction set was detected.
            assert_eq!(unsafe { x86::sum_avx2(&data) }, expected);
        }
    }

    #[test]
    fn rates_are_numbers() {
        let (pool, span) = (Pool::serial(), Duration::from_millis(1));
        let isa = Isa::detect();
        for set in Isa::ALL {
            let rate = multiply_add(set, &pool, span);
            assert_eq!(rate.is_some(), isa.has(set), "{set:?}");
            assert!(rate.is_none_or(|r| r.is_finite() && r > 0.0), "{set:?}: {rate:?}");
        }
        let mut data = vec![1.0; 4096];
        for rate in [read(&data, &pool, span), copy(&mut data, span), read(&[], &pool, span)] {
            assert!(rate.is_finite() && rate >= 0.0);
        }
    }
}
