"""Optimisers and schedules in PyTorch, each from the code that its method was published with.

PyTorch's own SGD and AdamW are what MoCo, SimSiam, MoCo v3 (ViT) and open_clip train with; LARS is written down here.
"""
import math

import torch


class SimclrLars:
    """google-research/simclr ``lars_optimizer.py``, ``classic_momentum``: the rate inside the velocity."""

    def __init__(self, groups, *, momentum, trust_coefficient):
        self.param_groups, self.momentum, self.trust = groups, momentum, trust_coefficient
        self.velocity = {p: torch.zeros_like(p) for group in groups for p in group["params"]}

    def zero_grad(self):
        for p in self.velocity:
            p.grad = None

    def scaled(self, p, decay):
        """Decay joins the gradient, then the ratio of norms; neither on biases and norms, whose decay is None."""
        if decay is None:
            return p.grad
        gradient = p.grad + decay * p
        w_norm, g_norm = torch.norm(p), torch.norm(gradient)
        ratio = self.trust * w_norm / g_norm if w_norm > 0 and g_norm > 0 else 1.0
        return ratio * gradient

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                v = self.velocity[p]
                v.copy_(self.momentum * v + group["lr"] * self.scaled(p, group["decay"]))
                p.sub_(v)


class ByolLars(SimclrLars):
    """deepmind-research ``byol/utils/optimizers.py`` and moco-v3 ``moco/optimizer.py``: the rate outside."""

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                v = self.velocity[p]
                v.copy_(self.momentum * v + self.scaled(p, group["decay"]))
                p.sub_(group["lr"] * v)


def build(optim, named):
    """The optimiser of our ``optim`` section over ``[(name, parameter)]``, every group with its ``fixed`` flag."""
    groups = {}
    for name, p in named:
        fixed = any(name.startswith(pattern.rstrip("*")) for pattern in optim.get("fixed_lr", ()))
        decayed = optim.get("decay_vectors", False) or p.ndim > 1
        groups.setdefault((fixed, decayed), []).append(p)
    decay = optim["weight_decay"]
    if optim["name"] == "lars":
        kind = SimclrLars if optim["lr_in_velocity"] else ByolLars
        listed = [{"params": ps, "fixed": fixed, "lr": 0.0, "decay": decay if decayed else None}
                  for (fixed, decayed), ps in groups.items()]
        return kind(listed, momentum=optim["momentum"], trust_coefficient=optim["trust_coefficient"])
    listed = [{"params": ps, "fixed": fixed, "weight_decay": decay if decayed else 0.0}
              for (fixed, decayed), ps in groups.items()]
    if optim["name"] == "sgd":
        return torch.optim.SGD(listed, lr=0.0, momentum=optim["momentum"])
    return torch.optim.AdamW(listed, lr=0.0, betas=(optim["beta1"], optim["beta2"]), eps=optim["eps"])


def rate(schedule, base, step, total):
    """The learning rate of a step, of steps that are an epoch each, as the method's own code has it."""
    if "decay_epochs" in schedule:                      # moco main_moco.py, v1
        for milestone in schedule["decay_epochs"]:
            base *= schedule["decay_factor"] if step >= milestone else 1.0
        return base
    warmup = schedule.get("warmup_steps", schedule.get("warmup_epochs", 0))
    if schedule.get("decay") == "linear":               # big_vision utils.py
        progress = min(1.0, max(0.0, (step - warmup) / float(total - warmup)))
        end = schedule["min_lr"]
        return (end + (base - end) * (1.0 - progress)) * (min(1.0, step / warmup) if warmup else 1.0)
    if step < warmup:                                   # simclr, byol, moco-v3
        return base * step / warmup
    return base * 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / (total - warmup)))


@torch.no_grad()
def clip(parameters, limit):
    """``optax.clip_by_global_norm``, which big_vision uses."""
    norm = math.sqrt(sum(float((p.grad ** 2).sum()) for p in parameters))
    if norm > limit:
        for p in parameters:
            p.grad.mul_(limit / norm)
