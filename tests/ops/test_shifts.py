"""Places of an axis against Paddle's gather, and the layers of them with and without the native kernels."""
import numpy as np
import paddle
import pytest
from helpers.gradients import run_with_gradients
from helpers.marks import needs_native

from passl_mixer import ops
from passl_mixer.backbones.hire_mlp import RegionMlp
from passl_mixer.backbones.s2_mlp_v2 import SplitAttention
from passl_mixer.ops import native

pytestmark = needs_native


def random(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype("float32")


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("places", [[0], [2, 2, 0], [4, 0, 1, 2, 3, 4, 0, 1], list(range(5)) * 20])
def test_places_of_an_axis(axis, places):
    x = random(3, 5, 5, 17)
    found = run_with_gradients(lambda x: ops.take(x, places, axis), [x])
    wanted = run_with_gradients(lambda x: paddle.index_select(x, paddle.to_tensor(places), axis), [x])
    np.testing.assert_array_equal(found[0], wanted[0])
    np.testing.assert_allclose(found[1], wanted[1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize(("side", "size", "shift"), [(8, 4, 0), (8, 4, 2), (7, 3, 0), (7, 3, 2), (2, 3, 1), (1, 4, 2)])
def test_regions(monkeypatch, axis, side, size, shift):
    paddle.seed(0)
    layer = RegionMlp(8, size=size, shift=shift, axis=axis)
    x = random(2, side, side, 8)
    found = run_with_gradients(layer, [x])
    monkeypatch.setattr(native, "load", lambda: None)
    for one, other in zip(found, run_with_gradients(layer, [x])):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_split_attention(monkeypatch):
    layer = SplitAttention(16)
    maps = [random(2, 9, 6, 16) * (k + 1) for k in range(3)]
    found = run_with_gradients(layer, maps)
    monkeypatch.setattr(native, "load", lambda: None)
    for one, other in zip(found, run_with_gradients(layer, maps)):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * np.abs(other).max())
