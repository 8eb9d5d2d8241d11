"""The CPU operators give what Paddle's own give, forward and backward, and only where they apply."""
import math
import os
import subprocess
import sys

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from passl_mixer.layers.basic import Linear, TokenLinear
from passl_mixer.ops import cpu as ops
from passl_mixer.ops import native, product_ops

RNG = np.random.default_rng(0)


def tensors(*shapes):
    return [RNG.standard_normal(shape).astype("float32") for shape in shapes]


def run(function, arrays, frozen=()):
    """Output and gradients of ``sum(output * projection)`` for every array that is not frozen."""
    inputs = [paddle.to_tensor(a, stop_gradient=i in frozen) for i, a in enumerate(arrays)]
    output = function(*inputs)
    projection = np.random.default_rng(1).standard_normal(output.shape).astype("float32")
    (output * paddle.to_tensor(projection)).sum().backward()
    return [output.numpy(), *(t.grad.numpy() for i, t in enumerate(inputs) if i not in frozen)]


CASES = {
    "linear": (product_ops.linear, F.linear, tensors((3, 5, 7), (7, 4), (4,))),
    "linear on rows": (product_ops.linear, F.linear, tensors((6, 7), (7, 4), (4,))),
    "token_linear": (product_ops.token_linear, lambda x, w, b: paddle.matmul(w, x) + b.unsqueeze(-1),
                     tensors((3, 5, 7), (4, 5), (4,))),
    "layer_norm": (lambda x, w, b: ops.layer_norm(x, w, b, 1e-6), lambda x, w, b: F.layer_norm(x, [7], w, b, 1e-6),
                   tensors((3, 5, 7), (7,), (7,))),
}
PRODUCTS = {
    "linear": (product_ops.linear_gelu, F.linear, tensors((3, 5, 7), (7, 4), (4,))),
    "large linear": (product_ops.linear_gelu, F.linear, tensors((40, 20, 16), (16, 48), (48,))),
    "token_linear": (product_ops.token_linear_gelu, CASES["token_linear"][1], tensors((3, 5, 7), (4, 5), (4,))),
}
# Paddle's own tanh form is 4e-6 off in float32, ours 1e-6 (test_gelu_over_its_range)
TOLERANCE = {"gelu": 1e-6, "gelu_tanh": 1e-5}
needs_compiled = pytest.mark.skipif(native.load() is None, reason=f"no compiled kernels: {native.status()}")


@needs_compiled
@pytest.mark.parametrize("act", ops.GELUS)
@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("frozen", [(), (0,), (1, 2)])
def test_gelu_of_a_linear_map(name, act, frozen):
    ours, theirs, arrays = PRODUCTS[name]
    expected = run(lambda *t: F.gelu(theirs(*t), approximate=act == "gelu_tanh"), arrays, frozen)
    for got, want in zip(run(lambda *t: ours(*t, act), arrays, frozen), expected):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=TOLERANCE[act] * np.abs(want).max())


def gelu_and_slope(x: np.ndarray, act: str) -> tuple:
    """The definitions in float64: x P(X <= x) for a standard normal X (arXiv:1606.08415), and its tanh form."""
    if act == "gelu":
        share = 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
        return x * share, share + x * np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    tanh = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3))
    inner = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
    return 0.5 * x * (1 + tanh), 0.5 * (1 + tanh) + 0.5 * x * (1 - tanh * tanh) * inner


@needs_compiled
@pytest.mark.parametrize("act", ops.GELUS)
def test_gelu_over_its_range(act):
    points = np.concatenate([np.linspace(-30, 30, 20011), [0.0, -0.0, 1e-30, -1e-30]]).astype("float32")
    x = paddle.to_tensor(points, stop_gradient=False)
    y = ops.gelu(x, act)
    y.sum().backward()
    value, slope = gelu_and_slope(points.astype("float64"), act)
    np.testing.assert_allclose(y.numpy(), value, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(x.grad.numpy(), slope, rtol=1e-6, atol=1e-6)


@needs_compiled
@pytest.mark.parametrize("act", ops.GELUS)
def test_not_finite_stays_not_finite(act):
    """The trainer's check must see it: a GELU that hides NaN would let a broken run go on."""
    bad = paddle.to_tensor(np.array([np.nan, 1.0, np.nan, np.inf] * 64, "float32"), stop_gradient=False)
    out = ops.gelu(bad, act)
    out.sum().backward()
    np.testing.assert_array_equal(np.isfinite(out.numpy()), np.array([False, True, False, False] * 64))
    assert np.isnan(bad.grad.numpy()[0::2][::2]).all()


@needs_compiled
def test_layers_take_the_one_pass_and_leave_no_trace_of_it_without_gradients():
    for layer, shape in [(Linear(6, 8), (2, 3, 6)), (TokenLinear(3, 5), (2, 3, 6))]:
        x = paddle.to_tensor(RNG.standard_normal(shape).astype("float32"))
        want = F.gelu(layer(x)).numpy()
        np.testing.assert_allclose(layer(x, "gelu").numpy(), want, atol=1e-6)
        with paddle.no_grad():
            np.testing.assert_allclose(layer(x, "gelu").numpy(), want, atol=1e-6)
        np.testing.assert_array_equal(layer(x, "relu").numpy(), F.relu(layer(x)).numpy())


@pytest.mark.skipif(os.environ.get(native.SWITCH) == "0", reason="this is that run")
def test_the_same_without_the_compiler():
    """This file again with the compiled passes off."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", "same_as_paddle"]
    done = subprocess.run(command, env={**os.environ, native.SWITCH: "0"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout     # 5: nothing was collected


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("frozen", [(), (0,)])
def test_same_as_paddle(name, frozen):
    ours, theirs, arrays = CASES[name]
    for got, want in zip(run(ours, arrays, frozen), run(theirs, arrays, frozen)):
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6 * np.abs(want).max())


def test_layer_norm_far_from_zero():
    """A large common offset must not cost the small differences their digits."""
    x, w, b = tensors((4, 64), (64,), (64,))
    x = x + 100.0
    for got, want in zip(run(CASES["layer_norm"][0], [x, w, b]),
                         run(lambda x, w, b: F.layer_norm(x, [64], w, b, 1e-6), [x, w, b])):
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4 * np.abs(want).max())


def test_applies_to_float32_on_the_cpu_only():
    assert ops.usable(paddle.zeros([2], dtype="float32"))
    assert not ops.usable(paddle.zeros([2], dtype="float64"))
