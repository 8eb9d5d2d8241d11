"""The packaged Fashion-MNIST images with captions made from their class names: CLIP without a download.

The merges are packaged too: ``assets/captions_merges.txt``, the 86 that ``train_bpe`` learns from the training captions
(a test learns them again).
"""
from pathlib import Path
from typing import Optional

import numpy as np

from passl_mixer.data.datasets import ASSETS, FASHION_CLASSES, FashionMnistMini
from passl_mixer.registry import DATASETS
from passl_mixer.text import Tokenizer

MERGES = ASSETS / "captions_merges.txt"
TEMPLATES = ("a photo of a {}", "a small gray photo of a {}", "a {} on a dark background", "this is a {}",
             "a picture of a {} from a shop", "one {}", "a photo of the {}, seen from the side")


def make_caption(index: int, label: int) -> str:
    """The caption of image ``index`` with class ``label``; the templates alternate with the index."""
    return TEMPLATES[index % len(TEMPLATES)].format(FASHION_CLASSES[label].lower())


class EmbeddedCaptions:
    """Fashion-MNIST, 5,000 training images with captions and 1,000 test images with classes, 28x28.

    The training split's ``labels`` are token ids, int32 [5000, context_length]; the test split's are classes, int64
    [1000], with ``class_names``, so that zero-shot accuracy can be measured on it.

    Args:
        merges: path of other byte-pair merges; null: the packaged ones.
        context_length: tokens of a caption, both marks included; the packaged merges need at most 16.
        split: "train" or "test".
    """

    def __init__(self, *, merges: Optional[str] = None, context_length: int = 16, split: str = "train"):
        self._images, self._split = FashionMnistMini(split=split), split
        self.tokenizer = Tokenizer(str(Path(merges or MERGES).expanduser()), context_length=context_length)
        self.vocab_size, self.context_length = self.tokenizer.vocab_size, context_length
        self.class_names = None if split == "train" else self._images.class_names

    def load(self) -> None:
        """Read the packaged file and caption the images."""
        self._images.load()
        classes = self._images.labels
        self.captions = [make_caption(i, label) for i, label in enumerate(classes)]
        self.labels = self.tokenizer.encode_batch(self.captions) if self._split == "train" else classes

    def __len__(self) -> int:
        return len(self._images)

    def image(self, index: int) -> np.ndarray:
        """Image ``index``, uint8 [28, 28, 3]."""
        return self._images.image(index)


DATASETS.add("embedded_captions", EmbeddedCaptions)
