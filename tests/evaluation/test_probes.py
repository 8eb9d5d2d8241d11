"""Classifiers on features, against slow definitions."""
import numpy as np
import pytest

from passl_mixer.errors import BadInput
from passl_mixer.evaluation.probes import few_label_accuracy, knn_accuracy, linear_probe


def blobs(count, classes=4, width=6, spread=0.7, seed=0):
    centres = np.random.default_rng(99).standard_normal((classes, width))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    return (centres[labels] + spread * rng.standard_normal((count, width))).astype("float32"), labels.astype("int64")


def slow_knn(bank, bank_labels, queries, labels, k, temperature):
    right = 0
    for query, label in zip(queries, labels):
        similarity = [float(query @ row / np.linalg.norm(query) / np.linalg.norm(row)) for row in bank]
        nearest = sorted(range(len(bank)), key=lambda i: -similarity[i])[:k]
        votes = {}
        for i in nearest:
            votes[bank_labels[i]] = votes.get(bank_labels[i], 0.0) + np.exp(similarity[i] / temperature)
        right += max(votes, key=votes.get) == label
    return right / len(queries)


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.1), (5, 0.07), (20, 1.0)])
@pytest.mark.parametrize("blocks", [(1024, 65536), (7, 13)])
def test_knn_is_its_definition_in_any_blocks(k, temperature, blocks):
    bank, bank_labels = blobs(60)
    queries, labels = blobs(40, seed=1)
    found = knn_accuracy(bank, bank_labels, queries, labels, k=k, temperature=temperature,
                         query_block=blocks[0], bank_block=blocks[1])
    assert found == slow_knn(bank, bank_labels, queries, labels, k, temperature)
    assert 0.3 < found < 1.0


@pytest.mark.parametrize("temperature", [0.0, -0.1, float("nan")])
def test_knn_needs_a_positive_temperature(temperature):
    bank, labels = blobs(10)
    with pytest.raises(BadInput, match=r"evaluate.knn.temperature is .*, expected a number above 0"):
        knn_accuracy(bank, labels, bank, labels, k=3, temperature=temperature)


def test_linear_probe_finds_what_is_linear_and_only_that():
    train, labels = blobs(400, spread=0.2)
    test, truth = blobs(200, spread=0.2, seed=1)
    settings = {"epochs": 20, "lr": 1.0, "batch_size": 64}
    assert linear_probe(train, labels, test, truth, **settings) > 0.95
    shuffled = np.random.default_rng(0).permutation(labels)
    assert linear_probe(train, shuffled, test, truth, **settings) < 0.5
    assert linear_probe(1000 * train + 5, labels, 1000 * test + 5, truth, **settings) > 0.95, "scale must not matter"


def probe_in_numpy(train, labels, test, truth, *, epochs, lr, batch_size):
    """Stochastic gradient descent from 0 with momentum 0.9; the rate falls from lr * batch / 256 to 0 by a cosine."""
    mean, deviation = train.mean(axis=0), train.std(axis=0) + 1e-6
    x, z = ((part - mean) / deviation / np.sqrt(train.shape[1]) for part in (train, test))
    x, z = (np.hstack([part, np.ones((len(part), 1))]) for part in (x, z))
    w = velocity = np.zeros((x.shape[1], labels.max() + 1))
    rng, steps, step = np.random.default_rng(0), epochs * (len(x) // batch_size), 0
    for _ in range(epochs):
        order = rng.permutation(len(x))
        for start in range(0, len(x) - batch_size + 1, batch_size):
            rows = order[start:start + batch_size]
            p = np.exp(x[rows] @ w)
            p /= p.sum(axis=1, keepdims=True)
            velocity = 0.9 * velocity + x[rows].T @ (p - np.eye(w.shape[1])[labels[rows]]) / batch_size
            w = w - lr * batch_size / 256 * 0.5 * (1 + np.cos(np.pi * step / steps)) * velocity
            step += 1
    return float(((z @ w).argmax(axis=1) == truth).mean())


def test_linear_probe_takes_the_rate_as_it_is_given():
    """On overlapping classes, where few steps at another rate end elsewhere: a tenth, and ten times as much."""
    rng = np.random.default_rng(2)
    labels, truth = rng.integers(0, 4, 300), rng.integers(0, 4, 2000)
    centres = rng.standard_normal((4, 12))
    train, test = ((centres[y] + 3 * rng.standard_normal((len(y), 12))).astype(np.float32) for y in (labels, truth))
    found = {lr: linear_probe(train, labels, test, truth, epochs=3, lr=lr, batch_size=64) for lr in (0.1, 1.0, 10.0)}
    assert len(set(found.values())) == 3
    for lr, accuracy in found.items():
        assert accuracy == pytest.approx(
            probe_in_numpy(train, labels, test, truth, epochs=3, lr=lr, batch_size=64), abs=1.1 / len(truth))


@pytest.mark.parametrize("width", [6, 30])          # fewer features than the 8 labelled images, and more
def test_few_labels_agrees_with_a_separate_solver(width):
    """The same draws, centred and scaled, solved one by one by plain gradient descent to convergence."""
    train, labels = blobs(80, width=width, spread=0.7 if width == 6 else 3)
    test, truth = blobs(120, width=width, spread=0.7 if width == 6 else 3, seed=1)
    found = few_label_accuracy(train, labels, test, truth, labels_per_class=2, draws=3, l2=0.05, seed=5, iterations=400)
    mean = train.mean(axis=0)
    unit = lambda x: (x - mean) / np.linalg.norm(x - mean, axis=1, keepdims=True)  # noqa: E731
    rng, slow = np.random.default_rng(5), []
    members = [np.flatnonzero(labels == c) for c in range(4)]
    for _ in range(3):
        rows = np.concatenate([rng.choice(m, 2, replace=False) for m in members])
        x, y, w = unit(train)[rows].astype("float64"), np.eye(4)[labels[rows]], np.zeros((width, 4))
        for _ in range(3000):
            p = np.exp(x @ w)
            p /= p.sum(axis=1, keepdims=True)
            w -= 1.0 * (x.T @ (p - y) / len(x) + 0.05 * w)
        slow.append(np.mean((unit(test) @ w).argmax(axis=1) == truth))
    assert found == pytest.approx(np.mean(slow), abs=1e-6)


def test_few_labels_draws_do_not_depend_on_the_features():
    """Features that say the class outright are classified perfectly from one label, whatever was drawn."""
    labels = np.repeat(np.arange(3), 5)
    features = np.eye(3, dtype="float32")[labels]
    assert few_label_accuracy(features, labels, features, labels, labels_per_class=1, draws=4, l2=0.01) == 1.0


def test_probes_need_enough_images():
    train, labels = blobs(10)
    with pytest.raises(BadInput, match=r"evaluate.knn.k is 11 but the bank holds 10"):
        knn_accuracy(train, labels, train, labels, k=11, temperature=0.1)
    with pytest.raises(BadInput, match="labels per class are more than the"):
        few_label_accuracy(train, labels, train, labels, labels_per_class=50, draws=2, l2=0.1)
