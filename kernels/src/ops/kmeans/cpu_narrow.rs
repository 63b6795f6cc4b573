//! The optimum from a few candidates for every cut.
//!
//! ```text
//! sort    radix, three digits of 11 bits
//! blocks  a few dozen blocks of values per cluster: the least cost of cutting at their edges, through every edge
//! narrow  an edge stays if its cost is within `room` of the best; blocks beside no such edge are dropped
//! refine  the blocks left are cut finer, until they are single values: then the least cost is the optimum
//! codes   compared with k - 1 thresholds, many values at a time
//! ```
//!
//! Why no cut of the optimum is dropped. Let a cut fall inside block X, with centres `c < d` beside it. Moving the cut to
//! one edge of X moves the values on one side of it to the other centre. The worst case is a cut at the mean of X, and
//! costs `(d - c) * sum |x - mean X|`, at most `(d - c) * sqrt(weight * cost)` of X by Cauchy and Schwarz. Over all cuts
//! these add up, since the moves do not depend on each other and better centres only help. So some way to cut at edges
//! next to the optimal cuts costs at most the optimum plus that sum, and the best edges cost no less than the optimum.
//! `d - c` is bounded by the candidates left, and the sum shrinks with the square of the size of the blocks.
//!
//! If too many candidates are left (many centres, or optima far apart), the dynamic program over all values decides.

use super::cpu::{Lanes, Sorted, centres, cut, is_selected, key, nearest, value};
use crate::operand::{BitMat, Call};

/// Bits of a digit of the sort; three make a key.
const DIGIT: u32 = 11;
/// Blocks per cluster at first, half of them by rank and half by value: ranks are coarse in the tails.
const BLOCKS: usize = 16;
/// Candidates of one cut after a refinement, if that many are needed.
const WANTED: usize = 48;
/// Below this many distinct values the dynamic program is as fast.
const FEW: usize = 512;

pub(super) fn kmeans(c: &mut Call<'_>) {
    let (x, select, init) = (c.f32(0).data, c.bits_opt(1), c.f32_opt(2));
    let (center, code, inertia, used) = (c.f32_mut(3).data, c.u8_mut(4).data, c.f32_mut(5).data, c.u32_mut(6).data);
    let mut lanes = Lanes::of(c.shared, x.len(), center.len());
    let chosen = sorted_keys(x, select, lanes.values, lanes.cuts[0]);
    used[0] = centres(&mut lanes, chosen, init.map(|init| init.data), center, narrow);
    inertia[0] = assign(x, select, center, code) as f32;
}

/// Keys of the selected finite values, ascending; how many there are. `other` is workspace of the same length.
fn sorted_keys(x: &[f32], select: Option<BitMat<'_>>, keys: &mut [u32], other: &mut [u32]) -> usize {
    let mut counts = [[0u32; 1 << DIGIT]; 3];
    let digit = |key: u32, nth: usize| (key >> (DIGIT * nth as u32)) as usize % (1 << DIGIT);
    let mut chosen = 0;
    for (at, x) in x.iter().enumerate() {
        if is_selected(select, at) && x.is_finite() {
            let key = key(*x);
            other[chosen] = key;
            chosen += 1;
            (0..3).for_each(|nth| counts[nth][digit(key, nth)] += 1);
        }
    }
    let (mut from, mut to) = (other, keys);
    for (nth, counts) in counts.iter_mut().enumerate() {
        let mut start = 0;
        for count in counts.iter_mut() {
            start += std::mem::replace(count, start);
        }
        for key in &from[..chosen] {
            let place = &mut counts[digit(*key, nth)];
            to[*place as usize] = *key;
            *place += 1;
        }
        std::mem::swap(&mut from, &mut to);
    }
    chosen
}

/// An edge is a number of values to its left, times 2, plus 1 if the cut may lie in the block that it ends.
fn at(edge: u32) -> usize {
    (edge >> 1) as usize
}

/// A [`super::cpu::Cut`].
fn narrow(
    data: &Sorted<'_>,
    first: usize,
    starts: &mut [u32],
    costs: &mut [&mut [f64]; 2],
    cuts: &mut [&mut [u32]; 2],
) {
    let (k, n) = (starts.len() - 1, data.len());
    // Candidates of one cut at most: all cuts together fit into a layer of workspace.
    let most = n / k;
    if k > 1 && n >= FEW && most > BLOCKS * k {
        let ([before, after], [edges, spare]) = (&mut *costs, &mut *cuts);
        let mut rows = Rows { most, count: [0; super::MOST], before, after, edges };
        if rows.search(data, k, spare) {
            return rows.trace(data, starts);
        }
    }
    cut(data, first, starts, costs, cuts);
}

/// Candidates of every cut, and the costs of the best way through each of them. Row `j` is cut `j`, `0 < j < k`; it has
/// `count[j]` entries from `j * most` on.
struct Rows<'a> {
    most: usize,
    count: [usize; super::MOST],
    before: &'a mut [f64],
    after: &'a mut [f64],
    edges: &'a mut [u32],
}

impl Rows<'_> {
    fn edges(&self, j: usize) -> &[u32] {
        &self.edges[j * self.most..][..self.count[j]]
    }

    /// Narrows until every block that is left is one value, and fills `before`; false if that does not succeed.
    fn search(&mut self, data: &Sorted<'_>, k: usize, spare: &mut [u32]) -> bool {
        self.start(data, k, spare);
        loop {
            self.costs_before(data, k);
            let widest = (1..k).flat_map(|j| self.edges(j).windows(2)).filter(|w| w[1] & 1 == 1);
            if widest.map(|w| at(w[1]) - at(w[0])).max().unwrap_or(0) <= 1 {
                return true;
            }
            self.costs_after(data, k);
            self.drop_edges(data, k);
            if !self.refine(k, spare) {
                return false;
            }
        }
    }

    /// The same edges for every cut: some evenly spaced by rank, some by value.
    fn start(&mut self, data: &Sorted<'_>, k: usize, spare: &mut [u32]) {
        let (n, each) = (data.len(), BLOCKS * k / 2);
        let (low, high) = (value(data.keys[0]), value(data.keys[n - 1]));
        for i in 0..each {
            let share = i as f64 / each as f64;
            let limit = low + share * (high - low);
            spare[2 * i] = (n * i / each) as u32;
            spare[2 * i + 1] = data.keys.partition_point(|key| value(*key) < limit) as u32;
        }
        let all = &mut spare[..2 * each + 1];
        all[2 * each] = n as u32;
        all.sort_unstable();
        let mut count = 0;
        for i in 0..all.len() {
            if i == 0 || all[i] != all[i - 1] {
                self.edges[self.most + count] = all[i] << 1 | u32::from(i > 0);
                count += 1;
            }
        }
        self.count[1..k].fill(count);
        for j in 2..k {
            self.edges.copy_within(self.most..self.most + count, j * self.most);
        }
    }

    /// `before[j][e]`: least cost of the values up to edge `e` in `j` runs, which may be empty.
    fn costs_before(&mut self, data: &Sorted<'_>, k: usize) {
        let most = self.most;
        for e in 0..self.count[1] {
            self.before[most + e] = data.cost_or_none(0, at(self.edges[most + e]));
        }
        for j in 2..k {
            let (done, row) = self.before.split_at_mut(j * most);
            let (from, from_edges) = (&done[(j - 1) * most..][..self.count[j - 1]], &self.edges[(j - 1) * most..]);
            let edges = &self.edges[j * most..];
            let total = |e: usize, c: usize| match (at(from_edges[c]), at(edges[e])) {
                (a, b) if a <= b => from[c] + data.cost_or_none(a, b),
                _ => f64::INFINITY,
            };
            least(&mut row[..self.count[j]], 0, (0, from.len() - 1), &total);
        }
    }

    /// `after[j][e]`: least cost of the values behind edge `e` in `k - j` runs, which may be empty.
    fn costs_after(&mut self, data: &Sorted<'_>, k: usize) {
        let (most, n) = (self.most, data.len());
        for e in 0..self.count[k - 1] {
            self.after[(k - 1) * most + e] = data.cost_or_none(at(self.edges[(k - 1) * most + e]), n);
        }
        for j in (1..k - 1).rev() {
            let (row, done) = self.after.split_at_mut((j + 1) * most);
            let (from, from_edges) = (&done[..self.count[j + 1]], &self.edges[(j + 1) * most..]);
            let edges = &self.edges[j * most..];
            let total = |e: usize, c: usize| match (at(edges[e]), at(from_edges[c])) {
                (a, b) if a <= b => data.cost_or_none(a, b) + from[c],
                _ => f64::INFINITY,
            };
            least(&mut row[j * most..][..self.count[j]], 0, (0, from.len() - 1), &total);
        }
    }

    /// Drops the edges that are too dear, and marks the blocks that may hold a cut.
    fn drop_edges(&mut self, data: &Sorted<'_>, k: usize) {
        let most = self.most;
        let best =
            (0..self.count[1]).map(|e| self.before[most + e] + self.after[most + e]).fold(f64::INFINITY, f64::min);
        // A smaller bound moves the outermost candidates, which bound the distance of centres: twice is enough.
        for _ in 0..2 {
            // Rounding of costs is far below this share of the squares.
            let limit = best + self.room(data, k) + 1e-11 * data.spread();
            for j in 1..k {
                let row = j * most;
                let stays: &dyn Fn(&Self, usize) -> bool = &|s, e| s.before[row + e] + s.after[row + e] <= limit;
                let (mut kept, mut left) = (0, None);
                for e in 0..self.count[j] {
                    let stay = stays(self, e);
                    // The right end of a block stays with its left end.
                    let open = self.edges[row + e] & 1 == 1;
                    let beside = open && left == Some(true);
                    let ahead = e + 1 < self.count[j] && self.edges[row + e + 1] & 1 == 1 && stays(self, e + 1);
                    if stay || beside || ahead {
                        let live = open && (stay || beside);
                        let edge = at(self.edges[row + e]) as u32;
                        (self.before[row + kept], self.after[row + kept]) = (self.before[row + e], self.after[row + e]);
                        self.edges[row + kept] = edge << 1 | u32::from(live);
                        kept += 1;
                    }
                    left = Some(stay);
                }
                self.count[j] = kept;
            }
        }
    }

    /// Most that moving every cut of the optimum to an edge can cost.
    fn room(&self, data: &Sorted<'_>, k: usize) -> f64 {
        // Neither end of the values is a row.
        let ends = |j: usize| match (1..k).contains(&j).then(|| self.edges(j)) {
            None if j == 0 => (0, 0),
            None => (data.len(), data.len()),
            Some(edges) => (at(edges[0]), at(edges[edges.len() - 1])),
        };
        (1..k).fold(0.0, |sum, j| {
            let block = |w: &[u32]| data.weight(at(w[0]), at(w[1])) * data.cost(at(w[0]), at(w[1]));
            let blocks = self.edges(j).windows(2).filter(|w| w[1] & 1 == 1);
            let worst = blocks.map(block).fold(0.0, f64::max);
            let [(low_a, _), (low_b, high_b), (_, high_c)] = [ends(j - 1), ends(j), ends(j + 1)];
            // The mean of a run grows with both of its ends.
            let left = data.rough_mean(low_a, low_b.max(low_a + 1));
            let right = data.rough_mean(high_b.min(high_c - 1), high_c);
            sum + (right - left) * worst.sqrt()
        })
    }

    /// Cuts the marked blocks into equal parts; false if the candidates do not fit or nothing was gained.
    fn refine(&mut self, k: usize, spare: &mut [u32]) -> bool {
        for j in 1..k {
            let row = j * self.most;
            let live = self.edges(j).iter().filter(|e| *e & 1 == 1).count();
            let parts = (WANTED / live.max(1)).max(2);
            let mut count = 0;
            for e in 0..self.count[j] {
                let edge = self.edges[row + e];
                let from = if edge & 1 == 1 { at(self.edges[row + e - 1]) } else { at(edge) };
                let size = at(edge) - from;
                let parts = parts.min(size);
                if count + parts.max(1) > self.most {
                    return false;
                }
                for part in 1..=parts {
                    spare[count] = ((from + size * part / parts) as u32) << 1 | 1;
                    count += 1;
                }
                if size == 0 {
                    spare[count] = edge;
                    count += 1;
                }
            }
            self.edges[row..row + count].copy_from_slice(&spare[..count]);
            self.count[j] = count;
        }
        true
    }

    /// The best cuts, last first, the leftmost on ties.
    fn trace(&self, data: &Sorted<'_>, starts: &mut [u32]) {
        let k = starts.len() - 1;
        (starts[0], starts[k]) = (0, data.len() as u32);
        for j in (1..k).rev() {
            let end = starts[j + 1] as usize;
            let mut best = (f64::INFINITY, 0);
            for (edge, before) in self.edges(j).iter().zip(&self.before[j * self.most..]) {
                if at(*edge) < end {
                    let total = before + data.cost_or_none(at(*edge), end);
                    if total < best.0 {
                        best = (total, at(*edge));
                    }
                }
            }
            starts[j] = best.1 as u32;
        }
    }
}

/// `row[e]`: the least `total(first + e, c)` over `c` in `low..=high`. The best `c` never falls as `e` grows, so the
/// middle entry halves the range for both sides; infinite totals say nothing.
fn least(row: &mut [f64], first: usize, (low, high): (usize, usize), total: &impl Fn(usize, usize) -> f64) {
    if row.is_empty() {
        return;
    }
    let middle = row.len() / 2;
    let (mut lowest, mut best) = (f64::INFINITY, None);
    for c in low..=high {
        let total = total(first + middle, c);
        if total < lowest {
            (lowest, best) = (total, Some(c));
        }
    }
    row[middle] = lowest;
    let (left, right) = row.split_at_mut(middle);
    least(left, first, (low, best.unwrap_or(high)), total);
    least(&mut right[1..], first + middle + 1, (best.unwrap_or(low), high), total);
}

/// Values of one step of [`assign`].
const LANES: usize = 32;

/// Writes the codes; the inertia. Order of the sum: 4 partial sums over the positions modulo 4.
fn assign(x: &[f32], select: Option<BitMat<'_>>, center: &[f32], code: &mut [u8]) -> f64 {
    // The largest value of each code; what is above a threshold is above all before it.
    let mut thresholds = [f32::INFINITY; super::MOST];
    let count = center.len() - 1;
    for (j, threshold) in thresholds[..count].iter_mut().enumerate() {
        *threshold = last_of(center, j);
    }
    let (mut sums, mut finite) = ([0.0f64; 4], true);
    for (word, (x, code)) in x.chunks(LANES).zip(code.chunks_mut(LANES)).enumerate() {
        let open = select.map_or(u32::MAX, |bits| bits.words[word]);
        let mut lanes = [f32::NEG_INFINITY; LANES];
        for (l, (lane, x)) in lanes.iter_mut().zip(x).enumerate() {
            let selected = open >> l & 1 == 1;
            finite &= !selected || x.is_finite();
            *lane = if selected && x.is_finite() { *x } else { f32::NEG_INFINITY };
        }
        let mut codes = [0u32; LANES];
        for threshold in &thresholds[..count] {
            codes.iter_mut().zip(&lanes).for_each(|(code, x)| *code += u32::from(x > threshold));
        }
        for (l, (x, (to, code))) in lanes.iter().zip(code.iter_mut().zip(codes)).enumerate() {
            *to = code as u8;
            let gap = f64::from(*x) - f64::from(center[code as usize]);
            sums[l % 4] += if *x == f32::NEG_INFINITY { 0.0 } else { gap * gap };
        }
    }
    if finite { sums[0] + sums[1] + (sums[2] + sums[3]) } else { f64::NAN }
}

/// The largest finite value whose nearest centre is at most `j`; minus infinity if there is none.
fn last_of(center: &[f32], j: usize) -> f32 {
    let (mut low, mut high) = (key(f32::MIN), key(f32::MAX) + 1);
    // The nearest centre never falls as the value grows.
    while low < high {
        let middle = low + (high - low) / 2;
        if nearest(center, value(middle)) <= j { low = middle + 1 } else { high = middle }
    }
    if low == key(f32::MIN) { f32::NEG_INFINITY } else { value(low - 1) as f32 }
}
