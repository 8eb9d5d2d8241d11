"""Classifiers on cached features: weighted kNN, a linear probe, logistic regressions on a few labels.

kNN: Wu et al. 2018, arXiv:1805.01978, section 3.4 (votes weighted by exp(similarity / temperature)).
Shapes: N training ("bank") images, M test images ("queries"), D features, C classes, T draws.
"""
import numpy as np
import paddle
import paddle.nn.functional as F

from passl_mixer.errors import BadInput
from passl_mixer.evaluation.neighbours import nearest

_VOTE_ROWS = 1024        # queries whose votes are counted at a time


def knn_accuracy(bank, bank_labels, queries, labels, *, k: int, temperature: float, query_block: int = 1024,
                 bank_block: int = 4096) -> float:
    """Accuracy of the weighted k-nearest-neighbour classifier under cosine similarity.

    Args:
        bank: features of the neighbours, [N, D].
        bank_labels: int64 [N].
        queries: features to classify, [M, D].
        labels: of the queries, int64 [M].
        k: neighbours; at most N.
        temperature: votes weigh exp(similarity / temperature); > 0.
        query_block, bank_block: rows compared at a time, as in ``nearest``.
    Returns:
        Fraction of queries classified correctly, 0 to 1.
    Raises:
        BadInput: k larger than the bank, or a temperature that is not positive.
    """
    if not temperature > 0:
        raise BadInput(f"evaluate.knn.temperature is {temperature}, expected a number above 0")
    if k > len(bank):
        raise BadInput(f"evaluate.knn.k is {k} but the bank holds {len(bank)} images; expected k <= bank images")
    similarities, rows = nearest(queries, bank, k, query_rows=query_block, bank_rows=bank_block)
    votes = np.exp((similarities - similarities[:, :1]) / temperature)
    voters, classes = bank_labels[rows], int(max(bank_labels.max(), labels.max())) + 1
    correct = 0
    for start in range(0, len(queries), _VOTE_ROWS):
        part = slice(start, start + _VOTE_ROWS)
        places = voters[part] + classes * np.arange(len(voters[part]))[:, None]
        scores = np.bincount(places.ravel(), votes[part].ravel(), classes * len(places)).reshape(-1, classes)
        known = ~np.isnan(scores).any(axis=1)           # features that are NaN are classified wrongly
        correct += int((known & (scores.argmax(axis=1) == labels[part])).sum())
    return correct / len(queries)


def linear_probe(train, train_labels, test, test_labels, *, epochs: int, lr: float, batch_size: int,
                 weight_decay: float = 0.0, seed: int = 0) -> float:
    """Accuracy of a linear classifier trained on cached features by SGD (momentum 0.9, cosine to 0).

    Features are standardised with the training features' mean and deviation, then divided by the square root of their
    width, so that rows have length 1 on average. Protocol: linear evaluation as in Chen et al. 2020,
    arXiv:2002.05709, appendix B.6, without augmentation and without Nesterov's form.

    Args:
        train, test: features [N, D], [M, D].
        train_labels, test_labels: int64 [N], [M].
        epochs: passes over the training features.
        lr: of the first step, for batches of 256; scaled linearly with the batch. It is for rows of length 1, so larger
            than the rates of published linear evaluations, which are for unscaled features.
        batch_size: features per step.
        weight_decay: L2 factor on the weights.
        seed: of the order of batches.
    Returns:
        Fraction of test features classified correctly, 0 to 1.
    """
    mean, deviation = train.mean(axis=0), train.std(axis=0) + 1e-6
    train, test = (_standardised(features, mean, deviation) for features in (train, test))
    classes = int(max(train_labels.max(), test_labels.max())) + 1
    batch_size = min(batch_size, len(train))
    steps = epochs * (len(train) // batch_size)
    peak = lr * batch_size / 256
    w = paddle.zeros([train.shape[1], classes])
    velocity = paddle.zeros_like(w)
    rng = np.random.default_rng(seed)
    targets = np.eye(classes, dtype=np.float32)
    batch = np.empty([batch_size, train.shape[1]], np.float32)
    step = 0
    with paddle.no_grad():
        for _ in range(epochs):
            order = rng.permutation(len(train))
            for start in range(0, len(train) - batch_size + 1, batch_size):
                rows = order[start:start + batch_size]
                x = paddle.to_tensor(np.take(train, rows, axis=0, out=batch, mode="clip"))
                error = F.softmax(x @ w, axis=1) - paddle.to_tensor(targets[train_labels[rows]])
                gradient = paddle.matmul(x, error, transpose_x=True) / batch_size + weight_decay * w
                velocity = 0.9 * velocity + gradient
                w = w - 0.5 * peak * (1 + np.cos(np.pi * step / steps)) * velocity
                step += 1
        w = w.numpy()
    predicted = (test @ w).argmax(axis=1)
    return float((predicted == test_labels).mean())


def _standardised(features, mean, deviation) -> np.ndarray:
    """Features in units of the deviation over the root of their width, and a column of ones for the bias, [N, D + 1].

    Rows have length 1 on average, so that one learning rate fits any width.
    """
    made = np.ones([len(features), features.shape[1] + 1], np.float32)
    columns = made[:, :-1]
    np.subtract(features, mean, out=columns)
    columns /= deviation
    columns *= np.float32(1.0 / np.sqrt(features.shape[1]))
    return made


def _normalise(features: np.ndarray) -> np.ndarray:
    return features / np.maximum(np.linalg.norm(features, axis=-1, keepdims=True), 1e-12)


def few_label_accuracy(train, train_labels, test, test_labels, *, labels_per_class: int, draws: int, l2: float,
                       seed: int = 0, iterations: int = 200) -> float:
    """Mean accuracy of L2-regularised logistic regressions, each on a few labelled images per class.

    Features are centred with the mean of all training images, labelled or not, and scaled to unit length (Wang et al.
    2019, "SimpleShot", arXiv:1911.04623, section 3.1: CL2N). All draws are fitted at once by Nesterov's method, whose
    step follows from the smoothness of the loss.

    Args:
        train, test: features [N, D], [M, D].
        train_labels, test_labels: int64 [N], [M].
        labels_per_class: labelled images drawn for each class, without replacement.
        draws: independent draws; the mean over them is returned.
        l2: weight of ||W||^2 / 2; > 0.
        seed: of the draws, which do not depend on the features.
        iterations: of Nesterov's method.
    Returns:
        Mean fraction of test features classified correctly, 0 to 1.
    Raises:
        BadInput: a class has fewer images than ``labels_per_class``.
    """
    classes = np.unique(train_labels)
    members = [np.flatnonzero(train_labels == c) for c in classes]
    smallest = min(map(len, members))
    if smallest < labels_per_class:
        raise BadInput(f"{labels_per_class} labels per class are more than the {smallest} images of a class; "
                       "remove it from evaluate.at_end")
    mean = train.mean(axis=0)
    rng = np.random.default_rng(seed)
    chosen = np.stack([np.concatenate([rng.choice(m, labels_per_class, replace=False) for m in members])
                       for _ in range(draws)])                                          # [T, n]
    x = _normalise(train[chosen] - mean)                                                # [T, n, D]
    y = np.tile(np.repeat(np.eye(len(classes), dtype=np.float32), labels_per_class, axis=0), (draws, 1, 1))
    w = _logistic_regression(x, y, l2, iterations)
    scores = _normalise(test - mean) @ w.transpose(1, 0, 2).reshape(w.shape[1], -1)     # [M, T * C]
    predicted = scores.reshape(len(test), draws, -1).argmax(axis=2)
    return float(np.mean(predicted == np.searchsorted(classes, test_labels)[:, None]))


def _logistic_regression(x: np.ndarray, y: np.ndarray, l2: float, iterations: int) -> np.ndarray:
    """Weights [T, D, C] of least mean cross entropy + l2 ||W||^2 / 2; unit rows x [T, n, D], one-hot y [T, n, C].

    From 0 on, the weights are sums of the rows. Where there are fewer rows than features, the shares of the rows are
    iterated, [T, n, C]: the same steps, with products of n x n instead of n x D.
    """
    by_shares = x.shape[1] < x.shape[2]
    inputs = x @ np.swapaxes(x, 1, 2) if by_shares else x
    step = 1.0 / (0.5 + l2)                   # the softmax Hessian is at most 1/2 for rows of unit length
    root = np.sqrt(l2 * step)
    momentum = (1 - root) / (1 + root)
    w = lookahead = np.zeros((x.shape[0], inputs.shape[2], y.shape[2]), np.float32)
    for _ in range(iterations):
        logits = inputs @ lookahead
        p = np.exp(logits - logits.max(axis=2, keepdims=True))
        p /= p.sum(axis=2, keepdims=True)
        gradient = (p - y if by_shares else np.swapaxes(x, 1, 2) @ (p - y)) / x.shape[1] + l2 * lookahead
        following = lookahead - step * gradient
        lookahead = following + momentum * (following - w)
        w = following
    return np.swapaxes(x, 1, 2) @ w if by_shares else w
