"""Times of Python libraries for the cases that the project's kernels are measured on, one thread.

    pip install -r benches/peers-requirements.txt
    python benches/peers.py --out peers.json [--rounds N] [--large] [FILTER...]

Prints the JSON lines that `cargo xtask peers` reads; ids are op/peer_f32_LIBRARY/shape_density. A case runs if its id
contains one of the filters. The libraries of a case are sampled in turn. Before it is timed, a result is compared with
float64. What a library may do once is not timed: the compressed rows of torch_csr, the masked weight of torch_dense,
the index of faiss. torch_official multiplies weight and mask in every call. Whole steps are in peers_steps.py.
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import argparse
import datetime
import json
import math
import platform
import sys
import time
import warnings

import faiss
import numpy as np
import sklearn
import torch
from sklearn.cluster import KMeans

import peers_steps

# That compressed rows are in beta.
warnings.filterwarnings("ignore", message="Sparse CSR")

SAMPLE_NS = 500_000
SAMPLES = 15
LEAST_SAMPLES = 3
CASE_NS = 3_000_000_000

DENSE = [(1, 128, 128), (1, 1024, 1024), (20, 128, 128), (60, 128, 128), (60, 512, 128), (60, 128, 512),
         (1280, 128, 128), (3840, 128, 128), (3840, 384, 128), (3840, 512, 128), (3840, 128, 512), (3840, 1024, 1024)]
DENSE_LARGE = [(1, 4096, 4096), (60, 4096, 4096), (3840, 4096, 4096)]
LEAST_BACKWARD = 1280
MASKED = [(60, 128, 128, 0.5), (60, 128, 128, 0.1), (60, 512, 128, 0.33), (60, 512, 128, 0.1), (60, 512, 128, 0.02),
          (3840, 128, 128, 0.5), (3840, 512, 128, 0.5), (3840, 128, 512, 0.5), (3840, 1024, 1024, 0.5),
          (3840, 128, 128, 0.33), (3840, 1024, 1024, 0.33), (3840, 128, 128, 0.1), (3840, 512, 128, 0.1),
          (3840, 1024, 1024, 0.1), (1280, 4096, 1024, 0.08), (3840, 128, 128, 0.02), (3840, 1024, 1024, 0.02)]
MASKED_LARGE = [(60, 4096, 4096, 0.5), (60, 4096, 4096, 0.1)]
ATTENTION = [(64, 60, 4, 32), (64, 60, 1, 128), (1, 60, 4, 32)]
ATTENTION_LARGE = [(8, 1024, 8, 64), (1, 4096, 16, 64)]
COSINE = [(1, 100, 128), (64, 100, 128), (1024, 100, 128), (1, 10_000, 128), (64, 10_000, 128), (1024, 10_000, 128)]
COSINE_LARGE = [(1, 1_000_000, 128), (64, 1_000_000, 128), (1024, 1_000_000, 128), (1, 1_000_000, 512),
                (64, 1_000_000, 512), (1024, 1_000_000, 512)]
BEST = 10
TOPK = [(100, 1000, 0.5), (1000, 1000, 0.5), (1000, 1000, 0.1)]
TOPK_LARGE = [(1000, 10_000, 0.5)]
KMEANS = [100_000]
KMEANS_LARGE = [1_000_000]
CLUSTERS = 16
STEPS = [("cartpole", 1.0), ("cartpole", 0.5), ("cartpole", 0.1), ("panda", 1.0), ("panda", 0.5), ("panda", 0.1)]
STEPS_LARGE = [("atari", 1.0), ("atari", 0.5)]

# A result that is further from float64 than this share of its largest value is wrong, not rounded.
CLOSE = 1e-4


def values(seed, *shape):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def density_label(density):
    return f"d{round(100 * density)}"


def close(name, got, expected, share=CLOSE):
    got, expected = np.asarray(got, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    far = np.abs(got - expected).max() if got.shape == expected.shape else math.inf
    if not far <= share * max(np.abs(expected).max(), 1e-30):
        raise SystemExit(f"peers: {name} is {far} from float64")


def gemm(r, o, i):
    x, w = values(1, r, i), values(2, o, i)
    tx, tw, y = torch.from_numpy(x), torch.from_numpy(w), np.empty((r, o), np.float32)
    expected = x.astype(np.float64) @ w.T.astype(np.float64)
    calls = {"torch": lambda: torch.nn.functional.linear(tx, tw), "openblas": lambda: np.matmul(x, w.T, out=y)}
    for name, call in calls.items():
        close(f"gemm {name}", call(), expected)
    return 2 * r * o * i, 4 * (r * i + o * i + r * o), calls


def gemm_bf16(r, o, i):
    tx, tw = (torch.from_numpy(values(s, *shape)).bfloat16() for s, shape in ((1, (r, i)), (2, (o, i))))
    # The result is rounded to 8 bits.
    close("gemm bf16", torch.nn.functional.linear(tx, tw).double(), tx.double() @ tw.double().T, 1e-2)
    return 2 * r * o * i, 2 * (r * i + o * i + r * o), {"torch": lambda: torch.nn.functional.linear(tx, tw)}


def masked_gemm(r, o, i, density):
    x, w = values(1, r, i), values(2, o, i)
    mask = (np.random.default_rng(3).random((o, i)) < density).astype(np.float32)
    tx, tw, tm = (torch.from_numpy(a) for a in (x, w, mask))
    once = tw * tm
    rows, tall = once.to_sparse_csr(), tx.T.contiguous()
    expected = x.astype(np.float64) @ (w * mask).T.astype(np.float64)
    calls = {
        "torch_official": lambda: torch.nn.functional.linear(tx, tw * tm),
        "torch_dense": lambda: torch.nn.functional.linear(tx, once),
        # x transposed before and y left transposed, which favours it.
        "torch_csr": lambda: rows @ tall,
    }
    for name, call in calls.items():
        close(f"masked_gemm {name}", call().T if name == "torch_csr" else call(), expected)
    return int(2 * r * o * i * density), 4 * (r * i + o * i + r * o) + o * i // 8, calls


def gemm_dx(r, o, i):
    dy, w = values(1, r, o), values(2, o, i)
    ty, tw, dx = torch.from_numpy(dy), torch.from_numpy(w), np.empty((r, i), np.float32)
    expected = dy.astype(np.float64) @ w.astype(np.float64)
    calls = {"torch": lambda: ty @ tw, "openblas": lambda: np.matmul(dy, w, out=dx)}
    for name, call in calls.items():
        close(f"gemm_dx {name}", call(), expected)
    return 2 * r * o * i, 4 * (r * i + o * i + r * o), calls


def masked_gemm_dx(r, o, i, density):
    dy, w = values(1, r, o), values(2, o, i)
    mask = (np.random.default_rng(3).random((o, i)) < density).astype(np.float32)
    ty, tw, tm = (torch.from_numpy(a) for a in (dy, w, mask))
    once = tw * tm
    expected = dy.astype(np.float64) @ (w * mask).astype(np.float64)
    calls = {"torch_official": lambda: ty @ (tw * tm), "torch_dense": lambda: ty @ once}
    for name, call in calls.items():
        close(f"masked_gemm_dx {name}", call(), expected)
    return int(2 * r * o * i * density), 4 * (r * i + o * i + r * o) + o * i // 8, calls


def gemm_dw(r, o, i):
    dy, x = values(1, r, o), values(2, r, i)
    ty, tx, dw = torch.from_numpy(dy), torch.from_numpy(x), np.empty((o, i), np.float32)
    expected = dy.astype(np.float64).T @ x.astype(np.float64)
    calls = {"torch": lambda: ty.T @ tx, "openblas": lambda: np.matmul(dy.T, x, out=dw)}
    for name, call in calls.items():
        close(f"gemm_dw {name}", call(), expected)
    return 2 * r * o * i, 4 * (r * i + o * i + r * o), calls


def masked_gemm_dw(r, o, i):
    dy, x, w = values(1, r, o), values(2, r, i), values(3, o, i)
    mask = (np.random.default_rng(3).random((o, i)) < 0.5).astype(np.float32)
    ty, tx, tw, tm = (torch.from_numpy(a) for a in (dy, x, w, mask))

    def official():
        both = ty.T @ tx
        return both * tm, both * tw

    expected = dy.astype(np.float64).T @ x.astype(np.float64)
    dw, ds = official()
    close("masked_gemm_dw dw", dw, expected * mask)
    close("masked_gemm_dw ds", ds, expected * w)
    # What is fused is not asked of it.
    calls = {"torch_official": official, "torch_dense": lambda: ty.T @ tx}
    return 2 * r * o * i, 4 * (r * i + 3 * o * i + r * o) + o * i // 8, calls


def attention_inputs(b, t, h, d):
    return [torch.from_numpy(values(s, b, h, t, d)).requires_grad_() for s in (1, 2, 3)]


def fused(q, k, v):
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)


def attention(b, t, h, d):
    q, k, v = (a.detach() for a in attention_inputs(b, t, h, d))
    if b * h * t * t <= 1 << 22:
        score = (q.double() @ k.double().mT / math.sqrt(d)).masked_fill(~torch.ones(t, t).tril().bool(), -math.inf)
        close("attention", fused(q, k, v), score.softmax(-1) @ v.double())
    return 2 * b * h * t * t * d, 16 * b * h * t * d, {"torch": lambda: fused(q, k, v)}


def attention_dx(b, t, h, d):
    inputs = attention_inputs(b, t, h, d)
    y, dy = fused(*inputs), torch.from_numpy(values(4, b, h, t, d))
    calls = {"torch": lambda: torch.autograd.grad(y, inputs, dy, retain_graph=True)}
    return 5 * b * h * t * t * d, 32 * b * h * t * d, calls


def cosine_topk(n, m, d):
    q, p = values(1, n, d), values(2, m, d)
    bank = p / np.linalg.norm(p, axis=1, keepdims=True)
    index = faiss.IndexFlatIP(d)
    index.add(bank)
    tq, tb = torch.from_numpy(q), torch.from_numpy(bank)

    def by_faiss():
        return index.search(q / np.linalg.norm(q, axis=1, keepdims=True), BEST)[0]

    def by_torch():
        return torch.topk(torch.nn.functional.normalize(tq) @ tb.T, BEST).values

    few = q[:8].astype(np.float64)
    few /= np.linalg.norm(few, axis=1, keepdims=True)
    expected = -np.sort(-(few @ bank.T.astype(np.float64)), axis=1)[:, :BEST]
    close("cosine_topk faiss", by_faiss()[:8], expected)
    close("cosine_topk torch", by_torch()[:8], expected)
    return 2 * n * m * d, 4 * (n * d + m * d) + 8 * n * BEST, {"faiss": by_faiss, "torch": by_torch}


def topk_free(o, i, density):
    """Among half of the weights: those of earlier tasks are taken out first."""
    ts = torch.from_numpy(values(1, o * i))
    free = torch.from_numpy(np.random.default_rng(3).random(o * i) < 0.5)

    def by_torch():
        size = ts.abs()
        of = size[free]
        limit = torch.topk(of, int(density * of.numel())).values[-1]
        return ((size >= limit) & free).float()

    if by_torch().sum() != int(density * int(free.sum())):
        raise SystemExit("peers: topk keeps another number")
    return o * i, 4 * o * i + o * i // 4, {"torch": by_torch}


def topk(o, i, density):
    score = values(1, o * i)
    kept, ts = int(density * o * i), torch.from_numpy(score)

    def by_torch():
        mask = torch.zeros_like(ts)
        mask[torch.topk(ts.abs(), kept).indices] = 1.0
        return mask

    def by_numpy():
        mask = np.zeros(o * i, np.bool_)
        mask[np.argpartition(np.abs(score), o * i - kept)[o * i - kept:]] = True
        return mask

    def by_threshold():
        size = np.abs(score)
        return size >= np.partition(size, o * i - kept)[o * i - kept]

    calls = {"torch": by_torch, "numpy_argpartition": by_numpy, "numpy_partition": by_threshold}
    size = np.abs(score)
    limit = np.sort(size)[o * i - kept]
    for name, call in calls.items():
        mask = np.asarray(call(), dtype=np.float64)
        # Which of several equal ones at the limit are kept is left to each.
        close(f"topk {name}", np.where(size == limit, 1.0, mask), (size >= limit).astype(np.float64))
    return o * i, 4 * o * i + o * i // 8, calls


def kmeans(n):
    data = values(1, n, 1)

    def by_sklearn():
        return KMeans(CLUSTERS, n_init=1, random_state=0, init="k-means++").fit(data).cluster_centers_

    if not np.isfinite(by_sklearn()).all():
        raise SystemExit("peers: centres of sklearn are not finite")
    def official():
        return KMeans(CLUSTERS, n_init=4, random_state=0, init="k-means++").fit(data).cluster_centers_

    return n, 4 * n, {"sklearn": by_sklearn, "sklearn_4_starts": official}


def cases(large):
    def all_of(small, more):
        return small + (more if large else [])

    for r, o, i in all_of(DENSE, DENSE_LARGE):
        yield "gemm", f"r{r}_o{o}_i{i}_d100", lambda: gemm(r, o, i)
    for r, o, i in all_of(DENSE, DENSE_LARGE):
        yield "gemm bf16", f"r{r}_o{o}_i{i}_d100", lambda: gemm_bf16(r, o, i)
    for r, o, i, density in all_of(MASKED, MASKED_LARGE):
        yield "masked_gemm", f"r{r}_o{o}_i{i}_{density_label(density)}", lambda: masked_gemm(r, o, i, density)
    for r, o, i, density in all_of(MASKED, MASKED_LARGE):
        yield "masked_gemm_dx", f"r{r}_o{o}_i{i}_{density_label(density)}", lambda: masked_gemm_dx(r, o, i, density)
    for r, o, i in filter(lambda sizes: sizes[0] >= LEAST_BACKWARD, DENSE):
        yield "gemm_dx", f"r{r}_o{o}_i{i}_d100", lambda: gemm_dx(r, o, i)
        yield "gemm_dw", f"r{r}_o{o}_i{i}_d100", lambda: gemm_dw(r, o, i)
        yield "masked_gemm_dw", f"r{r}_o{o}_i{i}_d50", lambda: masked_gemm_dw(r, o, i)
    for b, t, h, d in all_of(ATTENTION, ATTENTION_LARGE):
        yield "attention", f"b{b}_t{t}_h{h}_d{d}_d100_nodrop", lambda: attention(b, t, h, d)
        yield "attention_dx", f"b{b}_t{t}_h{h}_d{d}_d100_nodrop", lambda: attention_dx(b, t, h, d)
    for n, m, d in all_of(COSINE, COSINE_LARGE):
        yield "cosine_topk", f"n{n}_m{m}_d{d}_k{BEST}_d100", lambda: cosine_topk(n, m, d)
    for o, i, density in all_of(TOPK, TOPK_LARGE):
        yield "topk", f"o{o}_i{i}_{density_label(density)}", lambda: topk(o, i, density)
    yield "topk", "o1000_i1000_d50_free50", lambda: topk_free(1000, 1000, 0.5)
    for n in all_of(KMEANS, KMEANS_LARGE):
        yield "kmeans", f"n{n}_k{CLUSTERS}_d100", lambda: kmeans(n)
    for name, keep in all_of(STEPS, STEPS_LARGE):
        shape = f"{name}_b{peers_steps.BATCH}_{density_label(keep)}"
        yield "step", shape, lambda: peers_steps.step(name, keep, close)
    for name, keep in all_of(STEPS, STEPS_LARGE):
        if keep > peers_steps.LATER:
            shape = f"{name}_k{peers_steps.STEPS}_{density_label(keep)}"
            yield "act", shape, lambda: peers_steps.act(name, keep, close)


def timed(call, count):
    start = time.perf_counter_ns()
    for _ in range(count):
        call()
    return time.perf_counter_ns() - start


def interleaved(calls):
    """Nanoseconds per call and calls per sample of every library, sampled in turn."""
    counts, spent = {}, 0
    for name, call in calls.items():
        call()
        once = max(timed(call, 1), 1)
        counts[name] = max(1, math.ceil(SAMPLE_NS / once))
        spent += max(once, SAMPLE_NS)
    samples = max(LEAST_SAMPLES, min(SAMPLES, CASE_NS // spent))
    times = {name: [] for name in calls}
    for _ in range(samples):
        for name, call in calls.items():
            times[name].append(timed(call, counts[name]) / counts[name])
    return {name: (counts[name], times[name]) for name in calls}


def row(op, library, label, count, times, elements, bytes_):
    at = lambda q: float(np.quantile(times, q, method="nearest"))
    mean, stdev = float(np.mean(times)), float(np.std(times, ddof=1))
    estimate = lambda x, half=0.0: {"estimate": x, "lower_bound": x - half, "upper_bound": x + half, "unit": "ns"}
    op, dtype = (op.split() + ["f32"])[:2]
    work = (elements, "elements"), (bytes_, "bytes")
    median = {"estimate": at(0.5), "lower_bound": at(0.25), "upper_bound": at(0.75), "unit": "ns"}
    return {
        "schema": 1, "reason": "benchmark-complete", "id": f"{op}/peer_{dtype}_{library}/{label}", "unit": "ns",
        "iteration_count": [count] * len(times), "measured_values": [count * t for t in times],
        "throughput": [{"per_iteration": n, "unit": unit} for n, unit in work if n is not None],
        "typical": median, "median": median, "mean": estimate(mean, 1.96 * stdev / math.sqrt(len(times))),
        "median_abs_dev": estimate(float(np.median(np.abs(np.array(times) - at(0.5))))),
        "min_ns": at(0.0), "p20_ns": at(0.2), "p80_ns": at(0.8), "rel_stdev": stdev / mean,
        "op": op, "backend": "peer", "dtype": dtype, "variant": library, "threads": 1,
    }


def fingerprint():
    model = "unknown"
    if os.path.exists("/proc/cpuinfo"):
        lines = (line.split(":", 1) for line in open("/proc/cpuinfo") if line.startswith("model name"))
        model = next((value.strip() for _, value in lines), model)
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__,
                "faiss": faiss.__version__, "scikit-learn": sklearn.__version__}
    return {"schema": 1, "reason": "fingerprint", "cpu_model": model, "cores": len(os.sched_getaffinity(0)),
            "date": datetime.date.today().isoformat(), "program": "peers.py", "versions": versions}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("filter", nargs="*", help="parts of ids")
    parser.add_argument("--out", default="-", help="file to append to, or -")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--large", action="store_true", help="also cases of seconds and gigabytes")
    args = parser.parse_args()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    out = sys.stdout if args.out == "-" else open(args.out, "a")
    print(json.dumps(fingerprint()), file=out, flush=True)
    found = 0
    for _ in range(args.rounds):
        for op, label, make in cases(args.large):
            if args.filter and not any(part in f"{op}/{label}" for part in args.filter):
                continue
            found += 1
            elements, bytes_, calls = make()
            for library, (count, times) in interleaved(calls).items():
                print(json.dumps(row(op, library, label, count, times, elements, bytes_)), file=out, flush=True)
    if found == 0:
        print("peers: no case matches", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
