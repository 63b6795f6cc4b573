// op      kmeans                 k centres of the selected x: exact optimum, or Lloyd from init; used = min(k,
//         distinct values)
// args    KmeansArgs
// layout  vectors; bits in 32-bit words, column j is bit j%32 of word j/32
// launch  one block of 256
// order   values ascending, sums in f64; inertia by thread, then over threads
// tol     twice the error of the plain f32 loop against f64, plus 1e-6
// cost    sort n log² n; optimum k n log n split costs; Lloyd k² log n a round; 4*(n*(k + 10) + 3*k) bytes of
//         workspace
// source  optimum: dynamic program over sorted values (Wang & Song 2011), each layer by divide and conquer over the
//         monotone split points (Gronlund et al. 2017)
#include "device.h"

#define THREADS 256u
// Not a value: above every key of a finite one.
#define NO_KEY 0xffffffffu

// The workspace: values ascending as keys, prefix sums and sums of squares of them less one in the middle, two layers
// of costs, the layers' cuts, first values of runs, centres.
struct Sorted {
    double *sums, *squares, *costs, *centres;
    unsigned *cuts, *starts, *keys;
    double middle;
    size_t pitch;  // of a layer
};

DEVICE unsigned padded(unsigned n) {
    unsigned size = 1u;
    while (size < n) size *= 2u;
    return size;
}

DEVICE Sorted sorted_of(const KmeansArgs& a) {
    Sorted s;
    s.pitch = (size_t)a.n + 1u;
    s.sums = (double*)a.work;
    s.squares = s.sums + s.pitch;
    s.costs = s.squares + s.pitch;
    s.centres = s.costs + 2u * s.pitch;
    s.cuts = (unsigned*)(s.centres + a.k);
    s.starts = s.cuts + a.k * s.pitch;
    s.keys = s.starts + a.k + 1u;
    s.middle = 0.0;
    return s;
}

DEVICE bool is_finite(float v) { return (__float_as_uint(v) & 0x7f800000u) != 0x7f800000u; }

DEVICE bool is_selected(const KmeansArgs& a, unsigned at) { return !a.select || bit_of(a.select, at); }

// Squared distances of values a..b to their mean.
DEVICE double cost_of(const Sorted& s, unsigned a, unsigned b) {
    if (s.keys[a] == s.keys[b - 1u]) return 0.0;
    double sum = s.sums[b] - s.sums[a];
    double cost = s.squares[b] - s.squares[a] - sum * sum / (double)(b - a);
    return cost < 0.0 ? 0.0 : cost;  // rounding may go below zero
}

DEVICE double mean_of(const Sorted& s, unsigned a, unsigned b) {
    if (s.keys[a] == s.keys[b - 1u]) return number_of(s.keys[a]);
    return s.middle + (s.sums[b] - s.sums[a]) / (double)(b - a);
}

// The nearest of k ascending centres, the lowest on ties.
template <class T>
DEVICE unsigned nearest(const T* centres, unsigned k, double v) {
    unsigned above = 0u, end = k;
    while (above < end) {
        unsigned half = (above + end) / 2u;
        if (centres[half] < v) {
            above = half + 1u;
        } else {
            end = half;
        }
    }
    if (above == 0u) return 0u;
    unsigned below = above - 1u;
    if (above < k && centres[above] - v < v - centres[below]) return above;
    while (below > 0u && !(centres[below - 1u] < centres[below])) below--;  // equal centres: the first
    return below;
}

// Sorts the keys by a network over a power of two of them.
DEVICE void sort(unsigned* keys, unsigned size) {
    for (unsigned width = 2; width <= size; width *= 2u) {
        for (unsigned span = width / 2u; span > 0u; span /= 2u) {
            for (unsigned at = threadIdx.x; at < size; at += THREADS) {
                unsigned other = at ^ span, a = keys[at], b = keys[other];
                if (other > at && (a > b) == ((at & width) == 0u)) {
                    keys[at] = b;
                    keys[other] = a;
                }
            }
            __syncthreads();
        }
    }
}

// Rounds of "nearest centre, then mean" until the centres stay. Clusters are runs of the sorted values.
DEVICE void lloyd(const KmeansArgs& a, const Sorted& s, unsigned n) {
    __shared__ bool moved;
    if (threadIdx.x == 0u) {
        for (unsigned j = 0; j < a.k; j++) {
            // Each goes to its place among those before it.
            double own = is_finite(a.init[j]) ? a.init[j] : 0.0;
            unsigned at = j;
            for (; at > 0u && own < s.centres[at - 1u]; at--) s.centres[at] = s.centres[at - 1u];
            s.centres[at] = own;
        }
    }
    __syncthreads();
    for (unsigned round = 0; round < 100u; round++) {
        for (unsigned j = threadIdx.x; j < a.k; j += THREADS) {
            // The first value that belongs to this centre or a higher one.
            unsigned first = 0u, end = n;
            while (first < end) {
                unsigned half = (first + end) / 2u;
                if (nearest(s.centres, a.k, number_of(s.keys[half])) < j) {
                    first = half + 1u;
                } else {
                    end = half;
                }
            }
            s.starts[j] = first;
        }
        __syncthreads();
        if (threadIdx.x == 0u) {
            moved = false;
            s.starts[a.k] = n;
            for (unsigned j = 0; j < a.k; j++) {
                double own = s.centres[j];
                if (s.starts[j] < s.starts[j + 1u]) {
                    own = mean_of(s, s.starts[j], s.starts[j + 1u]);
                    moved = moved || own != s.centres[j];
                }
                // The cell of one of two equal centres can reach past the other.
                unsigned at = j;
                for (; at > 0u && own < s.centres[at - 1u]; at--) s.centres[at] = s.centres[at - 1u];
                s.centres[at] = own;
            }
        }
        __syncthreads();
        bool again = moved;
        __syncthreads();
        if (!again) break;
    }
    for (unsigned j = threadIdx.x; j < a.k; j += THREADS) a.center[j] = (float)s.centres[j];
}

// Threads that look for one cut together, a power of two, when there are `rows` cuts to find.
DEVICE unsigned team_of(unsigned rows) {
    unsigned team = THREADS;
    while (team > 1u && team * rows > THREADS) team /= 2u;
    return team;
}

// Layer j holds the least cost of the first values in j + 1 runs, and where the last run starts.
DEVICE void optimum(const KmeansArgs& a, const Sorted& s, unsigned n, unsigned k) {
    __shared__ double partial[THREADS];
    __shared__ unsigned partial_cut[THREADS];
    for (unsigned at = threadIdx.x + 1u; at <= n; at += THREADS) {
        s.costs[at] = cost_of(s, 0u, at);
        s.cuts[at] = 0u;
    }
    __syncthreads();
    for (unsigned layer = 1; layer < k; layer++) {
        const double* from = s.costs + (layer - 1u) % 2u * s.pitch;
        double* to = s.costs + layer % 2u * s.pitch;
        unsigned* cuts = s.cuts + layer * s.pitch;
        // The last layer is asked for all values only.
        unsigned first = layer + 1u == k ? n : layer + 1u, rows = n - (k - 1u - layer) - first + 1u, step = 1u;
        // The best cut never moves left as values are added, so rows between two others need only look between their
        // cuts: every second row is halved again.
        while (step <= rows) step *= 2u;
        for (; step > 0u; step /= 2u) {
            unsigned odd = (rows / step + 1u) / 2u, team = team_of(odd);  // rows nth * step for odd nth
            for (unsigned row = 0; row < odd; row += THREADS / team) {
                unsigned nth = (2u * (row + threadIdx.x / team) + 1u) * step, at = first + nth - 1u;
                bool inside = row + threadIdx.x / team < odd;
                double least = 0.0;
                unsigned best = NO_KEY;
                if (inside) {
                    unsigned low = layer, high = at - 1u;
                    if (nth > step) low = cuts[at - step] > low ? cuts[at - step] : low;
                    if (nth + step <= rows) high = cuts[at + step] < high ? cuts[at + step] : high;
                    for (unsigned cut = low + threadIdx.x % team; cut <= high; cut += team) {
                        double total = from[cut] + cost_of(s, cut, at);
                        if (best == NO_KEY || total < least) {
                            least = total;
                            best = cut;
                        }
                    }
                }
                partial[threadIdx.x] = least;
                partial_cut[threadIdx.x] = best;
                __syncthreads();
                // The leftmost of the cheapest.
                if (inside && threadIdx.x % team == 0u) {
                    for (unsigned other = threadIdx.x + 1u; other < threadIdx.x + team; other++) {
                        if (partial_cut[other] == NO_KEY) continue;
                        bool tied = partial[other] == least && partial_cut[other] < best;
                        if (partial[other] < least || tied) {
                            least = partial[other];
                            best = partial_cut[other];
                        }
                    }
                    to[at] = least;
                    cuts[at] = best;
                }
                __syncthreads();
            }
        }
    }
    if (threadIdx.x == 0u) {
        unsigned end = n;
        for (unsigned j = k; j > 0u; j--) {
            unsigned start = s.cuts[(j - 1u) * s.pitch + end];
            a.center[j - 1u] = (float)mean_of(s, start, end);
            end = start;
        }
        for (unsigned j = k; j < a.k; j++) a.center[j] = a.center[k - 1u];
    }
}

KERNEL(256) kmeans_plain(KmeansArgs a) {
    __shared__ unsigned chosen, runs;
    __shared__ double shared[THREADS];
    Sorted s = sorted_of(a);
    unsigned size = padded(a.n);
    for (unsigned at = threadIdx.x; at < size; at += THREADS) {
        bool counts = at < a.n && is_selected(a, at) && is_finite(a.x[at]);
        s.keys[at] = counts ? ordered(a.x[at]) : NO_KEY;
    }
    __syncthreads();
    sort(s.keys, size);
    if (threadIdx.x == 0u) {
        unsigned n = 0u, distinct = 0u;
        for (; n < a.n && s.keys[n] != NO_KEY; n++) distinct += n == 0u || s.keys[n] != s.keys[n - 1u];
        s.middle = n > 0u ? number_of(s.keys[n / 2u]) : 0.0;
        double sum = 0.0, square = 0.0;
        for (unsigned at = 0; at <= n; at++) {
            s.sums[at] = sum;
            s.squares[at] = square;
            if (at == n) break;
            double v = number_of(s.keys[at]) - s.middle;
            sum += v;
            square += v * v;
        }
        chosen = n;
        runs = a.k < distinct ? a.k : distinct;
        a.used[0] = runs;
    }
    __syncthreads();
    unsigned n = chosen;
    if (n > 0u) s.middle = number_of(s.keys[n / 2u]);
    if (n == 0u) {
        for (unsigned j = threadIdx.x; j < a.k; j += THREADS) a.center[j] = 0.0f;
    } else if (a.init) {
        lloyd(a, s, n);
    } else {
        optimum(a, s, n, runs);
    }
    __syncthreads();
    double inertia = 0.0;
    for (unsigned at = threadIdx.x; at < a.n; at += THREADS) {
        unsigned own = 0u;
        if (is_selected(a, at)) {
            double v = a.x[at];
            if (is_finite(a.x[at])) own = nearest(a.center, a.k, v);
            // A value that is not finite is seen in the sum.
            double gap = is_finite(a.x[at]) ? v - a.center[own] : (double)__uint_as_float(0x7fc00000u);
            inertia += gap * gap;
        }
        a.code[at] = (unsigned char)own;
    }
    shared[threadIdx.x] = inertia;
    __syncthreads();
    if (threadIdx.x == 0u) {
        for (unsigned at = 1; at < THREADS; at++) inertia += shared[at];
        a.inertia[0] = (float)inertia;
    }
}
