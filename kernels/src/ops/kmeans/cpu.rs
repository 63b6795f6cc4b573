//! CPU code.
//!
//! ```text
//! op      kmeans                 k centres of the selected x: exact optimum, or Lloyd from init
//! args    x f32[n]  select bits[n]?  init f32[k]?  ->  center f32[k]  code u8[n]  inertia f32[1]  used u32[1]
//! layout  vectors
//! launch  one thread
//! order   values ascending; sums in f64; inertia in the order of x
//! tol     twice the error of the plain f32 loop against f64, plus 1e-6
//! cost    sort n log n; optimum k n log n split costs, twice; Lloyd k log k log n a round
//! source  optimum: dynamic program over sorted values (Wang & Song 2011), each layer by divide and conquer over the
//!         monotone split points (Gronlund et al. 2017), cuts recovered in O(n) memory as in Hirschberg 1975
//! ```

use super::ROUNDS;
use crate::contract::{Dims, Scratch};
use crate::operand::{BitMat, Call};

/// f64 lanes of the workspace per value: weight, sum, sum of squares, two layers of costs.
const WIDE: usize = 5;
/// u32 lanes of the workspace per value: the value, two layers of cuts.
const NARROW: usize = 3;

/// The lanes above, three vectors of length k, and room to align f64.
pub(super) fn scratch(d: &Dims) -> Scratch {
    let (n, k) = (d.size('n') + 1, d.size('k') + 1);
    Scratch { shared: (2 * WIDE + NARROW) * n + 5 * k + 2, worker: 0 }
}

/// The workspace of one call.
pub(super) struct Lanes<'a> {
    /// Keys of the values.
    pub(super) values: &'a mut [u32],
    /// Weights, sums and sums of squares.
    sums: [&'a mut [f64]; 3],
    /// Two layers of costs, and of cuts.
    pub(super) costs: [&'a mut [f64]; 2],
    pub(super) cuts: [&'a mut [u32]; 2],
    /// First value of each run, and one past the last run.
    pub(super) starts: &'a mut [u32],
    /// Centres before they are rounded.
    pub(super) exact: &'a mut [f64],
}

impl<'a> Lanes<'a> {
    pub(super) fn of(shared: &'a mut [f32], n: usize, k: usize) -> Lanes<'a> {
        let lanes = n + 1;
        let (narrow, wide) = shared.split_at_mut(NARROW * lanes + k + 1);
        let (values, narrow) = bytemuck::cast_slice_mut(narrow).split_at_mut(lanes);
        let (starts, cuts) = narrow.split_at_mut(k + 1);
        let (cut_a, cut_b) = cuts.split_at_mut(lanes);
        let (_, wide, _) = bytemuck::pod_align_to_mut::<f32, f64>(wide);
        let (weights, wide) = wide.split_at_mut(lanes);
        let (firsts, wide) = wide.split_at_mut(lanes);
        let (squares, wide) = wide.split_at_mut(lanes);
        let (cost_a, wide) = wide.split_at_mut(lanes);
        let (cost_b, wide) = wide.split_at_mut(lanes);
        Lanes {
            values,
            sums: [weights, firsts, squares],
            costs: [cost_a, cost_b],
            cuts: [cut_a, cut_b],
            starts,
            exact: &mut wide[..k],
        }
    }
}

pub(super) fn kmeans(c: &mut Call<'_>) {
    let (x, select, init) = (c.f32(0).data, c.bits_opt(1), c.f32_opt(2));
    let (center, code, inertia, used) = (c.f32_mut(3).data, c.u8_mut(4).data, c.f32_mut(5).data, c.u32_mut(6).data);
    let mut lanes = Lanes::of(c.shared, x.len(), center.len());
    let chosen = collect(x, select, lanes.values);
    // An integer sort of keys in value order: in place, and total.
    lanes.values[..chosen].sort_unstable();
    used[0] = centres(&mut lanes, chosen, init.map(|init| init.data), center, cut);
    inertia[0] = assign(x, select, center, code) as f32;
}

/// Cuts values `starts[0]..starts[k]` into `k` runs of least cost; two layers of workspace. See [`cut`].
pub(super) type Cut = fn(&Sorted<'_>, usize, &mut [u32], &mut [&mut [f64]; 2], &mut [&mut [u32]; 2]);

/// Sets centres from `chosen` sorted keys; how many there are. `cut` finds the optimum.
pub(super) fn centres(lanes: &mut Lanes<'_>, chosen: usize, init: Option<&[f32]>, center: &mut [f32], cut: Cut) -> u32 {
    let Lanes { values, sums: [weights, firsts, squares], costs, cuts, starts, exact } = lanes;
    let values = &mut values[..chosen];
    let distinct = merge(values, weights);
    let data = Sorted::new(&values[..distinct], weights, firsts, squares);
    let used = center.len().min(distinct);
    if distinct == 0 {
        center.fill(0.0);
    } else if let Some(init) = init {
        lloyd(&data, init, exact, starts);
        center.iter_mut().zip(&**exact).for_each(|(to, c)| *to = *c as f32);
    } else {
        starts[0] = 0;
        starts[used] = distinct as u32;
        cut(&data, 0, &mut starts[..=used], costs, cuts);
        for j in 0..used {
            center[j] = data.mean(starts[j] as usize, starts[j + 1] as usize) as f32;
        }
        let last = center[used - 1];
        center[used..].fill(last);
    }
    used as u32
}

/// Keys whose integer order is the order of finite floats; both zeros are one value.
pub(super) fn key(x: f32) -> u32 {
    let bits = (x + 0.0).to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

pub(super) fn value(key: u32) -> f64 {
    f64::from(f32::from_bits(if key >> 31 == 1 { key & !(1 << 31) } else { !key }))
}

pub(super) fn is_selected(select: Option<BitMat<'_>>, at: usize) -> bool {
    select.is_none_or(|bits| bits.get(0, at))
}

/// Keys of the selected finite values; how many there are.
fn collect(x: &[f32], select: Option<BitMat<'_>>, keys: &mut [u32]) -> usize {
    let mut chosen = 0;
    for (at, x) in x.iter().enumerate() {
        if is_selected(select, at) && x.is_finite() {
            keys[chosen] = key(*x);
            chosen += 1;
        }
    }
    chosen
}

/// Moves the distinct keys to the front, each with its count; how many there are.
fn merge(keys: &mut [u32], weights: &mut [f64]) -> usize {
    let mut distinct = 0;
    for at in 0..keys.len() {
        if at > 0 && keys[at] == keys[distinct - 1] {
            weights[distinct - 1] += 1.0;
        } else {
            keys[distinct] = keys[at];
            weights[distinct] = 1.0;
            distinct += 1;
        }
    }
    distinct
}

/// Distinct values ascending, with sums over the first `i` of them. Values are counted from one in the middle: a common
/// offset would eat the digits of the squares.
pub(super) struct Sorted<'a> {
    pub(super) keys: &'a [u32],
    shift: f64,
    weights: &'a [f64],
    sums: &'a [f64],
    squares: &'a [f64],
}

impl<'a> Sorted<'a> {
    /// `weights[i]` is the count of value `i` at the start, the count of the first `i` values at the end.
    fn new(keys: &'a [u32], weights: &'a mut [f64], sums: &'a mut [f64], squares: &'a mut [f64]) -> Sorted<'a> {
        let shift = keys.get(keys.len() / 2).map_or(0.0, |key| value(*key));
        let (mut weight, mut sum, mut square) = (0.0, 0.0, 0.0);
        for (at, key) in keys.iter().enumerate() {
            let (w, v) = (weights[at], value(*key) - shift);
            (weights[at], sums[at], squares[at]) = (weight, sum, square);
            (weight, sum, square) = (weight + w, sum + w * v, square + w * v * v);
        }
        let n = keys.len();
        (weights[n], sums[n], squares[n]) = (weight, sum, square);
        Sorted { keys, shift, weights: &weights[..=n], sums: &sums[..=n], squares: &squares[..=n] }
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Sum of squares of all values, counted from one in the middle: what the digits of a cost are lost against.
    pub(super) fn spread(&self) -> f64 {
        self.squares[self.len()]
    }

    /// Squared distances of values `a..b` to their mean.
    #[inline(always)]
    pub(super) fn cost(&self, a: usize, b: usize) -> f64 {
        if b - a == 1 {
            return 0.0;
        }
        let sum = self.sums[b] - self.sums[a];
        // Rounding may go below zero.
        (self.squares[b] - self.squares[a] - sum * sum / (self.weights[b] - self.weights[a])).max(0.0)
    }

    /// The same; 0 for no values.
    pub(super) fn cost_or_none(&self, a: usize, b: usize) -> f64 {
        if a == b { 0.0 } else { self.cost(a, b) }
    }

    /// Number of values `a..b`, equal ones counted.
    pub(super) fn weight(&self, a: usize, b: usize) -> f64 {
        self.weights[b] - self.weights[a]
    }

    /// The mean less [`Sorted::shift`], with the digits of the prefix sums.
    pub(super) fn rough_mean(&self, a: usize, b: usize) -> f64 {
        (self.sums[b] - self.sums[a]) / self.weight(a, b)
    }

    pub(super) fn mean(&self, a: usize, b: usize) -> f64 {
        if b - a == 1 {
            return value(self.keys[a]);
        }
        // Summed afresh: the difference of long prefix sums has fewer digits.
        let terms = (a..b).map(|i| (self.weights[i + 1] - self.weights[i]) * (value(self.keys[i]) - self.shift));
        self.shift + terms.sum::<f64>() / (self.weights[b] - self.weights[a])
    }
}

/// Cuts values `starts[0]..starts[k]` into `k = starts.len() - 1` runs of least cost; `first` is `starts[0]`.
///
/// Layer `j` holds the least cost of the first `i` values in `j` runs. Only two layers are kept; behind the middle one
/// each state carries the cut at which its middle run ends, and both halves are cut again on their own.
pub(super) fn cut(
    data: &Sorted<'_>,
    first: usize,
    starts: &mut [u32],
    costs: &mut [&mut [f64]; 2],
    cuts: &mut [&mut [u32]; 2],
) {
    let k = starts.len() - 1;
    let n = starts[k] as usize - first;
    if k == 1 {
        return;
    }
    if k == n {
        (0..k).for_each(|j| starts[j] = (first + j) as u32);
        return;
    }
    let middle = k / 2;
    for (i, cost) in costs[0][..=n].iter_mut().enumerate().skip(1) {
        *cost = data.cost(first, first + i);
    }
    for runs in 2..=k {
        let [from, to] = &mut *costs;
        let [cut_from, cut_to] = &mut *cuts;
        let layer = Layer { data, first, runs, from, carried: (runs > middle + 1).then_some(&**cut_from) };
        // The last layer is asked for all values only.
        let rows = if runs == k { n..n + 1 } else { runs..n - (k - runs) + 1 };
        layer.fill(rows, (runs - 1, n - 1), to, cut_to);
        costs.swap(0, 1);
        cuts.swap(0, 1);
    }
    let at = first + cuts[0][n] as usize;
    starts[middle] = at as u32;
    cut(data, first, &mut starts[..=middle], costs, cuts);
    cut(data, at, &mut starts[middle..], costs, cuts);
}

/// One step of the dynamic program.
struct Layer<'a> {
    data: &'a Sorted<'a>,
    first: usize,
    runs: usize,
    from: &'a [f64],
    carried: Option<&'a [u32]>,
}

impl Layer<'_> {
    /// `to[i] = min over cuts of from[cut] + cost(cut, i)` for the rows `i`, the leftmost cut on ties. The best cut never
    /// moves left as `i` grows, so the middle row halves the range for both sides.
    fn fill(&self, rows: std::ops::Range<usize>, (low, high): (usize, usize), to: &mut [f64], cut_to: &mut [u32]) {
        if rows.is_empty() {
            return;
        }
        let i = rows.start + rows.len() / 2;
        let (least, best) = self.best(i, low.max(self.runs - 1), high.min(i - 1));
        to[i] = least;
        cut_to[i] = self.carried.map_or(best as u32, |carried| carried[best]);
        self.fill(rows.start..i, (low, best), to, cut_to);
        self.fill(i + 1..rows.end, (best, high), to, cut_to);
    }

    /// The least total for row `i` over cuts `low..=high`, and the leftmost cut that has it.
    fn best(&self, i: usize, low: usize, high: usize) -> (f64, usize) {
        let Sorted { weights, sums, squares, .. } = self.data;
        let (end, cuts) = (self.first + i, self.first + low..self.first + high + 1);
        let (weight, sum, square) = (weights[end], sums[end], squares[end]);
        let prefixes = weights[cuts.clone()].iter().zip(&sums[cuts.clone()]).zip(&squares[cuts]);
        let (mut least, mut best) = (f64::INFINITY, low);
        for (at, (from, ((w, s), q))) in self.from[low..=high].iter().zip(prefixes).enumerate() {
            let gap = sum - s;
            let total = from + (square - q - gap * gap / (weight - w)).max(0.0);
            if total < least {
                (least, best) = (total, low + at);
            }
        }
        (least, best)
    }
}

/// Rounds of "nearest centre, then mean" until the centres stay. Clusters are runs of the sorted values.
fn lloyd(data: &Sorted<'_>, init: &[f32], center: &mut [f64], starts: &mut [u32]) {
    let k = center.len();
    center.iter_mut().zip(init).for_each(|(c, init)| *c = if init.is_finite() { f64::from(*init) } else { 0.0 });
    center.sort_unstable_by(f64::total_cmp);
    for _ in 0..ROUNDS {
        let mut start = 0;
        for (j, at) in starts[..k].iter_mut().enumerate() {
            *at = start as u32;
            start += data.keys[start..].partition_point(|key| nearest(center, value(*key)) <= j);
        }
        starts[k] = data.len() as u32;
        let mut moved = false;
        for j in 0..k {
            let (a, b) = (starts[j] as usize, starts[j + 1] as usize);
            if a < b {
                let mean = data.mean(a, b);
                moved |= mean != center[j];
                center[j] = mean;
            }
        }
        if !moved {
            break;
        }
        // The cell of one of two equal centres can reach past the other.
        center.sort_unstable_by(f64::total_cmp);
    }
}

/// The nearest of ascending centres, the lowest on ties.
pub(super) fn nearest<T: Copy + PartialOrd + Into<f64>>(center: &[T], x: f64) -> usize {
    let above = center.partition_point(|c| (*c).into() < x);
    if above == 0 {
        return 0;
    }
    let below = center[above - 1];
    if above < center.len() && center[above].into() - x < x - below.into() {
        return above;
    }
    // Equal centres: the first.
    center[..above].partition_point(|c| *c < below)
}

/// Writes the codes; the inertia.
fn assign(x: &[f32], select: Option<BitMat<'_>>, center: &[f32], code: &mut [u8]) -> f64 {
    let mut inertia = 0.0;
    for (at, (x, code)) in x.iter().zip(code).enumerate() {
        *code = 0;
        if !is_selected(select, at) {
            continue;
        }
        if !x.is_finite() {
            inertia = f64::NAN;
            continue;
        }
        let x = f64::from(*x);
        let best = nearest(center, x);
        *code = best as u8;
        inertia += (x - f64::from(center[best])).powi(2);
    }
    inertia
}
