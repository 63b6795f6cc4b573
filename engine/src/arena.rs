//! From lifetimes to offsets: a pure function.

/// A range that must exist during calls `first ..= last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// First call that needs it.
    pub(crate) first: usize,
    /// Last call that needs it.
    pub(crate) last: usize,
    /// Size.
    pub(crate) bytes: usize,
}

/// Offset alignment: WebGPU's for storage buffers, and more than any SIMD load needs.
pub(crate) const ALIGN: usize = 256;

/// Offsets of all spans and the size of the arena. Spans alive at the same time never overlap, and none crosses a
/// multiple of `chunk` (a multiple of [`ALIGN`], at least as long as every span): there the arena may be cut.
///
/// Largest first, each at the lowest offset that is free during its whole life.
pub(crate) fn place(spans: &[Span], chunk: usize) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..spans.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(spans[i].bytes), spans[i].first, i));
    let mut offsets = vec![0; spans.len()];
    let mut placed: Vec<usize> = Vec::new();
    let mut total = 0;
    for i in order {
        let span = spans[i];
        if span.bytes == 0 {
            continue;
        }
        // Ranges taken at some time of this span's life, in offset order: the first gap that fits is the place.
        let mut taken: Vec<(usize, usize)> = placed
            .iter()
            .filter(|&&j| spans[j].first <= span.last && span.first <= spans[j].last)
            .map(|&j| (offsets[j], offsets[j] + spans[j].bytes))
            .collect();
        taken.sort_unstable();
        let mut at = 0;
        for (begin, end) in taken {
            at = within_chunk(at, span.bytes, chunk);
            if at + span.bytes <= begin {
                break;
            }
            at = at.max(end.next_multiple_of(ALIGN));
        }
        at = within_chunk(at, span.bytes, chunk);
        offsets[i] = at;
        total = total.max(at + span.bytes);
        placed.push(i);
    }
    (offsets, total.next_multiple_of(ALIGN))
}

/// The first offset from `at` on at which `bytes` do not cross a multiple of `chunk`.
pub(crate) fn within_chunk(at: usize, bytes: usize, chunk: usize) -> usize {
    match at % chunk + bytes <= chunk {
        true => at,
        false => at.next_multiple_of(chunk),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn span() -> impl Strategy<Value = Span> {
        (0usize..30, 0usize..10, 0usize..5000).prop_map(|(first, life, bytes)| Span {
            first,
            last: first + life,
            bytes,
        })
    }

    proptest! {
        #[test]
        fn living_spans_never_overlap(spans in proptest::collection::vec(span(), 0..60), chunks in 20usize..400) {
            let chunk = if chunks < 100 { chunks * ALIGN } else { usize::MAX / ALIGN * ALIGN };
            let (offsets, total) = place(&spans, chunk);
            for (i, a) in spans.iter().enumerate() {
                prop_assert!(offsets[i] % ALIGN == 0 && offsets[i] + a.bytes <= total);
                prop_assert!(a.bytes == 0 || offsets[i] / chunk == (offsets[i] + a.bytes - 1) / chunk);
                for (j, b) in spans.iter().enumerate().skip(i + 1) {
                    let together = a.first <= b.last && b.first <= a.last;
                    let apart = offsets[i] + a.bytes <= offsets[j] || offsets[j] + b.bytes <= offsets[i];
                    prop_assert!(!together || apart || a.bytes == 0 || b.bytes == 0);
                }
            }
        }
    }

    #[test]
    fn memory_is_used_again() {
        let spans = [0, 2, 4].map(|first| Span { first, last: first + 1, bytes: 1000 });
        assert_eq!(place(&spans, usize::MAX / ALIGN * ALIGN).1, 1024);
    }
}
