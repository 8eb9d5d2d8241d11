"""The LARS update: layer-wise rates from the norms of weights and gradients. Made by ``optim.build_optimizer``."""
from typing import Mapping

import paddle


class Lars:
    """LARS in the two forms that are published. They differ where the learning rate changes from step to step.

    g = gradient + decay * w;  u = trust * |w| / |g| * g, and
    ``lr_in_velocity: true``, SimCLR (``lars_optimizer.py``, "classic momentum"): v = momentum * v + lr * u;  w = w - v
    ``lr_in_velocity: false``, BYOL and MoCo v3 (``byol/utils/optimizers.py``, ``moco/optimizer.py``):
    v = momentum * v + u;  w = w - lr * v
    The ratio is 1 if either norm is 0, and for excluded parameters, which have no decay either.

    Args:
        named_parameters: ``[(structured name, parameter)]``.
        excluded: structured names that are neither decayed nor adapted.
        options: momentum, weight_decay, trust_coefficient, lr_in_velocity.
    """

    def __init__(self, named_parameters, excluded, options):
        self.parameters = [(p, n not in excluded) for n, p in named_parameters]
        self.momentum, self.decay = options["momentum"], options["weight_decay"]
        self.trust, self.lr = options["trust_coefficient"], 0.0
        self.inside = options["lr_in_velocity"]
        self.velocities: dict = {}

    def set_lr(self, lr: float) -> None:
        self.lr = lr

    @paddle.no_grad()
    def step(self) -> None:
        for p, adapted in self.parameters:
            if p.grad is None:
                continue
            update = p.grad
            if adapted:
                update = update + self.decay * p
                w_norm, g_norm = paddle.sqrt((p * p).sum()), paddle.sqrt((update * update).sum())
                both = paddle.logical_and(w_norm > 0, g_norm > 0)
                ratio = self.trust * w_norm / paddle.where(both, g_norm, paddle.ones_like(g_norm))
                update = update * paddle.where(both, ratio, paddle.ones_like(ratio))
            velocity = self.velocities.get(p.name)
            update = self.lr * update if self.inside else update
            velocity = update.clone() if velocity is None else self.momentum * velocity + update
            self.velocities[p.name] = velocity
            p.subtract_(velocity if self.inside else self.lr * velocity)

    def state_dict(self) -> dict:
        return {f"{name}_velocity": v for name, v in self.velocities.items()}

    def set_state_dict(self, state: Mapping) -> None:
        self.velocities = {key[:-len("_velocity")]: value for key, value in state.items()}
