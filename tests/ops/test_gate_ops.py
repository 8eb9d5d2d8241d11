"""The passes of gMLP's gate against Paddle's operators: copies and single products, so bit for bit."""
import numpy as np
import paddle
import pytest

from passl_mixer.ops import gate_ops, native

pytestmark = pytest.mark.skipif(native.load() is None, reason=f"no compiled kernels: {native.status()}")
RNG = np.random.default_rng(0)


def gradients(function, arrays, frozen=()) -> list:
    """Output and the gradients of the inputs, None where frozen."""
    inputs = [paddle.to_tensor(a, stop_gradient=i in frozen) for i, a in enumerate(arrays)]
    y = function(*inputs)
    y.backward(paddle.to_tensor(np.random.default_rng(1).standard_normal(y.shape).astype("float32")))
    return [y.numpy(), *(t.grad if t.grad is None else t.grad.numpy() for t in inputs)]


@pytest.mark.parametrize("shape", [[1, 2], [3, 5, 14], [2, 3, 4, 6], [8, 196, 258]])
def test_halves(shape):
    def joined(u, v):           # so that both count, each in its own way
        return 2 * u - v
    x = RNG.standard_normal(shape).astype("float32")
    u, v = gate_ops.halves(paddle.to_tensor(x))
    np.testing.assert_array_equal(np.concatenate([u.numpy(), v.numpy()], -1), x)
    for found, want in zip(gradients(lambda x: joined(*gate_ops.halves(x)), [x]),
                           gradients(lambda x: joined(*x.chunk(2, axis=-1)), [x])):
        np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize("frozen", [(), (0,), (1,)])
@pytest.mark.parametrize("shape", [[1], [3, 5, 7], [8, 196, 129]])
def test_product(shape, frozen):
    arrays = [RNG.standard_normal(shape).astype("float32") for _ in range(2)]
    arrays[0].flat[0] = np.nan
    for found, want in zip(gradients(gate_ops.product, arrays, frozen), gradients(paddle.multiply, arrays, frozen)):
        assert (found is None) == (want is None)
        if want is not None:
            np.testing.assert_array_equal(found, want)


def test_views_with_strides_are_read_as_they_look():
    x = paddle.to_tensor(RNG.standard_normal([4, 6, 5]).astype("float32")).transpose([0, 2, 1])
    for found, want in zip(gate_ops.halves(x), np.split(x.numpy(), 2, -1)):
        np.testing.assert_array_equal(found.numpy(), want)
    np.testing.assert_array_equal(gate_ops.product(x, x).numpy(), x.numpy() ** 2)
