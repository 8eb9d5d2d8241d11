"""Copies the next batch to a GPU, on a stream of its own, while the current step computes. Not run on a GPU yet.

A batch goes to page-locked memory and from there to the device without blocking, so the host can launch the current
step. Batches that DALI made on the GPU are copied there. On the CPU there is nothing to copy.

Two rules keep the streams in order. A step waits only for the copy of its own batch. A copy waits for the steps
launched before it, which may still read the memory that Paddle reuses; it runs beside the step launched next.
"""
from typing import Callable, Iterable, Optional

import paddle


class CopyStream:
    """Copies batches beside the stream that computes.

    Args:
        copy: starts to copy one array, on the current stream, and returns the tensor.
        device: Paddle's module of streams.
    """

    def __init__(self, copy: Callable, device=paddle.device):
        self.copy, self.device = copy, device
        self.stream = device.Stream()

    def start(self, batch) -> tuple:
        """Start to copy ``(views, labels)``: uint8 [B, S, S, 3], [B]; returns tensors and the copy's event."""
        views, labels = batch
        self.stream.wait_stream(self.device.current_stream())
        with self.device.stream_guard(self.stream):
            moved = [self.copy(view) for view in views], None if labels is None else self.copy(labels)
            return moved, self.stream.record_event()

    def finish(self, moved, there):
        """The tensors, ready for everything launched from now on."""
        self.device.current_stream().wait_event(there)
        return moved


def make_prefetcher(device: str) -> Optional[CopyStream]:
    """The stream that copies a loader's batches to a device; None if there is nothing to copy.

    Args:
        device: as ``runtime.select_device`` returns it; the current one.
    """
    return CopyStream(_to_gpu) if device.startswith("gpu") else None


def _to_gpu(array):
    if hasattr(array, "copy_to"):               # made on the GPU, by DALI
        there = paddle.empty(array.shape, "uint8")
        array.copy_to(there.data_ptr(), paddle.device.current_stream().stream_base.cuda_stream)
        return there
    return paddle.to_tensor(array, place=paddle.CUDAPinnedPlace()).cuda(blocking=False)


def prefetch(batches: Iterable, stream: Optional[CopyStream]) -> Iterable:
    """The same batches in the same order. The copy of a batch begins before the batch in front of it is handed out.

    Args:
        batches: ``(views, labels)`` as the loader yields them.
        stream: from ``make_prefetcher``; None hands the batches on as they are.
    """
    return batches if stream is None else _one_ahead(iter(batches), stream)


def _one_ahead(batches, stream):
    waiting = []
    for batch in batches:
        waiting.append(stream.start(batch))
        if len(waiting) == 2:
            yield stream.finish(*waiting.pop(0))
    for started in waiting:
        yield stream.finish(*started)
