"""The evaluations of a race on PyTorch: weighted kNN (arXiv:1805.01978), and regressions on one label per class.

The few-label protocol is SimpleShot's normalisation (arXiv:1911.04623, CL2N) and L2-regularised logistic regression on
random labelled images, the mean over draws. It is NumPy alone, as it is computed when the clock has stopped.
Shapes: N training ("bank") images, M test images, D features.
"""
import numpy as np


def spaced(labels: np.ndarray, count: int) -> np.ndarray:
    """Indices of ``count`` images spaced evenly over the images in the order of their classes."""
    order = np.argsort(labels, kind="stable")
    return np.sort(order[np.linspace(0, len(order) - 1, count).round().astype(int)])


def knn(bank, bank_labels, queries, labels, *, k: int, temperature: float) -> float:
    """Accuracy of the weighted k nearest neighbours under cosine similarity, 0 to 1; torch tensors.

    Args:
        bank, queries: features, [N, D] and [M, D].
        bank_labels, labels: int64 [N] and [M].
        k: neighbours.
        temperature: votes weigh exp(similarity / temperature).
    """
    import torch
    import torch.nn.functional as F

    bank, classes, correct = F.normalize(bank), int(bank_labels.max()) + 1, 0
    for rows, truth in zip(queries.split(1024), labels.split(1024)):
        similarity, nearest = (F.normalize(rows) @ bank.t()).topk(k)
        votes = torch.zeros(len(rows), classes)
        votes.scatter_add_(1, bank_labels[nearest], ((similarity - 1) / temperature).exp())
        correct += int((votes.argmax(1) == truth).sum())
    return correct / len(queries)


def few_labels(train, train_labels, test, test_labels, *, labels_per_class: int, draws: int, l2: float,
               seed: int = 0, iterations: int = 200) -> float:
    """Mean accuracy over random choices of the labelled images, 0 to 1; NumPy arrays.

    Args:
        train, test: features, [N, D] and [M, D].
        train_labels, test_labels: 0 to C - 1, [N] and [M].
        labels_per_class: labelled images of each class.
        draws: choices.
        l2: weight of ||W||^2 / 2.
        seed: of the choices.
        iterations: of Nesterov's method for a strongly convex function.
    """
    centre = train.mean(axis=0)
    train, test = ((x - centre) / np.maximum(np.linalg.norm(x - centre, axis=1, keepdims=True), 1e-12)
                   for x in (train, test))
    classes, draw, correct = int(train_labels.max()) + 1, np.random.default_rng(seed), []
    for _ in range(draws):
        rows = np.concatenate([draw.choice(np.flatnonzero(train_labels == c), labels_per_class, replace=False)
                               for c in range(classes)])
        weights = regression(train[rows], np.eye(classes)[train_labels[rows]], l2, iterations)
        correct.append(((test @ weights).argmax(axis=1) == test_labels).mean())
    return float(np.mean(correct))


def regression(x, targets, l2: float, iterations: int) -> np.ndarray:
    """Weights [D, C] of the regularised multinomial regression of one-hot targets [n, C] on unit rows x [n, D]."""
    rate = 1.0 / (0.5 + l2)             # the Hessian of the cross entropy is at most 1/2 for rows of length 1
    inertia = (1 - np.sqrt(l2 * rate)) / (1 + np.sqrt(l2 * rate))
    here = ahead = np.zeros((x.shape[1], targets.shape[1]))
    for _ in range(iterations):
        scores = x @ ahead
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        before, here = here, ahead - rate * (x.T @ (shares - targets) / len(x) + l2 * ahead)
        ahead = here + inertia * (here - before)
    return here
