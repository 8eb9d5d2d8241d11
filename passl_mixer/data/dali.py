"""The batches of a ``Loader``, made by NVIDIA DALI on a GPU or on the CPU. Not run on a GPU yet.

Every random choice is drawn on the host as in ``Loader`` (``Recipe.plans``). So order, labels, boxes, and the strength
and order of the colour steps are the same. The pixels come from another decoder and resampler; docs/data.md has the
differences. A batch is bitwise the same after a resume on the same machine.

The host reads files and draws plans; JPEGs are passed to DALI as they are. Other files, and JPEGs without a readable
size or a proper end, are decoded here as in ``Loader`` and passed on uncompressed. So unreadable files are detected
before DALI meets them.
"""
import ctypes
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Optional

import cv2
import numpy as np

from passl_mixer.data.dali_plans import to_row
from passl_mixer.data.decode import decode, jpeg_size
from passl_mixer.data.folder import ImageFolder
from passl_mixer.data.loader import Loader, rng
from passl_mixer.data.plans import Recipe
from passl_mixer.errors import BadInput

_JPEG_END = b"\xff\xd9"
_READING = 2  # batches whose files are being read or have been; DALI works on two more


def encoded(data: bytes) -> Optional[tuple]:
    """A file in a form for DALI.

    Args:
        data: the whole file.
    Returns:
        ``(bytes of a JPEG or of an uncompressed BMP, (height, width))``, the size in pixels after decoding; None if it
        is not an image.
    """
    size = jpeg_size(data)
    if size is not None and data.endswith(_JPEG_END):
        return data, size
    image = decode(data)
    if image is None:
        return None
    return cv2.imencode(".bmp", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes(), image.shape[:2]


def _pipelines():
    """The module that imports DALI."""
    try:
        from passl_mixer.data import dali_graph
    except ImportError as error:
        raise BadInput(f"data.loader is 'dali', but NVIDIA DALI cannot be imported ({error}); install it with pip "
                       "install 'passl_mixer[dali]' (or: pip install nvidia-dali-cuda120), or use "
                       "-o data.loader=threads") from error
    return dali_graph


class DaliLoader:
    """Iterates over an image folder as a ``Loader`` does; DALI decodes and augments.

    Args:
        loader: gives the images of every batch and the views; its ``num_workers`` (at least 1) is the number of
            threads that read files, and of DALI's own.
        device_id: number of the GPU that decodes and augments, whose views are ``OnGpu``; None: the CPU.
    Raises:
        BadInput: DALI is missing; a dataset other than ``image_folder``; views that make no plans, or TensorFlow's.
    """

    def __init__(self, loader: Loader, *, device_id: Optional[int] = None):
        self.dataset, self.views = loader.dataset, loader.views
        self._recipe = type(self.views).__name__
        if not isinstance(self.dataset, ImageFolder):
            raise BadInput(f"data.loader 'dali' reads image files, but the dataset is {type(self.dataset).__name__}; "
                           "expected -o data.dataset.name=image_folder, or use -o data.loader=threads")
        if not isinstance(self.views, Recipe):
            raise BadInput(f"data.loader 'dali' makes views from plans, and {self._recipe} has none; expected "
                           "data.train_views of inception, simclr, moco_v1, moco_v2, byol or moco_v3, or "
                           "-o data.loader=threads")
        if not self.views.antialiased:
            raise BadInput(f"data.loader 'dali' makes torchvision's form of views, and {self._recipe} has style "
                           "'tensorflow'; use -o data.train_views.style=torchvision, or -o data.loader=threads")
        self._loader, self._device_id, self._graph = loader, device_id, _pipelines()

    def __len__(self) -> int:
        return len(self._loader)

    def indices(self, epoch: int) -> list:
        """The dataset indices of this rank's batches, a list of int64 arrays."""
        return self._loader.indices(epoch)

    def epoch(self, epoch: int, start_batch: int = 0):
        """Iterate over one epoch.

        Args:
            epoch: number of the epoch, from 0.
            start_batch: batches to leave out, for a resume in the middle of an epoch.
        Yields:
            ``(views, labels)``: a list of uint8 [B, S, S, 3] arrays, ``OnGpu`` on a GPU, and int64 [B] or None.
        Raises:
            BadInput: DALI cannot decode a file, or fails otherwise.
        """
        cv2.setNumThreads(0)
        batches = self.indices(epoch)[start_batch:]
        filled = [indices for indices in batches if len(indices)]
        if filled:
            yield from self._batches(filled, epoch)
        for indices in batches[len(filled):]:  # a rank's empty share of the last batch; DALI has no empty batches
            side = self.views.img_size
            yield [np.empty((0, side, side, 3), np.uint8) for _ in range(self.views.num_views)], self._labels(indices)

    def _batches(self, batches, epoch):
        workers = max(1, self._loader.num_workers)
        pool = ThreadPoolExecutor(workers, thread_name_prefix="passl_mixer_data")
        try:
            pipeline = self._graph.build_pipeline(
                self._inputs(pool, batches, epoch), batch_size=max(map(len, batches)), num_views=self.views.num_views,
                size=self.views.img_size, bicubic=self.views.bicubic, num_threads=workers,
                device_id=self._device_id)
            for indices in batches:
                views = [OnGpu(made) for made in pipeline.run()]
                # copied, because DALI uses the memory of its outputs again
                yield (views if self._device_id is not None else [np.array(view) for view in views],
                       self._labels(indices))
        except RuntimeError as error:
            raise BadInput(f"NVIDIA DALI could not make a batch of epoch {epoch}: {_first_reason(error)}; use "
                           "-o data.loader=threads, which names and replaces files that cannot be decoded") from error
        finally:  # also when the consumer stops early: no thread outlives the iterator
            pool.shutdown(wait=True, cancel_futures=True)

    def _inputs(self, pool, batches, epoch):
        """Yield the pipeline's input of each batch, while the files of the next ones are read."""
        started = deque()
        for indices in batches:
            started.append([pool.submit(self._input, int(index), epoch) for index in indices])
            if len(started) == _READING:
                yield _collect(started.popleft())
        while started:
            yield _collect(started.popleft())

    def _input(self, index: int, epoch: int) -> tuple:
        data, size = self.dataset.read(index, encoded)
        plans = self.views.plans(*size, rng(self._loader.seed, epoch, index))
        return np.frombuffer(data, np.uint8), [to_row(plan, self.views.img_size, self._recipe) for plan in plans]

    def _labels(self, indices):
        return None if self.dataset.labels is None else self.dataset.labels[indices]


class OnGpu:
    """Views in DALI's memory, uint8 [B, S, S, 3]; copy them before the next batch."""

    def __init__(self, made):
        self._made = made
        self.shape = [len(made), *made.shape()[0]]

    def copy_to(self, address: int, stream: int) -> None:
        """Copy to GPU memory at ``address`` on a CUDA stream; returns when it is done."""
        self._made.copy_to_external(ctypes.c_void_p(address), ctypes.c_void_p(stream), non_blocking=False)

    def __array__(self, dtype=None, copy=None):
        return np.array(self._made.as_cpu().as_array(), dtype=dtype)


def _collect(futures) -> tuple:
    files, rows = zip(*(future.result() for future in futures))
    return (list(files), *(np.stack(of_view) for of_view in zip(*rows)))


def _first_reason(error: RuntimeError) -> str:
    """The line of DALI's message that has the reason."""
    lines = [line.strip(" :") for line in str(error).splitlines() if line.strip()]
    after = lines.index("encountered") + 1 if "encountered" in lines else 0
    return lines[after] if after < len(lines) else type(error).__name__
