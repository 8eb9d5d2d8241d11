"""A small network for optimisers, and steps with given gradients."""
import numpy as np
import paddle
from paddle import nn

from passl_mixer.training.optim import build_optimizer

RATES = (0.1, 0.3, 0.05, 0.2)


def named_parameters() -> list:
    """``(name, parameter)`` of two linear maps and a norm between them, the same at every call."""
    layer = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    rng = np.random.default_rng(1)
    for p in layer.parameters():
        p.set_value(rng.normal(size=p.shape).astype("float32"))
    return list(layer.named_parameters())


def gradients(step: int, named: list) -> dict:
    rng = np.random.default_rng(100 + step)
    return {n: rng.normal(size=p.shape).astype("float32") for n, p in named}


def take_steps(named: list, optimiser, rates=RATES, *, start: int = 0, **options) -> None:
    """Steps of an optimiser, with given gradients through a loss that is linear in the parameters."""
    for i, lr in enumerate(rates, start):
        given = gradients(i, named)
        sum((p * paddle.to_tensor(given[n])).sum() for n, p in named).backward()
        optimiser.step(lr, **options)
        optimiser.clear_grad()


def trained(cfg: dict, rates=RATES, named=None) -> tuple:
    """``(named parameters, optimiser)`` after some steps."""
    named = named or named_parameters()
    optimiser = build_optimizer(cfg, named)
    take_steps(named, optimiser, rates)
    return named, optimiser


def assert_same_parameters(named: list, others: list) -> None:
    for (name, p), (_, q) in zip(named, others):
        np.testing.assert_array_equal(p.numpy(), q.numpy(), err_msg=name)
