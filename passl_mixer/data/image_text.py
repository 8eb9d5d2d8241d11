"""Images with captions, for CLIP: a folder, a table, JSON lines or webdataset shards.

After ``load()`` such a dataset has the attributes of every dataset. Its ``labels`` are the captions' token ids, int32
[N, context_length]; a batch passes them to the method. It also has ``captions`` (N strings) and, before ``load()`` too,
``tokenizer``, ``vocab_size`` and ``context_length``. There is no test split: evaluation needs classes
(``data.eval_dataset``).

An image that cannot be decoded is reported on stderr and replaced by plain gray, since no other image has its caption.
"""
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Callable, Optional

import numpy as np

from passl_mixer.data import captions, shards
from passl_mixer.data.datasets import check_split
from passl_mixer.data.decode import decode, decode_reduced, whole
from passl_mixer.data.folder import has_image, no_data
from passl_mixer.errors import BadInput
from passl_mixer.registry import DATASETS
from passl_mixer.text import Tokenizer

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_GRAY = np.full((32, 32, 3), 128, np.uint8)


class _ImageText:
    """Base class of the four layouts; each has its own ``_read``."""

    class_names = None

    def __init__(self, name: str, merges: str, context_length: int, max_bad_images: int, decode_reduced: bool,
                 split: str):
        check_split(split)
        if split == "test":
            raise BadInput(f"dataset {name!r} holds captions and no test images with classes; name some with "
                           "data.eval_dataset, e.g. -o data.eval_dataset.name=image_folder "
                           "-o data.eval_dataset.root=/path/to/images")
        self.tokenizer = Tokenizer(str(Path(merges).expanduser()), context_length=context_length)
        self.vocab_size, self.context_length = self.tokenizer.vocab_size, context_length
        self.bad_images, self._max_bad, self._lock = [], max_bad_images, threading.Lock()
        self._reduce = decode_reduced

    def load(self) -> None:
        """List the images and encode the captions."""
        self._images, self.captions = self._read()
        self.labels = self.tokenizer.encode_batch(self.captions)

    def __len__(self) -> int:
        return len(self._images)

    def _bytes(self, index: int) -> bytes:
        """The content of an image file."""
        with open(self._images[index], "rb") as file:
            return file.read()

    def _name(self, index: int) -> str:
        return self._images[index]

    def image(self, index: int) -> np.ndarray:
        """Image ``index``, uint8 [H, W, 3]; gray if its file cannot be decoded."""
        image = self._decoded(int(index), decode)
        return _GRAY if image is None else image

    def reduced(self, index: int, reduction: Callable) -> tuple:
        """As ``ImageFolder.reduced``; gray if the file cannot be decoded."""
        needed = reduction if self._reduce else whole
        decoded = self._decoded(int(index), lambda data: decode_reduced(data, needed))
        return (_GRAY, _GRAY.shape[:2]) if decoded is None else decoded

    def _decoded(self, index: int, decoder: Callable):
        """``decoder(bytes)`` of an image's file; if that is None, the image is noted as bad."""
        try:
            decoded, reason = decoder(self._bytes(index)), "not an image that can be decoded"
        except OSError as error:
            decoded, reason = None, error.strerror
        if decoded is None:
            self._note_bad(self._name(index), reason)
        return decoded

    def _note_bad(self, name: str, reason: str) -> None:
        with self._lock:
            if name in self.bad_images:
                return
            self.bad_images.append(name)
            count = len(self.bad_images)
        if count > self._max_bad:
            raise BadInput(f"{count} files are not readable images, more than data.dataset.max_bad_images "
                           f"({self._max_bad}) allows: {captions.some(self.bad_images)}; take them out, or allow more "
                           f"with -o data.dataset.max_bad_images={2 * count}")
        print(f"warning: bad image {count} (at most {self._max_bad} become gray): {name}: {reason}", file=sys.stderr)


class ImageTextFolder(_ImageText):
    """A folder of images, at any depth, each with a .txt of the same stem beside it: the whole file is the caption.

    Args:
        root: the folder.
        merges: path of the byte-pair merges.
        context_length: tokens of a caption, both marks included; longer ones are cut.
        extensions: endings of image files, upper or lower case.
        max_bad_images: more unreadable files than this end the run with an error.
        decode_reduced: whether large JPEGs are decoded at a fraction of their size, as in ``ImageFolder``.
        split: "train"; there is no other.
    Raises:
        BadInput: another split, no image in the folder, or merges that cannot be used.
    """

    def __init__(self, *, root: str, merges: str, context_length: int = 77, extensions: Sequence[str] = EXTENSIONS,
                 max_bad_images: int = 10, decode_reduced: bool = True, split: str = "train"):
        self._root = Path(root).expanduser().absolute()
        self._extensions = tuple("." + e.lower().lstrip(".") for e in extensions)
        if not self._root.is_dir() or not has_image(self._root, self._extensions):
            raise no_data("image_text_folder", self._root, f"images ({', '.join(self._extensions)}) with a .txt beside "
                          "each,", "/path/to/pairs")
        super().__init__("image_text_folder", merges, context_length, max_bad_images, decode_reduced, split)

    def _read(self) -> tuple:
        rows = captions.read_folder(self._root, self._extensions)
        return captions.existing_pairs(rows, self._root, self._root)


def _existing_file(name: str, file: str, kind: str) -> Path:
    path = Path(file).expanduser().absolute()
    if not path.is_file():
        state = "is a folder" if path.is_dir() else "does not exist"
        raise BadInput(f"no data for dataset {name!r}: looked for {kind} at {path}, which {state}; point elsewhere "
                       f"with -o data.dataset.file=/path/to/captions, or run on the data that comes with the package: "
                       "passl-mixer train -c configs/clip/demo.yaml")
    return path


class ImageTextTable(_ImageText):
    """A CSV or TSV file with a header line: a column of image paths, a column of captions.

    Args:
        file: the table, UTF-8.
        root: folder that the paths are relative to; null: the table's.
        image_column, caption_column: names in the header.
        delimiter: one character; null: comma for .csv and tab for .tsv.
        merges, context_length, max_bad_images, decode_reduced, split: as in ``ImageTextFolder``.
    Raises:
        BadInput: another split, no such file, a wrong delimiter, or merges that cannot be used.
    """

    def __init__(self, *, file: str, merges: str, root: Optional[str] = None, image_column: str = "image",
                 caption_column: str = "caption", delimiter: Optional[str] = None, context_length: int = 77,
                 max_bad_images: int = 10, decode_reduced: bool = True, split: str = "train"):
        self._file = _existing_file("image_text_table", file, "a table")
        self._root = Path(root).expanduser().absolute() if root else self._file.parent
        self._columns = image_column, caption_column
        self._delimiter = delimiter or captions.delimiter_of(self._file)
        if len(self._delimiter) != 1 or self._delimiter in '"\r\n':
            raise BadInput(f"data.dataset.delimiter is {delimiter!r}, expected one character, e.g. ';'")
        super().__init__("image_text_table", merges, context_length, max_bad_images, decode_reduced, split)

    def _read(self) -> tuple:
        rows = captions.read_table(self._file, *self._columns, self._delimiter)
        return captions.existing_pairs(rows, self._root, self._file)


class ImageTextJsonl(_ImageText):
    """A file with one JSON object a line: an image path and a caption.

    Args:
        file: the file, UTF-8.
        root: folder that the paths are relative to; null: the file's.
        image_key, caption_key: keys of the objects.
        merges, context_length, max_bad_images, decode_reduced, split: as in ``ImageTextFolder``.
    """

    def __init__(self, *, file: str, merges: str, root: Optional[str] = None, image_key: str = "image",
                 caption_key: str = "caption", context_length: int = 77, max_bad_images: int = 10,
                 decode_reduced: bool = True, split: str = "train"):
        self._file = _existing_file("image_text_jsonl", file, "JSON lines")
        self._root = Path(root).expanduser().absolute() if root else self._file.parent
        self._keys = image_key, caption_key
        super().__init__("image_text_jsonl", merges, context_length, max_bad_images, decode_reduced, split)

    def _read(self) -> tuple:
        rows = captions.read_jsonl(self._file, *self._keys)
        return captions.existing_pairs(rows, self._root, self._file)


class ImageTextTar(_ImageText):
    """Webdataset shards: an image (.jpg, .jpeg, .png, .webp) and its caption (.txt, or a key of .json) under one name.

    Args:
        root: ``shard-{000..009}.tar``, ``*.tar``, one tar file, or a folder of them.
        caption_key: of the .json of samples without .txt.
        merges, context_length, max_bad_images, decode_reduced, split: as in ``ImageTextFolder``.
    Raises:
        BadInput: another split, no tar file, or merges that cannot be used.
    """

    def __init__(self, *, root: str, merges: str, caption_key: str = "caption", context_length: int = 77,
                 max_bad_images: int = 10, decode_reduced: bool = True, split: str = "train"):
        self._paths, self._key = shards.shard_paths(root), caption_key
        if not self._paths:
            raise no_data("image_text_tar", Path(root).expanduser().absolute(), "tar files",
                          "'/path/to/{000..009}.tar'")
        super().__init__("image_text_tar", merges, context_length, max_bad_images, decode_reduced, split)

    def _read(self) -> tuple:
        return shards.read_shards(self._paths, self._key)

    def _bytes(self, index: int) -> bytes:
        member = self._images[index]
        return shards.read_member(self._paths[member.shard], member)

    def _name(self, index: int) -> str:
        member = self._images[index]
        return f"{self._paths[member.shard]}: {member.name}"


DATASETS.add("image_text_folder", ImageTextFolder)
DATASETS.add("image_text_table", ImageTextTable)
DATASETS.add("image_text_jsonl", ImageTextJsonl)
DATASETS.add("image_text_tar", ImageTextTar)
