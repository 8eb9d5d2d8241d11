"""The largest numbers of rows, block by block, against a stable sort by NumPy; the native kernel and the reference."""
import numpy as np
import paddle
import pytest
from helpers.marks import needs_native

from passl_mixer.ops import native, table
from passl_mixer.ops.selection import KEEP_LARGEST, NO_COLUMN, nothing_kept

WAYS = [pytest.param(KEEP_LARGEST, marks=needs_native, id="native"),
        pytest.param(KEEP_LARGEST.reference, id="reference")]


def kept(way, x, k: int, block: int) -> tuple:
    """``(values, columns)`` that a way keeps of x, blocks of so many columns, in falling order."""
    best = nothing_kept(len(x), k)
    for first in range(0, x.shape[1], block):
        best = way(paddle.to_tensor(x[:, first:first + block]), *best, first)
    values, columns = (part.numpy() for part in best)
    order = np.lexsort((columns, -values), axis=1)
    return np.take_along_axis(values, order, 1), np.take_along_axis(columns, order, 1)


def rows(rng, count: int, width: int, kind: str) -> np.ndarray:
    x = rng.standard_normal((count, width)) if kind == "different" else rng.integers(-2, 3, (count, width))
    x = x.astype(np.float32)
    if kind == "nan":
        x[rng.random(x.shape) < 0.3] = np.nan
    if kind == "infinite":
        x[rng.random(x.shape) < 0.3] = np.inf
        x[rng.random(x.shape) < 0.3] = -np.inf
        x[rng.random(x.shape) < 0.1] = -0.0
    if kind == "zero":
        x = np.where(rng.random(x.shape) < 0.5, np.float32(0.0), np.float32(-0.0))
    if kind == "rising":
        x = np.sort(x, axis=1)
    return x


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["different", "equal", "nan", "infinite", "zero", "rising"])
def test_a_stable_sort_keeps_the_same(way, kind):
    rng = np.random.default_rng(0)
    for width, k, block in ((1, 1, 1), (7, 7, 3), (130, 1, 64), (200, 20, 65), (200, 199, 200), (300, 300, 128),
                            (1000, 17, 1000)):
        x = rows(rng, 5, width, kind)
        expected = np.argsort(-x, axis=1, kind="stable")[:, :k]
        values, columns = kept(way, x, k, block)
        np.testing.assert_array_equal(columns, expected)
        np.testing.assert_array_equal(values, np.take_along_axis(x, expected, 1))


@pytest.mark.parametrize("way", WAYS)
def test_numbers_that_are_all_nan_are_kept_in_order(way):
    values, columns = kept(way, np.full((2, 5), np.nan, np.float32), 3, 2)
    assert np.isnan(values).all()
    assert columns.tolist() == [[0, 1, 2]] * 2


@needs_native
def test_many_rows_at_once_and_views_with_strides():
    x = np.random.default_rng(1).standard_normal((300, 900)).astype(np.float32)
    best = KEEP_LARGEST(paddle.to_tensor(np.ascontiguousarray(x.T)).t(), *nothing_kept(300, 9), 0)
    expected = np.sort(np.argsort(-x, axis=1)[:, :9], axis=1)
    np.testing.assert_array_equal(np.sort(best[1].numpy(), axis=1), expected)


@needs_native
def test_only_float32_is_native_and_columns_have_an_end():
    x = paddle.zeros([2, 3])
    assert table.choose(KEEP_LARGEST, (x, *nothing_kept(2, 1), 0)) is not KEEP_LARGEST.reference
    assert table.choose(KEEP_LARGEST, (x.astype("float64"), *nothing_kept(2, 1), 0)) is KEEP_LARGEST.reference
    KEEP_LARGEST(x, *nothing_kept(2, 1), NO_COLUMN - 3)
    with pytest.raises(ValueError, match="sizes that do not fit together"):
        KEEP_LARGEST(x, *nothing_kept(2, 1), NO_COLUMN - 2)
    with pytest.raises(ValueError, match="expected 6 elements"):
        native.call("keep_largest", paddle.zeros([2, 2]), *nothing_kept(2, 1), 2, 3, 1, 0)
