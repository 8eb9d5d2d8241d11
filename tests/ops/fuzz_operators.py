"""Random calls of every operator of the table: ``python fuzz_operators.py SEED SECONDS``; run by test_fuzz.py.

Shapes, options, types and strides are drawn, some of them wrong on purpose. What ``choose`` takes is held to the
reference: both raise, or both give the same numbers and gradients. Every call is said before it is made, so that the
last line of a process that died names it.
"""
import sys
import time
import warnings

import numpy as np
import paddle

from passl_mixer import ops

warnings.simplefilter("ignore")
paddle.set_device("cpu")
LAYOUTS = ("NCHW", "NHWC")
ACTS = (None, "gelu", "gelu_tanh", "relu", "quick_gelu")
WRONG = 0.1         # share of the calls with one size changed


class Draw:
    """Random choices of one call."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)

    def size(self, low: int = 1, high: int = 9) -> int:
        return int(self.rng.integers(low, high + 1))

    def shape(self, axes: int) -> list:
        """Sides of 1 to 9; sometimes of a hundred, for several threads; sometimes none at all."""
        sides = [self.size() for _ in range(axes)]
        if self.rng.random() < 0.1:
            sides[int(self.rng.integers(axes))] = int(self.rng.integers(60, 130))
        if self.rng.random() < 0.05:
            sides[0] = 0
        return sides

    def of(self, options):
        return options[int(self.rng.integers(len(options)))]

    def chance(self, share: float = 0.5) -> bool:
        return bool(self.rng.random() < share)


def _map(draw):
    return draw.shape(4)


def linear(draw):
    x, outputs = draw.shape(draw.size(1, 4)), draw.size()
    return [x, [x[-1], outputs], [outputs] if draw.chance(0.8) else None], [draw.of(ACTS)]


def token_linear(draw):
    x, outputs = draw.shape(3), draw.size()
    return [x, [outputs, x[1]], [outputs]], [draw.of(ACTS)]


def mlp(draw):
    x, hidden, outputs = draw.shape(draw.size(2, 4)), draw.size(), draw.size()
    return [x, [x[-1], hidden], [hidden], [hidden, outputs], [outputs]], [draw.of(ACTS)]


def token_mlp(draw):
    x, hidden, outputs = draw.shape(3), draw.size(), draw.size()
    return [x, [hidden, x[1]], [hidden], [outputs, hidden], [outputs]], [draw.of(ACTS)]


def matmul(draw):
    a, columns, transposed = draw.shape(draw.size(3, 4)), draw.size(), draw.chance()
    return [a, [*a[:-2], columns, a[-1]] if transposed else [*a[:-2], a[-1], columns]], [transposed]


def activate(draw):
    return [draw.shape(draw.size(1, 4))], [draw.of(ACTS[1:])]


def softmax(draw):
    x = draw.shape(draw.size(1, 4))
    return [x], [int(draw.rng.integers(-len(x), len(x)))]


def norm(draw):
    x = draw.shape(draw.size(2, 4))
    return [x, x[-1:], x[-1:]], [1e-5]


def batch_norm(draw):
    layout, x = draw.of(LAYOUTS), draw.shape(draw.of((2, 4)))
    channels = [x[1] if layout == "NCHW" else x[-1]]
    residual = list(x) if draw.chance(0.3) else None
    return [x, *[list(channels) for _ in range(4)], residual], [draw.chance(), 0.9, 1e-3, layout, draw.of(ACTS),
                                                                draw.of(ACTS)]


def channel_sums(draw):
    return ([_map(draw)], [draw.of(LAYOUTS)]) if draw.chance() else ([draw.shape(2)], ["NC"])


def conv2d(draw):
    layout, x, groups = draw.of(LAYOUTS), _map(draw), draw.of((1, 1, 1, 2, 3))
    kind = draw.of(("any", "any", "depthwise", "pairs"))
    if kind == "depthwise":
        side, channels = draw.of((1, 3, 5, 7, 9, 11)), x[1]
        weight, stride, padding, groups = [channels, 1, side, side], 1, side // 2, channels
    elif kind == "pairs":
        side, channels = draw.of((1, 3, 7)), draw.size()
        kernel = [side, 1] if draw.chance() else [1, side]
        weight, stride, padding, groups = [channels, 2, *kernel], 1, [length // 2 for length in kernel], channels
        x[1] = 2 * channels
    else:
        inputs = draw.size(1, 5)
        weight = [groups * draw.size(1, 4), inputs, draw.size(1, 5), draw.size(1, 5)]
        x[1], stride, padding = groups * inputs, draw.size(1, 4), draw.of((0, 1, 2, [1, 0], [0, 2]))
    if layout == "NHWC":
        x = [x[0], *x[2:], x[1]]
    return [x, weight, weight[:1] if draw.chance() else None], [stride, padding, groups, layout]


def max_pool2d(draw):
    kernel = draw.of((1, 2, 3, 5, 17))
    return [_map(draw)], [kernel, draw.size(1, 3), draw.size(0, kernel // 2), draw.of(LAYOUTS)]


def spatial_mean(draw):
    return [_map(draw)], [draw.of(LAYOUTS)]


def permute(draw):
    x = draw.shape(draw.size(1, 5))
    if draw.chance(0.2):
        x = [draw.size(1, 3) for _ in range(draw.size(6, 9))]
    return [x], [draw.rng.permutation(len(x)).tolist()]


def gather_rows(draw):
    x = [draw.size(), draw.size()]
    return [x], [paddle.to_tensor(draw.rng.integers(0, x[0], draw.size()))]


def flatten(draw):
    x = draw.shape(draw.size(2, 4))
    start, stop = sorted(draw.rng.integers(0, len(x), 2).tolist())
    return [x], [start, stop]


def halves(draw):
    x = draw.shape(draw.size(1, 4))
    x[-1] *= 2
    return [x], []


def pad_axis(draw):
    x = draw.shape(draw.size(2, 4))
    return [x], [int(draw.rng.integers(len(x))), draw.size(1, 3), draw.size(0, 3)]


def take(draw):
    x = [max(side, 1) for side in draw.shape(draw.size(2, 4))]
    axis = int(draw.rng.integers(1, len(x)))
    return [x], [draw.rng.integers(0, x[axis], draw.size(1, 12)).tolist(), axis]


def roll(draw):
    return [_map(draw)], [draw.rng.integers(-4, 5, 2).tolist(), [1, 2]]


def cycle_shift(draw):
    return [_map(draw)], [draw.of((1, 2))]


def move_groups(draw):
    return [_map(draw)], [draw.of((1, 2)), draw.rng.integers(-4, 5, draw.size(1, 5)).tolist()]


def shift_quarters(draw):
    x, axes = _map(draw), draw.rng.integers(0, 3, draw.size(1, 3)).tolist()
    x[3] = 4 * len(axes) * draw.size(1, 3)
    return [x], [axes]


def branch_mean(draw):
    x = _map(draw)
    return [[list(x) for _ in range(draw.of((2, 3, 3, 3)))]], []


def weigh_branches(draw):
    x, count = _map(draw), draw.of((2, 3, 3, 3))
    return [[list(x) for _ in range(count)], [[x[0], x[3]] for _ in range(count)]], []


def affine(draw):
    x = draw.shape(draw.size(2, 4))
    return [x, x[-1:], x[-1:] if draw.chance() else None], []


def add_scaled(draw):
    x = draw.shape(draw.size(2, 4))
    return [x, list(x), x[-1:]], []


def pair(draw):
    x = draw.shape(draw.size(1, 4))
    return [x, list(x)], []


def wave_mix(draw):
    x, side = _map(draw), draw.of((1, 2, 3, 7))
    return [x, list(x), [x[3], 2, *([side, 1] if draw.chance() else [1, side])]], []


def scaled_softmax(draw):
    x = draw.shape(draw.size(1, 5))
    return [x, list(x[draw.size(0, len(x) - 1):]) if draw.chance(0.7) else None], [draw.of((0.2, 1.0))]


def split_windows(draw):
    side, rows, columns, parts, heads = (draw.size(1, 3) for _ in range(5))
    sides = [rows * side, columns * side]
    x = [draw.size(0, 3), *sides, parts * heads * draw.size()]
    return [x], [parts, heads, side, [draw.size(0, length - 1) for length in sides]]


def join_windows(draw):
    side, rows, columns = (draw.size(1, 3) for _ in range(3))
    sides = [rows * side, columns * side]
    x = [draw.size(0, 3), rows * columns, draw.size(1, 3), side * side, draw.size()]
    return [x], [*sides, side, [draw.size(0, length - 1) for length in sides]]


def to_regions(draw):
    return [_map(draw)], [draw.size(1, 4), draw.of((1, 2)), draw.size(0, 3)]


def from_regions(draw):
    x, size, axis = _map(draw), draw.size(1, 4), draw.of((1, 2))
    x[3] *= size
    length = x[axis] * size - draw.size(0, size - 1)
    return [x], [size, axis, max(length, 1), draw.size(0, 3)]


CALLS = {"linear": linear, "token_linear": token_linear, "mlp": mlp, "token_mlp": token_mlp,
         "matmul": matmul, "activate": activate, "softmax": softmax, "layer_norm": norm,
         "group_norm1": norm, "batch_norm": batch_norm, "channel_sums": channel_sums, "conv2d": conv2d,
         "max_pool2d": max_pool2d, "spatial_mean": spatial_mean, "permute": permute, "flatten": flatten,
         "gather_rows": gather_rows,
         "halves": halves, "pad_axis": pad_axis, "take": take, "roll": roll, "cycle_shift": cycle_shift,
         "move_groups": move_groups, "shift_quarters": shift_quarters, "branch_mean": branch_mean,
         "weigh_branches": weigh_branches, "affine": affine, "add_scaled": add_scaled, "multiply": pair,
         "unfold_wave": pair, "wave_mix": wave_mix, "scaled_softmax": scaled_softmax,
         "split_windows": split_windows, "join_windows": join_windows,
         "to_regions": to_regions, "from_regions": from_regions}


def flat(values) -> list:
    """The tensors in a list of arguments or results."""
    if isinstance(values, (list, tuple)):
        return [tensor for value in values for tensor in flat(value)]
    return [] if values is None else [values]


def shapes_in(inputs) -> list:
    """The shapes, lists of integers, in the inputs of a call."""
    return [shape for value in inputs if value for shape in (value if isinstance(value[0], list) else [value])]


def tensor_of(draw, shape, dtype: str):
    """Numbers above 0 for a variance's sake, sometimes in memory of another order, or every second of more numbers."""
    way = draw.of(("dense", "dense", "transposed", "sliced")) if 1 < len(shape) < 7 else "dense"
    full = [*shape[:-1], 2 * shape[-1]] if way == "sliced" else shape[::-1] if way == "transposed" else shape
    x = paddle.to_tensor((draw.rng.random(full) + 0.1).astype("float32")).astype(dtype)
    if way == "transposed":
        return x.transpose(list(range(len(shape)))[::-1])
    return x[..., ::2] if way == "sliced" else x


def arguments_of(name: str, draw) -> tuple:
    """``(tensors, options)`` of one random call."""
    inputs, options = CALLS[name](draw)
    if draw.chance(WRONG):
        shape = draw.of(shapes_in(inputs))
        axis = int(draw.rng.integers(len(shape)))
        shape[axis] = max(shape[axis] + draw.of((-1, 1, 4)), 1)
    base = "float64" if draw.chance(0.1) else "float32"
    mixed = draw.chance(0.1)

    def make(value):
        if value is None:
            return None
        if isinstance(value[0], list):
            return [make(one) for one in value]
        return tensor_of(draw, value, draw.of(("float64", "bfloat16", "float32")) if mixed else base)
    return [make(value) for value in inputs], options


def leaves_of(values, constants) -> list:
    """Copies of the tensors that share no memory with them, keep their strides, and need gradients."""
    def leaf(value, constant):
        if value is None:
            return None
        if isinstance(value, list):
            return [leaf(one, constant) for one in value]
        if constant:
            return value.clone()
        copy = value.detach()
        copy.stop_gradient = False
        return copy
    return [leaf(value, i in constants) for i, value in enumerate(values)]


def outcome(function, name: str, inputs, options, numbers):
    """Results and gradients as arrays, or the word "error"."""
    leaves = leaves_of(inputs, (3, 4) if name == "batch_norm" else ())
    try:
        results = flat(function(*leaves, *options))
        outcomes = [y.astype("float64").numpy() for y in results]
        if name != "channel_sums" and all(y.size for y in results):
            loss = sum((y * paddle.to_tensor(numbers(y.shape)).astype(y.dtype)).sum() for y in results)
            loss.backward()
            outcomes += [np.zeros(t.shape) if t.grad is None else t.grad.astype("float64").numpy()
                         for t in flat(leaves)]
        return outcomes + [t.astype("float64").numpy() for t in flat(leaves)]
    except (ValueError, RuntimeError, TypeError, IndexError, NotImplementedError, OverflowError, OSError) as error:
        return f"error: {type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"


def differs(one, other) -> str:
    """Where two outcomes are not the same; nothing where they are."""
    if isinstance(one, str) or isinstance(other, str):
        return "" if isinstance(one, str) and isinstance(other, str) else f"{str(one)[:300]} and {str(other)[:300]}"
    for i, (a, b) in enumerate(zip(one, other)):
        if a.shape != b.shape:
            return f"array {i}: shapes {a.shape} and {b.shape}"
        finite = np.isfinite(b)
        if not np.array_equal(finite, np.isfinite(a)):
            return f"array {i}: not finite in other places"
        if finite.any() and np.abs(a[finite] - b[finite]).max() > 2e-4 * max(1.0, np.abs(b[finite]).max()):
            return f"array {i}: {np.abs(a[finite] - b[finite]).max()} apart, of {np.abs(b[finite]).max()}"
    return ""


def main(seed: int, seconds: float) -> None:
    print(f"seed {seed}", flush=True)
    end, call, computed = time.monotonic() + seconds, 0, 0
    while time.monotonic() < end:
        for name in CALLS:
            draw = Draw([seed, call])
            call += 1
            inputs, options = arguments_of(name, draw)
            words = [f"{t.dtype} {list(t.shape)}".replace("paddle.", "") for t in flat(inputs)]
            print(f"call {call - 1}: {name}({', '.join(words)}; {options})", flush=True)

            def numbers(shape, key=call):
                return np.random.default_rng([seed, key]).standard_normal(shape)
            got, expected = (outcome(function, name, inputs, options, numbers)
                             for function in (ops.TABLE[name], ops.TABLE[name].reference))
            computed += not isinstance(got, str)
            wrong = differs(got, expected)
            if wrong:
                sys.exit(f"{name} differs from its reference: {wrong}")
    print(f"done: {call} calls, {computed} of them computed", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
