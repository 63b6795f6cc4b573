"""Cuts the fixtures of this folder from the Minari sets cartpole/mixed-v0, panda/reach-mixed-v0 and a D4RL-style file.

usage: make.py SOURCE_DIR OUT_DIR      (h5py 3; SOURCE_DIR holds minari/, written by minari 0.5, and d4rl/)
"""
import json, os, shutil, sys
import h5py
import numpy as np

source, out = sys.argv[1:3]


def minari(name, target, chosen, keep):
    """Some episodes, {new number: old number}, in minari's layout; metadata follow."""
    src, dst = f"{source}/minari/{name}/data", f"{out}/{target}/data"
    os.makedirs(dst, exist_ok=True)
    steps = 0
    with h5py.File(f"{src}/main_data.hdf5") as a, h5py.File(f"{dst}/main_data.hdf5", "w") as b:
        for new, old in chosen.items():
            group = b.create_group(f"episode_{new}")
            for key, value in a[f"episode_{old}"].attrs.items():
                group.attrs[key] = value
            group.attrs["id"] = new
            for key in keep:
                a.copy(f"episode_{old}/{key}", group)
            steps += len(a[f"episode_{old}/rewards"])
    meta = json.load(open(f"{src}/metadata.json"))
    meta.update(total_episodes=len(chosen), total_steps=steps)
    json.dump(meta, open(f"{dst}/metadata.json", "w"), indent=1)


def d4rl(name, target, rows):
    """The first rows, and so a last episode without an end; chunked, deflated."""
    os.makedirs(out, exist_ok=True)
    with h5py.File(f"{source}/d4rl/{name}") as a, h5py.File(f"{out}/{target}", "w") as b:
        for key in ["observations", "next_observations", "actions", "rewards", "terminals", "timeouts"]:
            b.create_dataset(key, data=a[key][:rows], compression="gzip", chunks=True)


KEYS = ["observations", "actions", "rewards", "terminations", "truncations"]
# HDF5 lists 10 before 2; a reader has to sort by number.
minari("cartpole/mixed-v0", "cartpole", {0: 27, 2: 3, 10: 11, 11: 19}, KEYS)
minari("panda/reach-mixed-v0", "reach", {0: 0, 1: 1}, KEYS)
d4rl("panda_push.hdf5", "push.hdf5", 70)
