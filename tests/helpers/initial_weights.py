"""Whether initial weights are distributed as the papers say."""
import math

import numpy as np
import pytest


def assert_uniform(tensor, fan_in: int) -> None:
    """Uniform within 1 / sqrt(fan_in), PyTorch's default: the largest of n numbers is as near the bound as n allows."""
    values, bound = tensor.numpy().astype("float64"), 1 / math.sqrt(fan_in)
    largest = np.abs(values).max()
    assert bound * max(1 - 8 / values.size, 0.5) < largest <= bound * (1 + 1e-6)
    assert values.std() == pytest.approx(bound / math.sqrt(3), rel=2 / math.sqrt(values.size))


def assert_normal(tensor, deviation: float) -> None:
    """Normal around 0. Paddle 2.6 cuts a truncated one at two deviations, Paddle 3 does not."""
    values = tensor.numpy().astype("float64")
    assert values.std() == pytest.approx(deviation, rel=max(0.15, 3 / math.sqrt(values.size)))
    assert abs(values.mean()) < 5 * deviation / math.sqrt(values.size)
