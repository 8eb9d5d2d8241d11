"""Features of labelled images, computed once for all classifiers in ``probes``.  Shapes: N images, D features."""
from typing import Callable, Optional

import numpy as np
import paddle

from passl_mixer.autocast import autocast, autocast_dtype
from passl_mixer.data.loader import Loader
from passl_mixer.errors import BadInput
from passl_mixer.images import to_images


def extract(encode: Callable, dataset, views, *, batch_size: int, num_workers: int = 2, limit: Optional[int] = None):
    """Features of a labelled dataset.

    Args:
        encode: images [B, 3, H, W] -> features [B, D].
        dataset, views: from ``build_dataset`` and ``build_views``; one view per image.
        batch_size: images per forward pass.
        num_workers: loader threads.
        limit: number of images, spaced evenly over the dataset; None: all.
    Returns:
        ``(features float32 [N, D], labels int64 [N])``.
    Raises:
        BadInput: the dataset has no labels.
    """
    chosen = labelled_part(dataset, limit)
    loader = Loader(chosen, views, batch_size=batch_size, seed=0, num_workers=num_workers, shuffle=False,
                    drop_last=False)
    features, labels = [], []
    with paddle.no_grad():
        for (pictures,), batch_labels in loader.epoch(0):
            features.append(encode(to_images(pictures, views.mean, views.std)).astype("float32").numpy())
            labels.append(batch_labels)
    return np.concatenate(features), np.concatenate(labels)


def labelled_part(dataset, limit: Optional[int]):
    """``limit`` images of a dataset, spaced evenly over it ordered by class; all of them for None or a larger number.

    Raises:
        BadInput: the dataset has no labels.
    """
    if dataset.labels is not None and dataset.labels.ndim != 1:
        raise BadInput("evaluation needs classes, but the dataset has captions; name images with classes as "
                       "data.eval_dataset, or use -o evaluate.every_epochs=0 -o evaluate.at_end=[]")
    if dataset.labels is None:
        raise BadInput("evaluation needs labels, but the dataset is a flat folder without classes; "
                       "use -o evaluate.every_epochs=0 -o evaluate.at_end=[] to train without evaluation")
    return dataset if limit is None or limit >= len(dataset) else Subset(dataset, limit)


class Subset:
    """A stratified subset: ``limit`` images, spaced evenly over the dataset ordered by class."""

    def __init__(self, dataset, limit: int):
        order = np.argsort(dataset.labels, kind="stable")
        self.indices = np.sort(order[np.linspace(0, len(order) - 1, limit).round().astype(int)])
        self.dataset, self.labels, self.class_names = dataset, dataset.labels[self.indices], dataset.class_names

    def __len__(self):
        return len(self.indices)

    def image(self, index: int) -> np.ndarray:
        """Image ``index`` of the subset, uint8 [H, W, 3]."""
        return self.dataset.image(int(self.indices[index]))


def encoder_features(encoder, precision: str = "fp32") -> Callable:
    """The encoder in evaluation mode as a function for ``extract``; every call restores its mode.

    Args:
        encoder: images [B, 3, H, W] -> features [B, D].
        precision: as ``train.precision``: "auto", "fp32", "bf16" or "fp16". Features are float32 all the same.
    """
    dtype = autocast_dtype(precision, paddle.get_device())

    def encode(images):
        was_training = encoder.training
        encoder.eval()
        try:
            with autocast(dtype):
                return encoder(images)
        finally:
            if was_training:
                encoder.train()
    return encode


def raw_pixels(images: paddle.Tensor) -> paddle.Tensor:
    """The baseline encoder: pixels of images [B, 3, H, W], flattened to [B, 3 * H * W]."""
    return images.flatten(1)
