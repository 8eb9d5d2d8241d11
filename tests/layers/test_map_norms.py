"""Norms of maps [B, H, W, C] against Paddle's own."""
import numpy as np
import paddle
import pytest
from helpers.gradients import run_with_gradients
from helpers.marks import needs_native
from paddle import nn

from passl_mixer import ops
from passl_mixer.layers.batch_norm import BatchNorm2D
from passl_mixer.layers.group_norm import GroupNorm1
from passl_mixer.ops import native


def everything(norm, x) -> list:
    """Output, input gradient, parameter gradients and buffers after a step."""
    results = run_with_gradients(norm, [x], parameters=(norm.weight, norm.bias))
    return [*results, *(value.numpy() for value in norm.state_dict().values())]


def assert_same(one, other, shape):
    for norm in (one, other):
        for parameter in norm.parameters():
            parameter.set_value(np.random.default_rng(1).uniform(0.5, 2, parameter.shape).astype("float32"))
    assert list(one.state_dict()) == list(other.state_dict())
    x = 3 * np.random.default_rng(0).standard_normal(shape).astype("float32") + 1
    for got, expected in zip(everything(one, x), everything(other, x)):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("training", [True, False])
def test_batch(training):
    norms = BatchNorm2D(3, data_format="NHWC"), nn.BatchNorm2D(3, data_format="NHWC")
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
    assert_same(GroupNorm1(shape[3]), nn.GroupNorm(1, shape[3], data_format="NHWC"), shape)


def test_sums_of_large_images_lose_no_digits():
    x = np.random.default_rng(0).standard_normal([1, 256, 256, 32]).astype("float32") + 3
    wanted = (x - x.mean(dtype="float64")) / np.sqrt(x.var(dtype="float64") + 1e-5)
    norm = GroupNorm1(32)
    assert np.abs(norm(paddle.to_tensor(x)).numpy() - wanted).max() < 2e-6


def exact(x, weight, bias, grad, epsilon=1e-5) -> list:
    """Output and gradients of an image norm in float64, by the formulas of its definition."""
    x, weight, bias, grad = (a.astype("float64") for a in (x, weight, bias, grad))
    axes = tuple(range(1, x.ndim))
    scale = 1 / np.sqrt(x.var(axes, keepdims=True) + epsilon)
    normed = (x - x.mean(axes, keepdims=True)) * scale
    weighed = grad * weight
    dx = scale * (weighed - weighed.mean(axes, keepdims=True) - normed * (weighed * normed).mean(axes, keepdims=True))
    return [normed * weight + bias, dx, (grad * normed).sum((0, *axes[:-1])), grad.sum((0, *axes[:-1]))]


@needs_native
@pytest.mark.parametrize("shape", [[2, 3, 4], [1, 1, 1, 2], [3, 4, 5, 6], [2, 7, 11, 1500], [2, 3, 5000],
                                   [2, 90, 110, 7], [5, 40, 40, 16]])
def test_image_in_float64(shape):
    rng = np.random.default_rng(0)
    x, grad = (rng.standard_normal(shape).astype("float32") + offset for offset in (2, 0.5))
    weight, bias = (rng.uniform(0.5, 2, shape[-1:]).astype("float32") for _ in range(2))
    want = exact(x, weight, bias, grad)
    sums = tuple(range(x.ndim - 1))
    # what the numbers are differences of: a mean rounded to float32 shows in sums over many places
    sizes = [np.abs(grad).max(), np.abs(grad * (want[0] - bias) / weight).sum(sums).max(), np.abs(grad).sum(sums).max()]
    for frozen in [(), (0,), (1,), (1, 2)]:
        inputs = [paddle.to_tensor(a, stop_gradient=i in frozen) for i, a in enumerate((x, weight, bias))]
        y = ops.group_norm1(*inputs, 1e-5)
        y.backward(paddle.to_tensor(grad))
        np.testing.assert_allclose(y.numpy(), want[0], rtol=0, atol=1e-6 * np.abs(want[0]).max())
        for i, tensor in enumerate(inputs):
            assert (tensor.grad is None) == (i in frozen)
            if i not in frozen:
                np.testing.assert_allclose(tensor.grad.numpy(), want[i + 1], rtol=0, atol=5e-7 * sizes[i])


@needs_native
def test_an_image_that_is_not_finite_spoils_no_other():
    x = np.random.default_rng(0).standard_normal([3, 40, 50, 12]).astype("float32")
    x[1, 3, 4, 5] = np.nan
    y = GroupNorm1(12)(paddle.to_tensor(x)).numpy()
    np.testing.assert_array_equal(np.isnan(y).any((1, 2, 3)), [False, True, False])
    assert np.isnan(y[1]).all()
