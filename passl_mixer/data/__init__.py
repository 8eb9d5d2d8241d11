"""Datasets, views and batches, with NumPy, OpenCV and Pillow only.

Nothing here imports Paddle, so that ``check_dataset`` reports a missing data folder before Paddle loads.
"""
from passl_mixer.data import (  # noqa: F401  (importing fills the tables)
    cifar,
    datasets,
    embedded_captions,
    folder,
    image_text,
    views,
)
from passl_mixer.data.loader import Loader, rng
from passl_mixer.registry import DATASETS, VIEWS

__all__ = ["Loader", "build_dataset", "build_views", "check_dataset", "rng"]


def check_dataset(cfg, split: str = "train") -> None:
    """Check that a dataset can be there. Cheap: it stops at the first image.

    Args:
        cfg: the ``data.dataset`` section: a name, or a mapping with ``name`` and options.
        split: ``"train"`` or ``"test"``.
    Raises:
        BadInput: a wrong option, a missing folder, or a folder without images.
    """
    DATASETS.build(cfg, split=split)


def build_dataset(cfg, split: str = "train"):
    """Build a dataset and read its list of images.

    Args:
        cfg: the ``data.dataset`` section.
        split: ``"train"`` or ``"test"``.
    Returns:
        An object with ``len()``, ``image(index)`` (uint8 [H, W, 3], RGB), ``labels`` (int64 [N] or None) and
        ``class_names`` (list or None).
    Raises:
        BadInput: a wrong option, or data that is missing or damaged.
    """
    dataset = DATASETS.build(cfg, split=split)
    dataset.load()
    return dataset


def build_views(cfg):
    """Build a views recipe: ``recipe(image, rng)`` returns ``num_views`` uint8 [img_size, img_size, 3] images."""
    return VIEWS.build(cfg)
