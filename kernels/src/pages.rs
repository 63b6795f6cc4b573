//! Large pages for large buffers.
//!
//! The rows that a tile of a product touches lie a page or more apart, and a weight of many megabytes has more pages than a
//! core can look up quickly. With large pages both cost almost nothing; systems that do not give them unasked are asked.
#![cfg_attr(
    all(target_os = "linux", not(miri)),
    expect(unsafe_code, reason = "tells the system how memory will be used")
)]

use std::mem::MaybeUninit;

/// Bytes of a large page: 2 MiB on x86-64, and on aarch64 with pages of 4 KiB.
const LARGE: usize = 2 << 20;

/// Asks for large pages behind memory that nothing was written to yet; afterwards the request would come too late.
///
/// True if the system took the request, which is a hint: contents and results are the same either way. Buffers without
/// a whole large page are left alone.
pub fn ask_for_large<T>(fresh: &mut [MaybeUninit<T>]) -> bool {
    let range = fresh.as_mut_ptr_range();
    let (start, end) = (range.start.addr().next_multiple_of(LARGE), range.end.addr() / LARGE * LARGE);
    start < end && hint(range.start.wrapping_byte_add(start - range.start.addr()).cast(), end - start)
}

/// A copy that begins at a cache line, in large pages if the system has some: the elements, and how many come before it.
pub fn copied<T: Copy>(values: &[T]) -> (Vec<T>, usize) {
    const LINE: usize = 64;
    let Some(first) = values.first().filter(|_| size_of::<T>() > 0) else { return (values.to_vec(), 0) };
    let mut all: Vec<T> = Vec::with_capacity(values.len() + LINE / size_of::<T>());
    ask_for_large(all.spare_capacity_mut());
    let before = all.as_ptr().align_offset(LINE).min(LINE / size_of::<T>());
    all.resize(before, *first);
    all.extend_from_slice(values);
    (all, before)
}

#[cfg(all(target_os = "linux", not(miri)))]
fn hint(start: *mut std::ffi::c_void, bytes: usize) -> bool {
    use std::ffi::{c_int, c_void};
    unsafe extern "C" {
        fn madvise(start: *mut c_void, bytes: usize, advice: c_int) -> c_int;
    }
    const MADV_HUGEPAGE: c_int = 14;
    // SAFETY: the range is whole pages inside a slice that the caller borrows exclusively; this advice changes no content.
    unsafe { madvise(start, bytes, MADV_HUGEPAGE) == 0 }
}

#[cfg(not(all(target_os = "linux", not(miri))))]
fn hint(_: *mut std::ffi::c_void, _: usize) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_those_asked_for() {
        for len in [0, 1, 1000, 3 * LARGE / 4] {
            let counted: Vec<u32> = (0..len as u32).collect();
            let (copy, before) = copied(&counted);
            assert_eq!(copy[before..], counted);
            assert!(counted.is_empty() || copy[before..].as_ptr().addr().is_multiple_of(64), "{len} at a line");
        }
    }

    #[test]
    fn large_buffers_alone_are_asked_for() {
        let mut small: Vec<u8> = Vec::with_capacity(LARGE - 1);
        assert!(!ask_for_large(&mut small.spare_capacity_mut()[..LARGE - 1]));
        let mut large: Vec<u8> = Vec::with_capacity(2 * LARGE);
        // A system may refuse; elsewhere nothing is asked.
        assert!(!ask_for_large(large.spare_capacity_mut()) || cfg!(target_os = "linux"));
    }
}
