"""The largest numbers of rows that come in blocks of columns. On a CPU Paddle sorts on one thread."""
import paddle

from passl_mixer.ops.native import call, dense
from passl_mixer.ops.table import Implementation, Operator

NO_COLUMN = 2**31 - 1       # of a place that no column has taken yet; every column is less


def nothing_kept(rows: int, k: int) -> tuple:
    """The beginning of ``keep_largest``: ``(values float32 [rows, k], columns int32 [rows, k])`` of no column yet."""
    return paddle.full([rows, k], float("nan"), "float32"), paddle.full([rows, k], NO_COLUMN, "int32")


def keep_largest(x, values, columns, first: int) -> tuple:
    """Keep the k largest numbers of every row of a matrix whose columns come in blocks, from left to right.

    Of equal numbers the one of the lower column is the larger. NaN is smaller than any number. There is no gradient.

    Args:
        x: the columns from ``first`` on, [N, M], float32.
        values, columns: of ``nothing_kept``, or the result for the block before, [N, k]; may be overwritten.
        first: columns before this block; with this block at most 2^31 - 1.
    Returns:
        ``(values float32 [N, k], columns int32 [N, k])`` of the largest so far, in any order.
    """
    with paddle.no_grad():
        return KEEP_LARGEST(x, values, columns, first)


def _keep_largest(x, values, columns, first):
    k = values.shape[1]
    place = paddle.arange(first, first + x.shape[1], dtype="int32").unsqueeze(0).expand(x.shape)
    values, columns = paddle.concat([values, x], axis=1), paddle.concat([columns, place], axis=1)
    best = paddle.topk(_ranks(values, columns), k, axis=1)[1]
    return paddle.take_along_axis(values, best, axis=1), paddle.take_along_axis(columns, best, axis=1)


def _ranks(values, columns):
    """Whole numbers of 64 bits, all different: in the upper half the number, in the lower half its column."""
    lowest, half = (paddle.full([1], number, "int64") for number in (-2**31, 2**32))
    values = paddle.where(values == 0, paddle.zeros_like(values), values)           # -0.0 equals 0.0
    bits = values.view("int32").astype("int64")
    bits = paddle.where(bits < 0, lowest - bits - 1, bits)                        # the order of the numbers
    bits = paddle.where(paddle.isnan(values), lowest.expand(bits.shape), bits)
    return bits * half + (half - 1 - columns.astype("int64"))


def _native_keep_largest(x, values, columns, first):
    call("keep_largest", dense(x), values, columns, *x.shape, values.shape[1], first)
    return values, columns


# not in TABLE, whose operators have gradients
KEEP_LARGEST = Operator("keep_largest", 2, _keep_largest, native=[Implementation(
    lambda x, values, columns, first: x.ndim == 2, _native_keep_largest)])
