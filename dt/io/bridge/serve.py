"""Runs simulators for the bridge: several environments of one kind, moved by messages on stdin, answered on stdout.

message   b"TSNB", header bytes u32, body bytes u32, header (JSON), body; numbers are little endian
header    request {"op": ..., "n": ..., "arrays": [[name, dtype, shape], ...], ...}; answer {"ok": true, ...} or
          {"error": "missing" | "unknown" | "failed", "text": ...}, with the request's n; the arrays lie in the body in
          this order, without gaps
ops       packages {names}          -> {python, packages: {name: version or null}}
          make {id, count, params}  -> {obs: {kind, shape}, action: {kind, n}, limit, fire}
          reset slots u32, seeds u64             -> obs [k, ...]
          step  slots u32, actions u32 or f32    -> obs [k, ...], rewards f32, ends u8, success i8, lives i32
          advise slots u32  -> actions u32: what the planner of a game would do; plan.py comes before this file
ends      1 terminated, 2 truncated, 3 both; success -1 and lives -1 mean that the environment does not say

Libraries print what they like: file descriptor 1 leads to stderr while they run. The process ends with its stdin.
"""

import json
import os
import queue
import signal
import struct
import sys
import threading
import traceback

np = gym = None  # imported by `make`, so that a process without them can say so

MAGIC = b"TSNB"
MOST_BYTES = 64 << 20
PACKAGES = {"PIL": "pillow", "ale_py": "ale-py", "panda_gym": "panda-gym", "pybullet_data": "pybullet"}


class Refusal(Exception):
    """An answer that says no; `kind` is the word of the header."""

    def __init__(self, kind, text, **more):
        super().__init__(text)
        self.header = {"error": kind, "text": text, **more}


# What an environment is to the bridge. Each class has `describe`, `reset(seed) -> obs` and
# `step(action) -> (obs, reward, terminated, truncated, success, lives)`.


class Plain:
    """Any environment of gymnasium: vectors, dicts of vectors, or images as one grey frame."""

    def __init__(self, env_id, params):
        panda = env_id.split(":")[-1].startswith("Panda")
        self.time_feature = bool(params.pop("time_feature", False))
        # A physics engine keeps contacts and solver state over a reset, so that an episode would depend on those
        # before it. A new one for each episode makes it a function of its seed.
        self.fresh = bool(params.pop("fresh", panda))
        scaled = bool(params.pop("scaled_actions", False))
        if panda:
            imported("panda_gym")
        self.make = lambda: made(env_id, params)
        self.env, self.used, self.elapsed = self.make(), False, 0
        self.limit = self.env.spec.max_episode_steps or 0
        if self.time_feature and not self.limit:
            raise Refusal("failed", f"{env_id}: time_feature needs a step limit, give max_episode_steps")
        box = self.env.action_space
        if isinstance(box, gym.spaces.Box) and not scaled and not (np.all(box.low == -1) and np.all(box.high == 1)):
            raise Refusal(
                "failed",
                f"{env_id}: its actions go from {box.low.min()} to {box.high.max()}, not from -1 to 1; scale those of the"
                " data and say so in params: \"scaled_actions\": true",
            )
        space = self.env.observation_space
        self.image = space.dtype == np.uint8 and len(space.shape or ()) in (2, 3)
        if self.image and len(space.shape) == 3 and space.shape[2] not in (1, 3):
            raise Refusal("failed", f"{env_id}: expected images [h, w], [h, w, 1] or [h, w, 3], found {space.shape}")

    def describe(self):
        first = self.observe(self.env.observation_space.sample())
        action, spaces = self.env.action_space, gym.spaces
        if isinstance(action, spaces.Discrete):
            kind, n = "discrete", int(action.n)
        elif isinstance(action, spaces.Box) and len(action.shape) == 1:
            kind, n = "box", int(action.shape[0])
        else:
            raise Refusal("failed", f"expected discrete actions or a flat box, found {action}")
        return {
            "obs": {"kind": "frame" if self.image else "vector", "shape": list(first.shape)},
            "action": {"kind": kind, "n": n},
            "limit": self.limit,
            "fire": fire(self.env),
        }

    def observe(self, obs):
        space = self.env.observation_space
        if self.image:
            return obs.reshape(obs.shape[:2]) if obs.ndim == 2 or obs.shape[2] == 1 else truncated_luma(obs)
        if not isinstance(space, gym.spaces.Dict):
            return np.asarray(gym.spaces.flatten(space, obs), "<f4").reshape(-1)
        # The usual order of goal environments; other dicts go by name, as gymnasium sorts them.
        names = ["observation", "achieved_goal", "desired_goal"]
        names = names if set(names) == set(space.spaces) else list(space.spaces)
        parts = [np.asarray(gym.spaces.flatten(space[name], obs[name]), "<f4").reshape(-1) for name in names]
        if self.time_feature:
            left = max(0.0, 1.0 - self.elapsed / self.limit)
            parts.insert(1, np.array([left], "<f4"))
        return np.concatenate(parts)

    def reset(self, seed):
        if self.fresh and self.used:
            self.env.close()
            self.env = self.make()
        self.used, self.elapsed = True, 0
        obs, _ = self.env.reset(seed=seed)
        return self.observe(obs)

    def step(self, action):
        space = self.env.action_space
        if isinstance(space, gym.spaces.Discrete):
            action = int(action) + int(space.start)
        else:
            low, high = space.low, space.high
            if np.all(np.isfinite(low)) and np.all(np.isfinite(high)):
                action = low + (action + 1) / 2 * (high - low)
            action = np.clip(action, low, high).astype(space.dtype)
        obs, reward, terminated, truncated, info = self.env.step(action)
        self.elapsed += 1
        success = info.get("is_success", info.get("success"))
        return self.observe(obs), float(reward), terminated, truncated, success, info.get("lives")


class Atari:
    """A game of the Arcade Learning Environment as single grey frames of 84 x 84.

    `protocol` sets `sticky` (chance that a frame repeats the last action) and `noops` (1 to this many frames without
    action at the start, drawn from the seed): deterministic 0 and 0, stochastic 0.25 and 30. `grey` is `luma`
    (0.299 R + 0.587 G + 0.114 B, truncated) or `ale` (the emulator's own, rounded); `resize` is `bilinear` (widened as
    Pillow does) or `area`; `max_pool` takes the maximum of the last two frames of a step. The other settings are
    those of AtariEnv.
    """

    PROTOCOLS = {"deterministic": (0.0, 0), "stochastic": (0.25, 30)}
    MOST_FRAMES = 108_000

    def __init__(self, env_id, params):
        imported("ale_py")
        protocol = params.pop("protocol", "deterministic")
        if protocol not in self.PROTOCOLS:
            raise Refusal("failed", f"protocol: expected one of {', '.join(self.PROTOCOLS)}, found {protocol!r}")
        sticky, noops = self.PROTOCOLS[protocol]
        sticky = float(params.pop("sticky", sticky))
        self.noops = int(params.pop("noops", noops))
        self.skip = int(params.pop("frame_skip", 4))
        self.pool = bool(params.pop("max_pool", False))
        self.grey = params.pop("grey", "luma")
        resize = params.pop("resize", "bilinear")
        if not (0 <= sticky <= 1 and 0 <= self.noops <= 1000 and 1 <= self.skip <= 60):
            raise Refusal("failed", "expected sticky in 0..=1, noops in 0..=1000, frame_skip in 1..=60")
        if self.grey not in ("luma", "ale") or resize not in ("bilinear", "area"):
            raise Refusal("failed", "expected grey luma or ale, and resize bilinear or area")
        fixed = {"frameskip": 1, "repeat_action_probability": sticky, "max_num_frames_per_episode": self.MOST_FRAMES}
        self.env = made(env_id, {**params, **fixed}).unwrapped
        self.ale, self.actions = self.env.ale, self.env.ale.getMinimalActionSet()
        if params.get("full_action_space"):
            self.actions = self.ale.getLegalActionSet()
        if resize == "bilinear":
            image = imported("PIL.Image")
            self.shrink = lambda grey: np.asarray(image.fromarray(grey).resize((84, 84), image.Resampling.BILINEAR))
        else:
            height, width = self.ale.getScreenDims()
            rows, cols = area_weights(height), area_weights(width).T
            self.shrink = lambda grey: np.rint(rows @ (grey.astype(np.float32) @ cols)).astype(np.uint8)

    def describe(self):
        return {
            "obs": {"kind": "frame", "shape": [84, 84]},
            "action": {"kind": "discrete", "n": len(self.actions)},
            "limit": self.MOST_FRAMES // self.skip,
            "fire": fire(self.env),
        }

    def screen(self):
        return self.ale.getScreenGrayscale() if self.grey == "ale" else truncated_luma(self.ale.getScreenRGB())

    def reset(self, seed):
        self.env.reset(seed=seed)
        noops = int(self.env.np_random.integers(1, self.noops + 1)) if self.noops else 0
        for _ in range(noops):
            self.ale.act(0)
            if self.ale.game_over():
                self.ale.reset_game()
        self.planner = Planner(self.ale, self.actions, self.skip, seed)
        return self.shrink(self.screen())

    def advise(self):
        return self.planner.advise()

    def step(self, action):
        reward, before = 0.0, None
        for frame in range(self.skip):
            reward += self.ale.act(self.actions[action])
            if self.ale.game_over():
                break
            if self.pool and frame == self.skip - 2:
                before = self.screen()
        grey = self.screen() if before is None else np.maximum(before, self.screen())
        terminated = self.ale.game_over(with_truncation=False)
        return self.shrink(grey), reward, terminated, self.ale.game_truncated(), None, self.ale.lives()


def truncated_luma(rgb):
    red, green, blue = (rgb[..., c].astype(np.float64) for c in range(3))
    return (0.299 * red + 0.587 * green + 0.114 * blue).astype(np.uint8)


def area_weights(size):
    """[84, size]: how much of each pixel lies under each of the 84 larger ones."""
    edges = np.arange(85) * size / 84
    pixels = np.arange(size)
    under = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (np.clip(under, 0, None) * 84 / size).astype(np.float32)


def fire(env):
    meanings = getattr(env.unwrapped, "get_action_meanings", list)()
    return meanings.index("FIRE") if "FIRE" in meanings else None


def imported(name):
    """The module, or a refusal that names the package to install."""
    try:
        module = __import__(name)
        for part in name.split(".")[1:]:
            module = __import__(name, fromlist=[part])
        return module
    except ImportError as error:
        package = (error.name or name).split(".")[0]
        raise Refusal("missing", str(error), package=PACKAGES.get(package, package)) from error


def made(env_id, params):
    """An environment whose parameters are arguments of its constructor or, if it has no such one, its attributes."""
    import inspect

    from gymnasium.envs import registration

    try:
        gym.spec(env_id)
        spec = registration._find_spec(env_id)
        creator = spec.entry_point if callable(spec.entry_point) else registration.load_env_creator(spec.entry_point)
        known = set(inspect.signature(creator).parameters) | set(spec.kwargs) | {"max_episode_steps"}
        arguments = {name: value for name, value in params.items() if name in known}
        env = gym.make(env_id, disable_env_checker=True, **arguments)
    except gym.error.DependencyNotInstalled as error:
        raise Refusal("missing", str(error), package="what it names") from error
    except gym.error.UnregisteredEnv as error:
        raise Refusal("unknown", str(error)) from error
    except ImportError as error:
        raise Refusal("missing", str(error), package=(error.name or "what it names").split(".")[0]) from error
    for name in params.keys() - arguments.keys():
        if name.startswith("_") or not hasattr(env.unwrapped, name):
            names = ", ".join(sorted(known - {"self"}))
            raise Refusal("failed", f"parameter {name!r} is no attribute of {env_id} and none of its arguments: {names}")
        setattr(env.unwrapped, name, params[name])
    return env


# Ops.


class World:
    """The environments of this process."""

    def __init__(self):
        self.envs = []

    def make(self, header, _):
        global gym, np
        np, gym = imported("numpy"), imported("gymnasium")
        env_id, params = header["id"], header["params"]
        key = (env_id, json.dumps(params, sort_keys=True))
        if not self.envs or self.key != key:
            self.envs, self.key = [], key
        while len(self.envs) < header["count"]:
            self.envs.append((Atari if env_id.startswith("ALE/") else Plain)(env_id, dict(params)))
        return self.envs[0].describe(), []

    def reset(self, _, arrays):
        obs = [self.envs[slot].reset(int(seed)) for slot, seed in zip(arrays["slots"], arrays["seeds"], strict=True)]
        return {}, [("obs", np.stack(obs))]

    def step(self, _, arrays):
        moves = zip(arrays["slots"], arrays["actions"], strict=True)
        obs, rewards, terminated, truncated, success, lives = zip(*(self.envs[s].step(a) for s, a in moves))
        ends = [bool(a) + 2 * bool(b) for a, b in zip(terminated, truncated)]
        said = [-1 if value is None else int(value) for value in success]
        return {}, [
            ("obs", np.stack(obs)),
            ("rewards", np.array(rewards, "<f4")),
            ("ends", np.array(ends, "u1")),
            ("success", np.array(said, "i1")),
            ("lives", np.array([-1 if value is None else value for value in lives], "<i4")),
        ]

    def advise(self, _, arrays):
        if not all(isinstance(self.envs[slot], Atari) for slot in arrays["slots"]):
            raise Refusal("failed", "only games have a planner")
        return {}, [("actions", np.array([self.envs[slot].advise() for slot in arrays["slots"]], "<u4"))]

    def packages(self, header, _):
        from importlib import metadata

        found = {}
        for name in header["names"]:
            try:
                found[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                found[name] = None
        return {"python": sys.version.split()[0], "packages": found}, []


# Messages.


def exactly(stream, count):
    parts = []
    while count:
        part = stream.read(min(count, 1 << 20))
        if not part:
            os._exit(0)  # The other side is gone; whatever runs here runs for nobody.
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def listen(stream, requests):
    while True:
        magic, header, body = struct.unpack("<4sII", exactly(stream, 12))
        if magic != MAGIC or header > MOST_BYTES or body > MOST_BYTES:
            os._exit(3)
        requests.put((exactly(stream, header), exactly(stream, body)))


def unpacked(listed, body):
    arrays, at = {}, 0
    for name, dtype, shape in listed:
        count = int(np.prod(shape))
        arrays[name] = np.frombuffer(body, dtype, count, at).reshape(shape)
        at += count * np.dtype(dtype).itemsize
    return arrays


def send(stream, header, arrays):
    header["arrays"] = [[name, array.dtype.newbyteorder("<").str, list(array.shape)] for name, array in arrays]
    body = b"".join(np.ascontiguousarray(array).tobytes() for _, array in arrays)
    text = json.dumps(header).encode()
    stream.write(struct.pack("<4sII", MAGIC, len(text), len(body)) + text + body)
    stream.flush()


def main():
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdout = sys.stderr
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # An interrupt is for the parent, which may still want to play.
    requests, world = queue.SimpleQueue(), World()
    threading.Thread(target=listen, args=(source, requests), daemon=True).start()
    ops = {"packages": world.packages, "make": world.make, "reset": world.reset, "step": world.step, "advise": world.advise}
    while True:
        text, body = requests.get()
        header = json.loads(text)
        try:
            answer, arrays = ops[header["op"]](header, unpacked(header["arrays"], body))
            answer = {"ok": True, **answer}
        except Refusal as refusal:
            answer, arrays = refusal.header, []
        except Exception as error:
            traceback.print_exc()
            answer, arrays = {"error": "failed", "text": f"{type(error).__name__}: {error}"}, []
        send(sink, {"n": header["n"], **answer}, arrays)


if __name__ == "__main__":
    main()
