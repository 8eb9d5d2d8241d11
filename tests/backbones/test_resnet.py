"""ResNet is Paddle's own network: the same outputs, gradients and statistics with the same weights."""
import re

import numpy as np
import paddle
import pytest
from helpers.gradients import assert_close, run_with_gradients
from helpers.marks import slow_but
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


@pytest.mark.parametrize("depth", slow_but([18, 50], [18, 34, 50, 101, 152]))
def test_outputs_in_evaluation(depth):
    ours, theirs = ours_and_paddles(depth)
    x = paddle.to_tensor(np.random.default_rng(1).standard_normal((2, 3, 64, 96)).astype("float32"))
    ours.eval(), theirs.eval()
    with paddle.no_grad():
        assert_close([ours(x)], [theirs(x).flatten(1)], 1e-5)


@pytest.mark.parametrize("depth", slow_but([18], [18, 50]))
def test_training(depth):
    ours, theirs = ours_and_paddles(depth)
    x = np.random.default_rng(1).standard_normal((3, 3, 64, 64)).astype("float32")
    results, expected = (run_with_gradients(    # in the order of names, ``layer1`` and ``stages.0`` alike
        lambda x, network=network: network(x).flatten(1), [x],
        parameters=[p for _, p in sorted(network.named_parameters()) if p.trainable]) for network in (ours, theirs))
    for found, wanted in zip(results, expected):
        # in all, not each: where a number beside 0 rounds to its other side a ReLU passes or stops a gradient; some are
        # 0 but for rounding, since a norm follows
        assert np.linalg.norm(found - wanted) <= 1e-3 * np.linalg.norm(wanted) + 1e-3
    for name in ("bn1._mean", "bn1._variance"):
        assert_close([ours.state_dict()[name]], [theirs.state_dict()[name]], 1e-6)


@pytest.mark.parametrize("depth", [18, 50])
def test_zero_init_residual_starts_every_block_as_its_shortcut(depth):
    paddle.seed(0)
    network = build_backbone({"name": "ResNet", "depth": depth, "zero_init_residual": True})
    network.eval()
    x = paddle.rand([1, network.feature_channels[0], 6, 6])
    block = network.stages[0][1]                # no projection on its shortcut
    np.testing.assert_array_equal(block(x).numpy(), x.numpy())
    plain = build_backbone({"name": "ResNet", "depth": depth})
    plain.eval()
    assert np.abs(plain.stages[0][1](x).numpy() - x.numpy()).max() > 1e-3


def test_a_stem_without_pool_halves_the_strides():
    network = build_backbone({"name": "resnet18", "stem": "no_pool"})
    network.eval()
    maps = network.feature_maps(paddle.rand([1, 3, 64, 64]))
    assert [m.shape[2] for m in maps] == [32, 16, 8, 4]
    assert network.feature_strides == (2, 4, 8, 16)
    assert network.conv1.weight.shape == [64, 3, 7, 7]
