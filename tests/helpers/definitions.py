"""Layers as their papers define them, in slow NumPy and float64."""
import math

import numpy as np


def cosine(a, b):
    return (a @ b) / math.sqrt(a @ a) / math.sqrt(b @ b)


def unit(rows):
    """Rows of length one."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def gelu(x):
    return np.vectorize(lambda v: 0.5 * v * (1 + math.erf(v / math.sqrt(2))))(x)


def linear(layer, x):
    """``x @ weight``, and the bias where there is one; x [..., C]."""
    y = x @ layer.weight.numpy().astype("float64")
    return y if layer.bias is None else y + layer.bias.numpy()


def layer_norm(layer, x, epsilon: float = 1e-5):
    y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)
    return y * layer.weight.numpy() + layer.bias.numpy()


def batch_norm(layer, x, epsilon: float = 1e-5):
    """By the running statistics; x [..., C]."""
    y = (x - layer._mean.numpy()) / np.sqrt(layer._variance.numpy() + epsilon)
    return y * layer.weight.numpy() + layer.bias.numpy()


def attention(layer, x, *, causal: bool = False):
    """One head, one query at a time, over all tokens or those up to its own; x [N, C]."""
    depth = x.shape[1] // layer.num_heads
    query, key, value = np.split(linear(layer.qkv, x), 3, axis=1)
    mixed = np.zeros_like(x)
    for head in range(layer.num_heads):
        own = slice(head * depth, (head + 1) * depth)
        for i in range(len(x)):
            seen = range(i + 1 if causal else len(x))
            weights = [math.exp(query[i, own] @ key[j, own] / math.sqrt(depth)) for j in seen]
            mixed[i, own] = sum(w * value[j, own] for j, w in zip(seen, weights)) / sum(weights)
    return linear(layer.proj, mixed)
