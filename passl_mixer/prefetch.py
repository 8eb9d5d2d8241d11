"""The next batch on its way to a GPU while the current one computes. Not run on a GPU yet.

A batch goes to page-locked memory and from there to the device without waiting, so the host is free to launch the
current step. On the CPU there is nothing to copy and batches are what the loader made.
"""
from typing import Callable, Iterable, Optional

import paddle


def mover(device: str) -> Optional[Callable]:
    """A function that starts to copy a loader's batch to a device; None where there is nothing to copy.

    Args:
        device: as ``runtime.select_device`` returns it; the current one.
    """
    if not device.startswith("gpu"):
        return None

    def move(array):
        return None if array is None else \
            paddle.to_tensor(array, place=paddle.CUDAPinnedPlace()).cuda(blocking=False)

    return lambda batch: ([move(view) for view in batch[0]], move(batch[1]))


def ahead(batches: Iterable, move: Optional[Callable]) -> Iterable:
    """The same batches in the same order; each is moved before the one in front of it is handed out.

    Args:
        batches: ``(views, labels)`` as the loader yields them.
        move: from ``mover``; None hands the batches on as they are.
    """
    return batches if move is None else _one_ahead(iter(batches), move)


def _one_ahead(batches, move):
    waiting = []
    for batch in batches:
        waiting.append(move(batch))
        if len(waiting) == 2:
            yield waiting.pop(0)
    yield from waiting
