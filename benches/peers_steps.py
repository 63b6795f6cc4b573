"""The Decision Transformer in PyTorch, written the usual way, as the peer of our training steps and decisions.

Width 128, 3 blocks, windows of 20 steps (60 tokens), learned time table, dropout 0.1, AdamW, clipped gradients. Below full
density every weight and bias of linear and convolution layers and the action table have scores; a step forms each mask
from the largest scores and lets gradients pass straight through the choice. At keep 0.1 half of the weights belong to an
earlier task: their gradient is zeroed before the step and their value put back after it. A decision has fixed masks,
stacks its history into tensors, and reads the last action. Windows of a step lie ready, frames as f32.

Attention gets the padding and the causal part as one added matrix: together with `is_causal` torch refuses a matrix.
"""

import copy
import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

WIDTH, LAYERS, STEPS, BATCH, DROPOUT = 128, 3, 20, 64, 0.1
# Share of the weights that an earlier task holds while a later one learns.
OCCUPIED = 0.5
LATER = 0.1


class Model:
    """Sizes of a job: what is observed, actions, heads, rows of the time table, rate and largest norm."""

    def __init__(self, observation, actions, discrete, heads, times, rate, norm):
        self.observation, self.actions, self.discrete, self.heads = observation, actions, discrete, heads
        self.times, self.rate, self.norm = times, rate, norm


MODELS = {
    "cartpole": Model((4,), 2, True, 4, 10_000, 3e-4, 1.0),
    "panda": Model((25,), 4, False, 1, 50, 1e-4, 0.25),
    "atari": Model((4, 84, 84), 18, True, 4, 27_001, 3e-4, 1.0),
}


class Keep(nn.Module):
    """Chooses the weights of one tensor: the share `keep` with the largest scores, or all."""

    def __init__(self, weight, fan_in, keep):
        super().__init__()
        self.keep, self.fixed = keep, None
        bound = 1 / math.sqrt(fan_in)
        self.score = nn.Parameter(torch.empty_like(weight).uniform_(-bound, bound)) if keep < 1 else None

    def chosen(self):
        size = self.score.abs()
        kept = max(1, round(self.keep * size.numel()))
        least = torch.topk(size.flatten(), kept).values[-1].item()
        return size, (size >= least).to(size.dtype)

    def forward(self, weight):
        if self.keep >= 1:
            return weight
        if self.fixed is not None:
            return weight * self.fixed
        size, mask = self.chosen()
        # Its value is the mask, its gradient that of the size of the score.
        return weight * (mask + size - size.detach())

    def fix(self):
        if self.keep < 1:
            with torch.no_grad():
                self.fixed = self.chosen()[1]


class Layer(nn.Module):
    """A linear or convolution layer, or a table, whose tensors are masked."""

    def __init__(self, inner, fan_in, keep):
        super().__init__()
        self.inner = inner
        self.weight = Keep(inner.weight, fan_in, keep)
        bias = getattr(inner, "bias", None)
        self.bias = None if bias is None else Keep(bias, fan_in, keep)

    def forward(self, x):
        weight, bias = self.weight(self.inner.weight), None
        if self.bias is not None:
            bias = self.bias(self.inner.bias)
        if isinstance(self.inner, nn.Embedding):
            return F.embedding(x, weight)
        if isinstance(self.inner, nn.Conv2d):
            return F.conv2d(x, weight, bias, self.inner.stride)
        return F.linear(x, weight, bias)


def linear(i, o, keep, bias=False):
    return Layer(nn.Linear(i, o, bias=bias), i, keep)


class Block(nn.Module):
    def __init__(self, heads, keep):
        super().__init__()
        self.heads = heads
        self.ln1, self.ln2 = nn.LayerNorm(WIDTH, bias=False), nn.LayerNorm(WIDTH, bias=False)
        self.qkv, self.out = linear(WIDTH, 3 * WIDTH, keep), linear(WIDTH, WIDTH, keep)
        self.up, self.down = linear(WIDTH, 4 * WIDTH, keep), linear(4 * WIDTH, WIDTH, keep)
        self.drop = nn.Dropout(DROPOUT)

    def forward(self, x, hidden):
        b, t, _ = x.shape
        q, k, v = (a.view(b, t, self.heads, -1).transpose(1, 2) for a in self.qkv(self.ln1(x)).split(WIDTH, 2))
        dropout = DROPOUT if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=hidden, dropout_p=dropout)
        x = x + self.drop(self.out(y.transpose(1, 2).reshape(b, t, WIDTH)))
        return x + self.drop(self.down(F.gelu(self.up(self.ln2(x)))))


class DecisionTransformer(nn.Module):
    def __init__(self, model, keep):
        super().__init__()
        self.model = model
        if len(model.observation) == 1:
            layers = [linear(model.observation[0], WIDTH, keep, True), nn.GELU(), nn.LayerNorm(WIDTH)]
        else:
            layers, shapes = [], [(model.observation[0], 32, 8, 4), (32, 64, 4, 2), (64, 64, 3, 1)]
            for i, o, side, stride in shapes:
                layers += [Layer(nn.Conv2d(i, o, side, stride), i * side * side, keep), nn.GELU()]
            layers += [nn.Flatten(), linear(3136, WIDTH, keep, True), nn.GELU(), nn.LayerNorm(WIDTH)]
        self.encoder = nn.Sequential(*layers)
        self.time = nn.Embedding(model.times, WIDTH)
        self.rtg, self.state = linear(1, WIDTH, keep), linear(WIDTH, WIDTH, keep)
        if model.discrete:
            self.action = Layer(nn.Embedding(model.actions, WIDTH), WIDTH, keep)
        else:
            self.action = linear(model.actions, WIDTH, keep)
        self.ln_in, self.ln_out = nn.LayerNorm(WIDTH, bias=False), nn.LayerNorm(WIDTH, bias=False)
        self.drop = nn.Dropout(DROPOUT)
        self.blocks = nn.ModuleList(Block(model.heads, keep) for _ in range(LAYERS))
        self.head = linear(WIDTH, model.actions, keep, True)

    def forward(self, rtg, states, actions, times, valid):
        b, k = times.shape
        at = self.time(times)
        seen = self.encoder(states.reshape(b * k, *self.model.observation)).view(b, k, WIDTH)
        tokens = [self.rtg(rtg) + at, self.state(seen) + at, self.action(actions) + at]
        x = self.drop(self.ln_in(torch.stack(tokens, 2).view(b, 3 * k, WIDTH)))
        future = torch.ones(3 * k, 3 * k, dtype=torch.bool).triu(1)
        padding = ~valid.repeat_interleave(3, 1)
        hidden = (future | padding[:, None, None, :]).to(x.dtype) * -1e9
        for block in self.blocks:
            x = block(x, hidden)
        # For all tokens, of which a third is read.
        return self.head(self.ln_out(x))[:, 1::3]


def windows(model, b):
    """Returns, states, actions, times and padding of `b` full windows."""
    some = np.random.default_rng(1)
    states = some.random((b, STEPS, *model.observation), np.float32)
    if model.discrete:
        actions = some.integers(0, model.actions, (b, STEPS))
    else:
        actions = some.uniform(-1, 1, (b, STEPS, model.actions)).astype(np.float32)
    times = np.tile(np.arange(STEPS), (b, 1))
    arrays = some.random((b, STEPS, 1), np.float32), states, actions, times, np.ones((b, STEPS), np.bool_)
    return [torch.from_numpy(a) for a in arrays]


def made(name, keep, close):
    torch.manual_seed(0)
    model = MODELS[name]
    dt = DecisionTransformer(model, keep)
    few = windows(model, 1)
    with torch.no_grad():
        dt.eval()
        wide = [a.double() if a.is_floating_point() else a for a in few]
        close(f"{name} keep {keep}", dt(*few), copy.deepcopy(dt).double()(*wide))
    return model, dt


def step(name, keep, close):
    """Forward, backward, clip and AdamW on 64 windows."""
    model, dt = made(name, keep, close)
    batch = windows(model, BATCH)
    _, _, actions, _, valid = batch
    optimiser = torch.optim.AdamW(dt.parameters(), lr=model.rate, weight_decay=1e-4)
    later = [m.inner for m in dt.modules() if isinstance(m, Layer)] if keep == LATER else []
    held = [(p, torch.rand_like(p) < OCCUPIED) for layer in later for p in layer.parameters()]
    dt.train()

    def call():
        optimiser.zero_grad()
        logits = dt(*batch)[valid]
        if model.discrete:
            loss = F.cross_entropy(logits, actions[valid])
        else:
            loss = F.mse_loss(logits, actions[valid])
        loss.backward()
        before = [p.detach().clone() for p, _ in held]
        for p, occupied in held:
            p.grad.masked_fill_(occupied, 0)
        nn.utils.clip_grad_norm_(dt.parameters(), model.norm)
        optimiser.step()
        with torch.no_grad():
            for (p, occupied), old in zip(held, before):
                p.copy_(torch.where(occupied, old, p))

    return None, None, {"torch_official": call}


def act(name, keep, close):
    """The action for a full history that lies in numpy arrays of one step each."""
    model, dt = made(name, keep, close)
    for layer in (m for m in dt.modules() if isinstance(m, Keep)):
        layer.fix()
    dt.eval()
    history = [list(a[0].numpy()) for a in windows(model, 1)]

    def call():
        with torch.no_grad():
            last = dt(*(torch.from_numpy(np.stack(a))[None] for a in history))[0, -1]
        return last.argmax().item() if model.discrete else last.numpy()

    return None, None, {"torch_official": call}
