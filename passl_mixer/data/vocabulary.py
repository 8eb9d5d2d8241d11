"""Captions to learn a vocabulary from, and the tokenizer of a dataset; neither needs the images."""
from inspect import Parameter
from pathlib import Path

from passl_mixer.data import captions, shards
from passl_mixer.data.embedded_captions import MERGES
from passl_mixer.data.folder import has_image
from passl_mixer.data.image_text import EXTENSIONS
from passl_mixer.errors import BadInput
from passl_mixer.registry import DATASETS
from passl_mixer.text import Tokenizer


def build_tokenizer(cfg) -> Tokenizer:
    """The tokenizer of an image-text dataset; the images may be missing.

    Args:
        cfg: the ``data.dataset`` section.
    Raises:
        BadInput: a dataset without captions, options that do not fit, or merges that are missing or cannot be used.
    """
    name, given = DATASETS.read(cfg, ("split",))
    options = DATASETS.parameters(name)
    if not has_vocabulary(name):
        raise BadInput(f"dataset {name!r} has no captions, so there is no vocabulary; expected one of "
                       f"{', '.join(filter(has_vocabulary, DATASETS.names()))}")
    if not given.get("merges") and options["merges"].default is Parameter.empty:
        raise BadInput(f"dataset {name!r} has no 'merges', the vocabulary of its captions; give the file with -o "
                       "data.dataset.merges=...: the one a model was trained with, or, to begin with, one learned "
                       "from the training captions by passl-mixer bpe CAPTIONS OUT --merges 1000")
    length = given.get("context_length", options["context_length"].default)
    return Tokenizer(str(Path(given.get("merges") or MERGES).expanduser()), context_length=length)


def has_vocabulary(name: str) -> bool:
    """Whether the dataset of this name has captions, encoded with a file of merges."""
    return "merges" in DATASETS.parameters(name)


def captions_at(source: str) -> list:
    """The captions of a source, to learn a vocabulary from.

    Args:
        source: a .csv or .tsv with columns ``image`` and ``caption``, a .jsonl with these keys, a folder of images with
            texts, webdataset shards, or any other text file: one caption a line, empty lines left out. The images that
            a table or a .jsonl names may be missing.
    Raises:
        BadInput: as the dataset of that layout, or no captions.
    """
    path = Path(source).expanduser().absolute()
    if path.is_dir() and has_image(path, EXTENSIONS):
        return [caption for _, caption, _ in captions.read_folder(path, EXTENSIONS)]
    ending = path.suffix.lower()
    if path.is_dir() or ending == ".tar":
        paths = shards.shard_paths(source)
        if not paths:
            raise BadInput(f"no captions in {path}: looked for images with a .txt beside each, and for tar files")
        return shards.read_shards(paths, "caption")[1]
    if not path.is_file():
        raise BadInput(f"no captions at {path}, which does not exist; give a text file with one caption a line, a "
                       ".csv, .tsv, .jsonl or .tar, or a folder of images with a .txt beside each")
    if ending in captions.DELIMITERS:
        rows = captions.read_table(path, "image", "caption", captions.DELIMITERS[ending])
    elif ending == ".jsonl":
        rows = captions.read_jsonl(path, "image", "caption")
    else:
        rows = (("", line.strip(), 0) for line in captions.lines_of(path) if line.strip())
    texts = [caption for _, caption, _ in rows]
    if not texts:
        raise BadInput(f"{path} has no caption")
    return texts
