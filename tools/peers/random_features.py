"""Features that both sides of a search make alike: rows of length 1, float32. NumPy only."""
import numpy as np

BLOCK = 50_000      # rows drawn at a time


def blocks(count: int, width: int, seed: int):
    """Rows [n, width], ``count`` of them in all, in blocks; the same for the same seed."""
    draw = np.random.default_rng(seed)
    for start in range(0, count, BLOCK):
        rows = draw.standard_normal((min(BLOCK, count - start), width), dtype=np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        yield rows


def all_of(count: int, width: int, seed: int) -> np.ndarray:
    """The rows of ``blocks`` as one array, [count, width]."""
    made, start = np.empty((count, width), np.float32), 0
    for rows in blocks(count, width, seed):
        made[start:start + len(rows)] = rows
        start += len(rows)
    return made


def search_step(search, queries: int) -> tuple:
    """``(step, facts)`` of a search.

    Args:
        search: gives ``(similarities, rows)``, both [queries, k]. It runs once for the facts.
        queries: their number.
    """
    similarities, rows = search()
    return lambda: search() and None, {"images": queries, "similarities": float(similarities.sum(dtype=np.float64)),
                                       "rows": int(rows.sum())}
