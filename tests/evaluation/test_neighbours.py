"""The nearest features, against all similarities in float64 and a stable sort."""
import numpy as np
import pytest

from passl_mixer.errors import BadInput
from passl_mixer.evaluation import neighbours
from passl_mixer.evaluation.neighbours import nearest
from passl_mixer.evaluation.probes import knn_accuracy


def cosines(queries, bank) -> np.ndarray:
    a, b = (x.astype(np.float64) for x in (queries, bank))
    return a @ b.T / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)


def axes(rng, count: int, width: int) -> np.ndarray:
    """Features along one axis each, of length 0.5, 1 or 2: their cosines are -1, 0 and 1 exactly."""
    x = np.zeros((count, width), np.float32)
    x[np.arange(count), rng.integers(0, width, count)] = rng.choice([-2, -1, -0.5, 0.5, 1, 2], count)
    return x


@pytest.mark.parametrize("blocks", [(1024, 4096), (7, 13), (1, 1), (40, 64)])
@pytest.mark.parametrize("k", [1, 5, 64])
def test_all_similarities_sorted(k, blocks):
    rng = np.random.default_rng(k)
    bank, queries = (rng.standard_normal((n, 24)).astype(np.float32) * 10 for n in (64, 40))
    exact = cosines(queries, bank)
    expected = np.argsort(-exact, axis=1, kind="stable")[:, :k]
    similarities, rows = nearest(queries, bank, k, query_rows=blocks[0], bank_rows=blocks[1])
    assert (similarities.dtype, rows.dtype) == (np.float32, np.int64)
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_allclose(similarities, np.take_along_axis(exact, expected, 1), atol=1e-6)


@pytest.mark.parametrize("blocks", [(1024, 4096), (5, 17)])
@pytest.mark.parametrize("k", [1, 30, 200])
def test_of_equal_similarities_the_lower_row_is_first(k, blocks):
    rng = np.random.default_rng(0)
    bank, queries = axes(rng, 200, 4), axes(rng, 23, 4)
    exact = cosines(queries, bank)
    expected = np.argsort(-exact, axis=1, kind="stable")[:, :k]
    similarities, rows = nearest(queries, bank, k, query_rows=blocks[0], bank_rows=blocks[1])
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_array_equal(similarities, np.take_along_axis(exact, expected, 1))


def test_nan_is_last_and_zeros_are_similar_to_nothing():
    bank = axes(np.random.default_rng(0), 12, 3)
    bank[[2, 5], [0, 2]] = np.nan
    bank[7] = 0
    queries = np.float32([[1, 0, 0], [0, np.nan, 1], [0, 0, 0]])
    similarities, rows = nearest(queries, bank, 12)
    assert rows[0, -2:].tolist() == [2, 5]
    assert np.isnan(similarities[0, -2:]).all()
    assert not np.isnan(similarities[0, :-2]).any()
    assert similarities[0, rows[0] == 7] == 0
    assert np.isnan(similarities[1]).all()
    assert rows[1].tolist() == list(range(12))
    assert similarities[2, :-2].tolist() == [0] * 10


def test_queries_in_several_passes_over_the_bank(monkeypatch):
    rng = np.random.default_rng(0)
    bank, queries = (rng.standard_normal((n, 6)).astype(np.float32) for n in (50, 31))
    once = nearest(queries, bank, 4)
    monkeypatch.setattr(neighbours, "_QUERIES", 6 * 8)
    monkeypatch.setattr(neighbours, "_BLOCK", 6 * 9)
    for a, b in zip(once, nearest(queries, bank, 4)):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_what_does_not_fit_is_said():
    x = np.ones((4, 3), np.float32)
    with pytest.raises(BadInput, match=r"queries are \[4, 3\] and the bank is \[4, 2\]"):
        nearest(x, x[:, :2], 1)
    with pytest.raises(BadInput, match=r"queries are \[3\]"):
        nearest(x[0], x, 1)
    for k in (0, 5):
        with pytest.raises(BadInput, match=f"k is {k} and the bank holds 4 features"):
            nearest(x, x, k)
    for result in nearest(x[:0], x, 2):
        assert result.shape == (0, 2)


def test_a_query_that_is_nan_is_classified_wrongly():
    bank, labels = np.eye(3, dtype=np.float32), np.arange(3)
    queries = bank.copy()
    assert knn_accuracy(bank, labels, queries, labels, k=2, temperature=0.1) == 1.0
    queries[0, 1] = np.nan
    assert knn_accuracy(bank, labels, queries, labels, k=2, temperature=0.1) == pytest.approx(2 / 3)
