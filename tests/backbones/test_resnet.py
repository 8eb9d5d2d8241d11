"""ResNet is Paddle's own network: the same outputs, gradients and statistics with the same weights."""
import re

import numpy as np
import paddle
import pytest
from paddle.vision import models

from passl_mixer import build_backbone


def ours_and_paddles(depth: int) -> tuple:
    ours = build_backbone({"name": "ResNet", "depth": depth})
    theirs = getattr(models, f"resnet{depth}")(num_classes=0)
    rng = np.random.default_rng(0)
    weights = {}
    for name, value in theirs.state_dict().items():
        spread, middle = (0.3 / np.sqrt(np.prod(value.shape[1:])), 0.0) if len(value.shape) > 1 else (0.1, 1.0)
        weights[name] = (middle + spread * rng.standard_normal(value.shape)).astype("float32")
    theirs.set_state_dict(weights)
    renamed = {re.sub(r"^layer(\d)", lambda found: f"stages.{int(found[1]) - 1}", name): value
               for name, value in weights.items()}
    assert set(renamed) == set(ours.state_dict())
    ours.set_state_dict(renamed)
    return ours, theirs


def output_and_gradients(network, x) -> list:
    x = paddle.to_tensor(x, stop_gradient=False)
    y = network(x).flatten(1)
    y.backward(paddle.to_tensor(np.random.default_rng(2).standard_normal(y.shape).astype("float32")))
    return [y.numpy(), x.grad.numpy(), *(p.grad.numpy() for p in sorted_parameters(network))]


def sorted_parameters(network) -> list:
    """In the order of names, ``layer1`` and ``stages.0`` alike."""
    return [p for _, p in sorted(network.named_parameters()) if p.trainable]


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_outputs_in_evaluation(depth):
    ours, theirs = ours_and_paddles(depth)
    x = paddle.to_tensor(np.random.default_rng(1).standard_normal((2, 3, 64, 96)).astype("float32"))
    ours.eval(), theirs.eval()
    with paddle.no_grad():
        found, wanted = ours(x).numpy(), theirs(x).flatten(1).numpy()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("depth", [18, 50])
def test_training(depth):
    ours, theirs = ours_and_paddles(depth)
    x = np.random.default_rng(1).standard_normal((3, 3, 64, 64)).astype("float32")
    for found, wanted in zip(output_and_gradients(ours, x), output_and_gradients(theirs, x)):
        # in all, not each: where a number beside 0 rounds to its other side a ReLU passes or stops a gradient; some are
        # 0 but for rounding, since a norm follows
        assert np.linalg.norm(found - wanted) <= 1e-3 * np.linalg.norm(wanted) + 1e-3
    for name in ("bn1._mean", "bn1._variance"):
        np.testing.assert_allclose(ours.state_dict()[name].numpy(), theirs.state_dict()[name].numpy(), rtol=1e-5,
                                   atol=1e-6)
