"""Norms of maps [B, H, W, C] against Paddle's own."""
import numpy as np
import paddle
import pytest
from paddle import nn

from passl_mixer import native
from passl_mixer.backbones.map_norms import ImageNorm, MapNorm


def everything(norm, x, grad) -> list:
    """Output, input gradient, parameter gradients and buffers after a step."""
    x = paddle.to_tensor(x, stop_gradient=False)
    y = norm(x)
    y.backward(paddle.to_tensor(grad))
    return [t.numpy() for t in (y, x.grad, norm.weight.grad, norm.bias.grad, *norm.state_dict().values())]


def assert_same(one, other, shape):
    rng = np.random.default_rng(0)
    x, grad = (rng.standard_normal(shape).astype("float32") for _ in range(2))
    for norm in (one, other):
        for parameter in norm.parameters():
            parameter.set_value(np.random.default_rng(1).uniform(0.5, 2, parameter.shape).astype("float32"))
    assert list(one.state_dict()) == list(other.state_dict())
    for found, wanted in zip(everything(one, 3 * x + 1, grad), everything(other, 3 * x + 1, grad)):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("training", [True, False])
def test_batch(training):
    options = {"momentum": 0.3, "epsilon": 0.1}
    norms = MapNorm(3, **options), nn.BatchNorm2D(3, data_format="NHWC", **options)
    for norm in norms:
        norm.train() if training else norm.eval()
    assert_same(*norms, [2, 4, 5, 3])


@pytest.mark.parametrize("shape", [[3, 4, 5, 6], [2, 40, 50, 7]])
@pytest.mark.parametrize("compiled", [True, False])
def test_image(monkeypatch, shape, compiled):
    if not compiled:
        monkeypatch.setattr(native, "load", lambda: None)
    elif native.load() is None:
        pytest.skip(native.status())
    assert_same(ImageNorm(shape[3]), nn.GroupNorm(1, shape[3], data_format="NHWC"), shape)


def test_sums_of_large_images_lose_no_digits():
    x = np.random.default_rng(0).standard_normal([1, 256, 256, 32]).astype("float32") + 3
    wanted = (x - x.mean(dtype="float64")) / np.sqrt(x.var(dtype="float64") + 1e-5)
    norm = ImageNorm(32)
    assert np.abs(norm(paddle.to_tensor(x)).numpy() - wanted).max() < 2e-6
