"""Functions and layers run with gradients, and what is compared of them."""
import numpy as np
import paddle


def project(y, seed: int = 1):
    """A scalar, ``y`` weighted at random: a mean of LayerNorm's outputs has next to no gradient, this has."""
    weights = np.random.default_rng(seed).standard_normal(y.shape)
    return (y * paddle.to_tensor(weights.astype(str(y.numpy().dtype)))).sum()


def run_with_gradients(function, arrays, *, frozen=(), parameters=()) -> list:
    """What a function of tensors gives, and the gradients of a random projection of it, as arrays.

    Args:
        function: takes a tensor for every array, returns one tensor or several.
        arrays: NumPy arrays.
        frozen: indices of the inputs that take no gradient.
        parameters: tensors whose gradients follow those of the inputs.
    Returns:
        Outputs, gradients of the inputs, gradients of the parameters; None where there is no gradient.
    """
    inputs = [paddle.to_tensor(array, stop_gradient=i in frozen) for i, array in enumerate(arrays)]
    outputs = function(*inputs)
    outputs = list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
    paddle.add_n([project(y, seed) for seed, y in enumerate(outputs, 1)]).backward()
    gradients = [None if t.grad is None else t.grad.numpy() for t in (*inputs, *parameters)]
    return [*(y.numpy() for y in outputs), *gradients]


def assert_close(results, expected, tolerance: float = 1e-6, floor: float = 0.0) -> None:
    """Arrays or tensors that are equal but for ``tolerance`` of the largest number of each pair.

    ``floor`` is the least that counts as the largest: of a gradient that is 0 but for rounding, say.
    """
    assert len(results) == len(expected)
    for ours, theirs in zip(results, expected):
        assert (ours is None) == (theirs is None)
        if theirs is not None:
            ours, theirs = np.asarray(ours), np.asarray(theirs)
            assert ours.shape == theirs.shape
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * max(np.abs(theirs).max(), floor))


def differences(function, arrays, which: int, step: float = 1e-5):
    """The gradient of a scalar function of arrays by central differences."""
    gradient = np.zeros_like(arrays[which])
    for place in np.ndindex(*gradient.shape):
        sides = []
        for sign in (step, -step):
            moved = [array.copy() for array in arrays]
            moved[which][place] += sign
            sides.append(function(*moved))
        gradient[place] = (sides[0] - sides[1]) / (2 * step)
    return gradient


def gradients_of(layer) -> dict:
    """``{name: gradient}`` of the parameters that have one."""
    return {name: p.grad.numpy() for name, p in layer.named_parameters() if p.grad is not None}


def assert_every_parameter_learns(layer, *outputs, without=()) -> None:
    """Every trainable parameter gets a finite gradient that is not 0 from a random projection of the outputs.

    ``without``: ends of the names of parameters that have no effect, as of a bias before a BatchNorm.
    """
    paddle.add_n([project(y, seed) for seed, y in enumerate(outputs, 1)]).backward()
    for name, parameter in layer.named_parameters():
        if not parameter.stop_gradient:
            assert parameter.grad is not None, name
            assert bool(paddle.isfinite(parameter.grad).all()), name
            assert name.endswith(tuple(without)) or float(parameter.grad.abs().max()) > 0, name
