"""The CPU operators give what Paddle's own give, forward and backward, and only where they apply."""
import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from passl_mixer.backbones import ops

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
    "linear": (ops.linear, F.linear, tensors((3, 5, 7), (7, 4), (4,))),
    "linear on rows": (ops.linear, F.linear, tensors((6, 7), (7, 4), (4,))),
    "token_linear": (ops.token_linear, lambda x, w, b: paddle.matmul(w, x) + b.unsqueeze(-1),
                     tensors((3, 5, 7), (4, 5), (4,))),
    "layer_norm": (lambda x, w, b: ops.layer_norm(x, w, b, 1e-6), lambda x, w, b: F.layer_norm(x, [7], w, b, 1e-6),
                   tensors((3, 5, 7), (7,), (7,))),
}


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
