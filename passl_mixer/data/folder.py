"""Images in folders, with classes or without.

Layouts under ``root`` (hidden files and folders are left out; classes and images are sorted by name):

    root/train/<class>/...  with root/val/<class>/... or root/test/<class>/...   both splits
    root/<class>/...                                                             training split
    root/*.jpg, or deeper but without class folders                              training split, labels None

OpenCV decodes to 8-bit RGB: gray is repeated, 16 bits are cut to the upper 8, alpha is dropped (transparent pixels show
their colours), and the EXIF orientation is applied. A JPEG much larger than the views is decoded at a fraction of its
size (``decode_reduced``).
"""
import functools
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Callable, Optional

import numpy as np

from passl_mixer.data.datasets import check_split
from passl_mixer.data.decode import decode, decode_reduced, whole
from passl_mixer.errors import BadInput
from passl_mixer.registry import DATASETS


def no_data(dataset: str, looked_in: Path, looked_for: str, example: str) -> BadInput:
    """The error for data that is not at the configured place.

    Args:
        dataset: its name.
        looked_in: the configured path.
        looked_for: description of the expected files.
        example: a path, for the advice.
    """
    state = "does not exist"
    if looked_in.exists():
        state = "has none" if looked_in.is_dir() else "is a file"
    return BadInput(f"no data for dataset {dataset!r}: looked for {looked_for} in {looked_in}, which "
                    f"{state}; point elsewhere with -o data.dataset.root={example}, or run on the data that "
                    "comes with the package: passl-mixer train -c configs/quickstart.yaml")


def walk_images(folder: str, extensions: tuple, prefix: str = ""):
    """Iterate over the relative paths of the images under a folder, sorted; hidden names are left out.

    Args:
        folder: path of the folder.
        extensions: lower-case endings.
        prefix: put before every path.
    """
    folders, files = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            # The type comes with the listing: no stat call per file, which matters with a million of them.
            if entry.is_dir():
                folders.append(entry.name)
            elif entry.name.lower().endswith(extensions):
                files.append(prefix + entry.name)
    yield from sorted(files)
    for name in sorted(folders):
        yield from walk_images(os.path.join(folder, name), extensions, f"{prefix}{name}/")


def has_image(folder, extensions: tuple) -> bool:
    """Whether a folder has an image at any depth; stops at the first."""
    folders = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                folders.append(entry.path)
            elif entry.name.lower().endswith(extensions):
                return True
    return any(has_image(path, extensions) for path in folders)


def class_folders(folder, extensions: tuple) -> list:
    """Names of the sub-folders with an image in them, sorted; hidden ones are left out."""
    with os.scandir(folder) as entries:
        folders = [e for e in entries if e.is_dir() and not e.name.startswith(".")]
    return sorted(e.name for e in folders if has_image(e.path, extensions))


class ImageFolder:
    """Images in class folders, or a folder of images without classes.

    A file that cannot be decoded is reported on stderr and replaced by the next readable image of the same class (of
    the folder, without classes), always the same one; ``bad_images`` lists such files.

    Args:
        root: the folder; see the layouts above.
        labelled: whether sub-folders are classes; null: they are if there are at least two and no image is beside
            them.
        extensions: endings of image files, upper or lower case.
        max_bad_images: more unreadable files than this end the run with an error.
        decode_reduced: whether JPEGs are decoded at 1/2, 1/4 or 1/8 of their size if each crop of the training views
            keeps 2.5 times the view's side: up to twice as fast on photographs from a camera, nearly as sharp, and
            about a third of a level of 255 away from the views of the whole image (measured in docs/data.md).
        split: "train" or "test".
    Raises:
        BadInput: another split, or no such folder or no image in it.
    """

    def __init__(self, *, root: str, labelled: Optional[bool] = None,
                 extensions: Sequence[str] = (".jpg", ".jpeg", ".png", ".webp", ".bmp"),
                 max_bad_images: int = 10, decode_reduced: bool = True, split: str = "train"):
        check_split(split)
        self._root, self._split = Path(root).expanduser().absolute(), split
        self._extensions = tuple("." + e.lower().lstrip(".") for e in extensions)
        self._max_bad, self._labelled, self._reduce = max_bad_images, labelled, decode_reduced
        self._bad, self.bad_images, self._lock = set(), [], threading.Lock()
        self._base = self._find_base()
        if not has_image(self._base, self._extensions):
            raise self._missing(self._base)

    def _missing(self, folder: Path) -> BadInput:
        kinds = f"images ({', '.join(self._extensions)}), in class folders or not,"
        return no_data("image_folder", folder, kinds, "/path/to/images")

    def _find_base(self) -> Path:
        names = ("train",) if self._split == "train" else ("val", "test")
        for name in names:
            if (self._root / name).is_dir():
                return self._root / name
        if not self._root.is_dir():
            raise self._missing(self._root)
        others = [n for n in ("train", "val", "test") if (self._root / n).is_dir()]
        if others or self._split == "test":
            expected = " or ".join(str(self._root / name) for name in names)
            raise BadInput(f"dataset 'image_folder' needs {expected} for its {self._split} split, got "
                           f"{', '.join(others) or 'no such folder'}; point elsewhere with "
                           "-o data.dataset.root=/path/to/images")
        return self._root

    def load(self) -> None:
        """List the images and number the classes; both splits have the classes of the training split.

        Raises:
            BadInput: images outside the class folders.
        """
        self._paths = list(walk_images(str(self._base), self._extensions))
        self.labels = self.class_names = None
        train = self._root / "train"
        source = train if train.is_dir() else self._base
        names = class_folders(source, self._extensions)
        tops = [path.split("/", 1)[0] if "/" in path else "" for path in self._paths]
        present = set(tops)
        labelled = self._labelled
        if labelled is None:
            labelled = len(names) > 1 and "" not in present
        if not labelled:
            return
        if not present <= set(names):
            strange = ", ".join(sorted(present - set(names))[:5]) or "directly in it"
            raise BadInput(f"{self._base} has images outside the classes of {source}: {strange}; move "
                           "them, or set data.dataset.labelled to false")
        number = {name: i for i, name in enumerate(names)}
        self.class_names = names
        self.labels = np.array([number[name] for name in tops], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._paths)

    def image(self, index: int) -> np.ndarray:
        """Image ``index``, or its replacement if the file cannot be decoded; uint8 [H, W, 3]."""
        return self._first_readable(index, decode)

    def reduced(self, index: int, reduction: Callable) -> tuple:
        """The image of ``image(index)``, decoded at a fraction of its size.

        Args:
            index: number of the image.
            reduction: function of the whole image's (height, width), pixels; returns 1, 2, 4 or 8, by which the sides
                may be divided.
        Returns:
            ``(image uint8 [H, W, 3], (height, width) of the whole image)``.
        """
        needed = reduction if self._reduce else whole
        return self._first_readable(index, functools.partial(decode_reduced, reduction=needed))

    def read(self, index: int, reader: Callable):
        """``reader(bytes)`` of image ``index``'s file, or of its replacement if that is None."""
        return self._first_readable(index, reader)

    def _first_readable(self, index, decoder):
        candidate, count = int(index), len(self._paths)
        for _ in range(count):
            same = self.labels is None or self.labels[candidate] == self.labels[index]
            if same and candidate not in self._bad:
                image = self._read(candidate, decoder)
                if image is not None:
                    return image
            candidate = (candidate + 1) % count
        raise BadInput(f"no image of {self._base / self._paths[index]}'s class can be read")

    def _read(self, index: int, decoder: Callable):
        path = os.path.join(self._base, self._paths[index])
        try:
            with open(path, "rb") as file:
                image = decoder(file.read())
            reason = "not an image that can be decoded"
        except OSError as error:
            image, reason = None, error.strerror
        if image is None:
            self._note_bad(index, path, reason)
        return image

    def _note_bad(self, index: int, path: str, reason: str) -> None:
        with self._lock:
            if index in self._bad:
                return
            self._bad.add(index)
            self.bad_images.append(path)
            count = len(self.bad_images)
        if count > self._max_bad:
            raise BadInput(f"{count} files under {self._base} are not readable images, more than "
                           f"data.dataset.max_bad_images ({self._max_bad}) allows: "
                           f"{', '.join(self.bad_images[:5])}{' ...' if count > 5 else ''}; remove them, "
                           f"or allow more with -o data.dataset.max_bad_images={2 * count}")
        print(f"warning: bad image {count} (at most {self._max_bad} are skipped): {path}: {reason}",
              file=sys.stderr)


DATASETS.add("image_folder", ImageFolder)
