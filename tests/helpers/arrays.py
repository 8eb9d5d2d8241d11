"""Dictionaries of arrays: a layer's state before and after, files and what is read of them."""
import numpy as np


def state_of(layer) -> dict:
    return {name: value.numpy().copy() for name, value in layer.state_dict().items()}


def differing(one: dict, other: dict) -> set:
    """Names of the arrays that differ."""
    return {name for name in one if not np.array_equal(one[name], other[name])}


def assert_same(results: dict, expected: dict) -> None:
    """The same names, types and numbers, bit for bit."""
    assert set(results) == set(expected)
    for name, value in expected.items():
        assert results[name].dtype == value.dtype, name
        np.testing.assert_array_equal(results[name], value, strict=True, err_msg=name)


def random_state(layer, seed: int = 0) -> dict:
    """Arrays for a layer, of which every number is its own."""
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=value.shape).astype(np.float32) for name, value in layer.state_dict().items()}
