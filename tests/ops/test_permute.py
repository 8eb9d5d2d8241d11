"""The native copy of axes in another order, against NumPy's transpose."""
import itertools

import numpy as np
import paddle
import pytest
from helpers.marks import needs_native

from passl_mixer import ops

pytestmark = needs_native
# sides under, at and over a tile and a short row; sides of one; enough numbers for every thread
SHAPES = [(1,), (4,), (3, 1), (2, 3, 4), (1, 5, 1, 7), (17, 33), (16, 15, 18), (3, 50, 1, 20), (2, 1, 3, 4, 5),
          (5, 70, 3, 2, 16), (2, 3, 2, 3, 2, 3)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients_in_every_order(shape):
    rng = np.random.default_rng(0)
    values = rng.standard_normal(shape).astype("float32")
    for axes in itertools.islice(itertools.permutations(range(len(shape))), 200):
        x = paddle.to_tensor(values, stop_gradient=False)
        y = ops.permute(x, axes)
        wanted = values.transpose(axes)
        np.testing.assert_array_equal(y.numpy(), wanted)
        gradient = rng.standard_normal(wanted.shape).astype("float32")
        y.backward(paddle.to_tensor(gradient))
        np.testing.assert_array_equal(x.grad.numpy(), gradient.transpose(np.argsort(axes)))


def test_a_view_with_strides():
    x = paddle.arange(60, dtype="float32").reshape([3, 4, 5])
    view = x.transpose([1, 0, 2])[1:3]
    np.testing.assert_array_equal(ops.permute(view, [2, 0, 1]).numpy(), view.numpy().transpose(2, 0, 1))
