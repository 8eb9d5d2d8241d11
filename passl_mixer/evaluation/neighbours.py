"""Exact search for the nearest features: cosine similarities in blocks, of which the k largest are kept.

Shapes: N features of a bank, M queries, D features wide.
"""
import numpy as np
import paddle

from passl_mixer.errors import BadInput
from passl_mixer.ops.selection import NO_COLUMN, keep_largest, nothing_kept

_QUERY_ROWS, _BANK_ROWS = 1024, 4096    # of one product: its similarities stay in the processor's last cache
_QUERIES, _BLOCK = 2**27, 2**25         # numbers of queries that one pass over the bank serves, and of a block of it


def nearest(queries, bank, k: int, *, query_rows: int = _QUERY_ROWS, bank_rows: int = _BANK_ROWS) -> tuple:
    """The k features of a bank that are most similar to each query, by the cosine of the angle between them.

    All N M similarities are computed in float32. Memory, beside the arguments: the normalised queries, at most 512 MiB
    of them at a time, one block of the bank, and the result.

    Args:
        queries: float32 [M, D]; need not be normalised.
        bank: float32 [N, D]; need not be normalised; may be a memory map.
        k: neighbours, 1 to N.
        query_rows, bank_rows: rows of one product. They change the speed only, and the last digit of similarities.
    Returns:
        ``(similarities float32 [M, k], rows int64 [M, k])``: -1 to 1, falling, and where they are in the bank. Of equal
        similarities the lower row comes first. A row of zeros has similarity 0 to all. A similarity that is NaN,
        because a feature is, comes after all others.
    Raises:
        BadInput: arrays of other shapes, ``k`` out of range, or a bank of 2^31 rows and more.
    """
    queries, bank = np.asarray(queries), np.asarray(bank)
    if queries.ndim != 2 or bank.ndim != 2 or queries.shape[1] != bank.shape[1]:
        raise BadInput(f"queries are {list(queries.shape)} and the bank is {list(bank.shape)}; expected [M, D] and "
                       "[N, D]")
    if not 1 <= k <= len(bank) or len(bank) > NO_COLUMN:
        raise BadInput(f"k is {k} and the bank holds {len(bank)} features; expected 1 to that many neighbours, and at "
                       f"most {NO_COLUMN} features")
    group = max(1, _QUERIES // max(1, queries.shape[1]))
    bank_rows = max(1, min(bank_rows, _BLOCK // max(1, bank.shape[1])))
    similarities, rows = np.empty([len(queries), k], np.float32), np.empty([len(queries), k], np.int64)
    for first in range(0, len(queries), group):
        part = slice(first, first + group)
        similarities[part], rows[part] = _nearest(queries[part], bank, k, query_rows, bank_rows)
    return similarities, rows


def _nearest(queries, bank, k: int, query_rows: int, bank_rows: int) -> tuple:
    """The same by one pass over the bank."""
    blocks = [_unit(queries[start:start + query_rows]) for start in range(0, len(queries), query_rows)]
    kept = [nothing_kept(len(block), k) for block in blocks]
    with paddle.no_grad():
        for first in range(0, len(bank), bank_rows):
            part = _unit(bank[first:first + bank_rows])
            kept = [keep_largest(paddle.matmul(block, part, transpose_y=True), *best, first)
                    for block, best in zip(blocks, kept)]
    values, rows = (np.concatenate([best[i].numpy() for best in kept]) for i in range(2))
    order = np.lexsort((rows, -values), axis=1)         # NaN comes last, as it is not less than anything
    return np.take_along_axis(values, order, 1), np.take_along_axis(rows, order, 1).astype(np.int64)


def _unit(features) -> paddle.Tensor:
    """Features [n, D] scaled to length 1; zeros stay."""
    features = np.ascontiguousarray(features, np.float32)
    lengths = np.sqrt(np.einsum("nd,nd->n", features, features))
    return paddle.to_tensor(features / np.maximum(lengths, np.float32(1e-12))[:, None])
