"""Batches of views, the same for any number of workers and after a resume.

The augmentation of image ``index`` in ``epoch`` depends on ``rng(seed, epoch, index)`` alone, the order of an epoch on
``(seed, epoch)`` alone. A run resumed at batch k continues with ``epoch(e, start_batch=k)``.

Workers are threads: OpenCV and Pillow release the interpreter lock while they decode and resize, nothing is copied
between processes, and no process is forked after Paddle has started its threads. OpenCV's own threads are turned off
(``cv2.setNumThreads(0)``, a setting of the whole process): they would compete with the workers and with Paddle.
"""
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from passl_mixer.errors import BadInput

PREFETCH_BATCHES = 3  # batches in preparation or ready beside the one in use; bounds the memory
_MASK = 2**64 - 1
_IMAGES, _ORDER = 0, 1  # the last counter word keeps the streams apart


def _generator(seed: int, epoch: int, index: int, stream: int) -> np.random.Generator:
    # Philox is counter-based: a key per (seed, epoch), a block of 2**128 counts per index, cheap to set up.
    key = np.array([int(seed) & _MASK, int(epoch) & _MASK], dtype=np.uint64)
    counter = np.array([0, 0, int(index) & _MASK, stream], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The random generator of one image in one epoch, independent of all others.

    Args:
        seed: of the run.
        epoch: number of the epoch, from 0.
        index: number of the image.
    """
    return _generator(seed, epoch, index, _IMAGES)


def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """Order of the images in an epoch.

    Args:
        seed: of the run.
        epoch: number of the epoch, from 0.
        count: number of images.
    Returns:
        A permutation, int64 [count]; a function of (seed, epoch) only.
    """
    return _generator(seed, epoch, 0, _ORDER).permutation(count)


class Loader:
    """Iterates over a dataset in batches of views.

    Args:
        dataset: has ``len()``, ``image(index)`` and ``labels``; it may have ``reduced(index, reduction)``, which is
            called instead if the recipe has a ``reduction``.
        views: a views recipe.
        batch_size: images per batch **of this process**; the global batch is ``batch_size * world_size``.
        seed: of the order and of the augmentation.
        num_workers: threads; 0 prepares each batch on demand.
        shuffle: a new order each epoch; otherwise the dataset's.
        drop_last: leave out a last batch that is not full. If kept, it is divided among the ranks as evenly as
            possible; the share of a rank may be empty.
        rank: of this process. Rank r takes the r-th contiguous slice of each global batch.
        world_size: number of processes.
    Raises:
        BadInput: an option out of range, or fewer images than one global batch and ``drop_last``.
    """

    def __init__(self, dataset, views, *, batch_size: int, seed: int, num_workers: int, shuffle: bool,
                 drop_last: bool, rank: int = 0, world_size: int = 1):
        if batch_size < 1 or num_workers < 0:
            raise BadInput(f"data.batch_size is {batch_size} and data.num_workers {num_workers}; "
                           "expected at least 1 and at least 0")
        if not 0 <= rank < world_size:
            raise BadInput(f"rank is {rank}, expected 0 to {world_size - 1} (world_size {world_size})")
        self.dataset, self.views, self.batch_size, self.seed = dataset, views, batch_size, seed
        self.num_workers, self.shuffle, self.rank, self.world_size = num_workers, shuffle, rank, world_size
        self._reduces = hasattr(dataset, "reduced") and hasattr(views, "reduction")
        self._global = batch_size * world_size
        full, rest = divmod(len(dataset), self._global)
        self._batches = full + (rest > 0 and not drop_last)
        if self._batches == 0:
            raise BadInput(f"the dataset has {len(dataset)} images, fewer than one batch of {self._global}; "
                           f"set data.batch_size to at most {len(dataset)} (-o data.batch_size=...)")

    def __len__(self) -> int:
        return self._batches

    def indices(self, epoch: int) -> list:
        """The dataset indices of this rank's batches, a list of int64 arrays."""
        count = len(self.dataset)
        order = epoch_order(self.seed, epoch, count) if self.shuffle else np.arange(count)
        batches = []
        for b in range(self._batches):
            whole = order[b * self._global:(b + 1) * self._global]
            batches.append(np.array_split(whole, self.world_size)[self.rank])
        return batches

    def epoch(self, epoch: int, start_batch: int = 0):
        """Iterate over one epoch.

        Args:
            epoch: number of the epoch, from 0.
            start_batch: batches to leave out, for a resume in the middle of an epoch.
        Yields:
            ``(views, labels)``: a list of uint8 [B, S, S, 3] arrays and int64 [B] or None.
        """
        cv2.setNumThreads(0)
        batches = self.indices(epoch)[start_batch:]
        if self.num_workers == 0:
            for indices in batches:
                yield self._collect(self._start(None, indices, epoch))
            return
        pool = ThreadPoolExecutor(self.num_workers, thread_name_prefix="passl_mixer_data")
        started = deque()
        try:
            for indices in batches:
                started.append(self._start(pool, indices, epoch))
                if len(started) > PREFETCH_BATCHES:
                    yield self._collect(started.popleft())
            while started:
                yield self._collect(started.popleft())
        finally:  # also when the consumer stops early or a worker failed: no thread outlives the iterator
            pool.shutdown(wait=True, cancel_futures=True)

    def _start(self, pool, indices, epoch):
        side = self.views.img_size
        arrays = [np.empty((len(indices), side, side, 3), np.uint8) for _ in range(self.views.num_views)]
        labels = None if self.dataset.labels is None else self.dataset.labels[indices]
        if pool is None:
            self._fill(arrays, indices, epoch, 0, len(indices))
            return arrays, labels, ()
        # All workers share each batch, so that batches become ready in order and few are in memory.
        cuts = np.linspace(0, len(indices), self.num_workers + 1).astype(int).tolist()
        futures = [pool.submit(self._fill, arrays, indices, epoch, a, b)
                   for a, b in zip(cuts, cuts[1:]) if a < b]
        return arrays, labels, futures

    def _fill(self, arrays, indices, epoch, start, stop):
        for position in range(start, stop):
            for array, image in zip(arrays, self._views_of(int(indices[position]), epoch)):
                array[position] = image

    def _views_of(self, index, epoch):
        if not self._reduces:
            return self.views(self.dataset.image(index), rng(self.seed, epoch, index))

        def reduction(height, width):
            # Its own generator in the same state: the boxes drawn here are drawn again when the views are made.
            return self.views.reduction(height, width, rng(self.seed, epoch, index))

        image, size = self.dataset.reduced(index, reduction)
        return self.views(image, rng(self.seed, epoch, index), size)

    @staticmethod
    def _collect(batch):
        arrays, labels, futures = batch
        for future in futures:
            future.result()
        return arrays, labels
