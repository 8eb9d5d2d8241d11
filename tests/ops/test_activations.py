"""GELU by the native kernels against its definition in float64; layers with an activation; LayerNorm far from zero."""
import math

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from helpers.gradients import run_with_gradients
from helpers.marks import needs_native

from passl_mixer import ops
from passl_mixer.layers.basic import Linear, TokenLinear
from passl_mixer.ops.activations import GELUS

RNG = np.random.default_rng(0)


def tensors(*shapes):
    return [RNG.standard_normal(shape).astype("float32") for shape in shapes]


def gelu_and_slope(x: np.ndarray, act: str) -> tuple:
    """The definitions in float64: x P(X <= x) for a standard normal X (arXiv:1606.08415), and its tanh form."""
    if act == "gelu":
        share = 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
        return x * share, share + x * np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    tanh = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3))
    inner = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
    return 0.5 * x * (1 + tanh), 0.5 * (1 + tanh) + 0.5 * x * (1 - tanh * tanh) * inner


@needs_native
@pytest.mark.parametrize("act", GELUS)
def test_gelu_over_its_range(act):
    points = np.concatenate([np.linspace(-30, 30, 20011), [0.0, -0.0, 1e-30, -1e-30]]).astype("float32")
    x = paddle.to_tensor(points, stop_gradient=False)
    y = ops.activate(x, act)
    y.sum().backward()
    value, slope = gelu_and_slope(points.astype("float64"), act)
    np.testing.assert_allclose(y.numpy(), value, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(x.grad.numpy(), slope, rtol=1e-6, atol=1e-6)


@needs_native
@pytest.mark.parametrize("act", GELUS)
def test_not_finite_stays_not_finite(act):
    """The trainer's check must see it: a GELU that hides NaN would let a broken run go on."""
    bad = paddle.to_tensor(np.array([np.nan, 1.0, np.nan, np.inf] * 64, "float32"), stop_gradient=False)
    out = ops.activate(bad, act)
    out.sum().backward()
    np.testing.assert_array_equal(np.isfinite(out.numpy()), np.array([False, True, False, False] * 64))
    assert np.isnan(bad.grad.numpy()[0::2][::2]).all()


@needs_native
def test_layers_take_the_one_pass_and_leave_no_trace_of_it_without_gradients():
    for layer, shape in [(Linear(6, 8), (2, 3, 6)), (TokenLinear(3, 5), (2, 3, 6))]:
        x = paddle.to_tensor(RNG.standard_normal(shape).astype("float32"))
        want = F.gelu(layer(x)).numpy()
        np.testing.assert_allclose(layer(x, "gelu").numpy(), want, atol=1e-6)
        with paddle.no_grad():
            np.testing.assert_allclose(layer(x, "gelu").numpy(), want, atol=1e-6)
        np.testing.assert_array_equal(layer(x, "relu").numpy(), F.relu(layer(x)).numpy())


def test_layer_norm_far_from_zero():
    """A large common offset must not cost the small differences their digits."""
    x, w, b = tensors((4, 64), (64,), (64,))
    x = x + 100.0
    for got, want in zip(run_with_gradients(lambda x, w, b: ops.layer_norm(x, w, b, 1e-6), [x, w, b]),
                         run_with_gradients(lambda x, w, b: F.layer_norm(x, [64], w, b, 1e-6), [x, w, b])):
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4 * np.abs(want).max())
