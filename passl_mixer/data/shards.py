"""Webdataset shards: tar files in which the members with one name, up to the first dot, are one sample.

Headers and captions are read once, and nothing is extracted. An image is read at its offset on demand, through a file
handle of its own, so that any number of threads may read.

Source: the format of github.com/webdataset/webdataset (README, "The WebDataset Format").
"""
import glob
import os
import re
import tarfile
from pathlib import Path
from typing import NamedTuple

from passl_mixer.data.captions import checked_caption, decode_text, json_object, some
from passl_mixer.errors import BadInput

IMAGES = ("jpg", "jpeg", "png", "webp")         # the first of these that a sample has is its image
_NAME = re.compile(r"^((?:.*/)?[^./][^./]*)\.([^/]+)$")     # key, and everything after the first dot
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZ": "bunzip2", b"\xfd7": "unxz"}
_MAX_SHARDS, _MAX_CAPTION_BYTES, _BLOCK = 100_000, 2**20, 512


class Member(NamedTuple):
    """Position of an image's bytes: number of the shard, offset and size in bytes, and name."""

    shard: int
    offset: int
    size: int
    name: str


def expand(pattern: str) -> list:
    """The names that a pattern with ranges ``{000..009}`` stands for.

    Raises:
        BadInput: a range that goes down or is too long.
    """
    match = _RANGE.search(pattern)
    if not match:
        return [pattern]
    first, last = match.groups()
    if not 0 <= int(last) - int(first) < _MAX_SHARDS:
        raise BadInput(f"{pattern!r}: a range of shards goes up and has at most {_MAX_SHARDS}, e.g. "
                       "shard-{000..009}.tar")
    width = max(len(first), len(last)) if first.startswith("0") or last.startswith("0") else 0
    head, tail = pattern[:match.start()], pattern[match.end():]
    return [name for number in range(int(first), int(last) + 1) for name in expand(f"{head}{number:0{width}d}{tail}")]


def shard_paths(pattern: str) -> list:
    """The tar files of a pattern: ranges in braces, ``*`` and ``?``, one file, or all of a folder, sorted.

    Raises:
        BadInput: some files of a range are missing. If all are, the list is empty.
    """
    whole = Path(pattern).expanduser().absolute()
    if whole.is_dir():
        return sorted(p for p in whole.iterdir() if p.suffix.lower() == ".tar" and not p.name.startswith("."))
    names = expand(str(whole))
    existing = [sorted(glob.glob(name)) if glob.has_magic(name) and not os.path.isfile(name)
                else [name] * os.path.isfile(name) for name in names]
    missing = [name for name, files in zip(names, existing) if not files]
    if missing and len(missing) < len(names):
        raise BadInput(f"{pattern}: {len(missing)} of {len(names)} shards are missing: {some(missing)}; get them, or "
                       "narrow the range")
    return [Path(path) for files in existing for path in files]


def read_index(path: Path, shard: int, caption_key: str) -> tuple:
    """Positions of the images of one shard, and their captions.

    Args:
        path: a tar file, not compressed.
        shard: its number, for the ``Member``s.
        caption_key: of the .json of a sample without .txt.
    Returns:
        ``(members, captions)``, two lists in the order of the file. Samples without image and caption are left out.
    Raises:
        BadInput: cut off, damaged or compressed; an image without caption or the reverse; a caption that is empty, too
            long or not UTF-8.
    """
    images, captions = {}, {}
    with open(path, "rb") as file:
        start = file.read(2)
        if start in _COMPRESSED:
            raise BadInput(f"{path} is compressed; images are read at their offsets, so unpack it first: "
                           f"{_COMPRESSED[start]} {path.name}")
        file.seek(0)
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                while (member := tar.next()) is not None:
                    _take(tar, member, path, shard, caption_key, images, captions)
                end = tar.offset
            file.seek(end)
            if file.read(_BLOCK) != bytes(_BLOCK):      # tarfile ends in silence at a header it cannot read
                raise tarfile.ReadError(f"no end of archive at byte {end}")
        except BadInput:
            raise
        except (tarfile.TarError, EOFError, ValueError, OverflowError, OSError) as error:
            raise BadInput(f"{path} cannot be read as a tar file, it may be cut off ({type(error).__name__}: {error}); "
                           "get the file again") from None
    _refuse_halves(path, images, captions, caption_key)
    return [images[key][1] for key in images], [captions[key][1] for key in images]


def _take(tar, member, path, shard, caption_key, images, captions) -> None:
    """Enter one member: an image by its position, a caption by its text; others are ignored."""
    name = _NAME.match(member.name)
    key, ending = (name.group(1), name.group(2).lower()) if name else ("", "")
    if ending not in (*IMAGES, "txt", "json"):
        return
    where = f"{path}: {member.name}"
    if not member.isreg() or member.issparse():
        raise BadInput(f"{where} is a link or a sparse file, expected a plain one; write the shard again")
    table, rank = (images, IMAGES.index(ending)) if ending in IMAGES else (captions, ("txt", "json").index(ending))
    if key in table and table[key][0] == rank:
        raise BadInput(f"{where} is there twice; a sample's name must be its own within a shard")
    if key in table and table[key][0] < rank:
        return
    if table is images:
        images[key] = rank, Member(shard, member.offset_data, member.size, member.name)
        return
    if member.size > _MAX_CAPTION_BYTES:
        raise BadInput(f"{where} has {member.size} bytes, expected a caption of at most {_MAX_CAPTION_BYTES}")
    text = decode_text(tar.extractfile(member).read(), where)
    if ending == "json":
        text = json_object(text, where).get(caption_key)
        if text is None:
            return
    captions[key] = rank, checked_caption(text, where)


def _refuse_halves(path, images, captions, caption_key) -> None:
    for who, have, lack, whole in (("images", images, captions, f"caption (.txt, or {caption_key!r} in .json)"),
                                   ("captions", captions, images, f"image ({', '.join(IMAGES)})")):
        alone = [key for key in have if key not in lack]
        if alone:
            raise BadInput(f"{path}: {len(alone)} of {len(have)} {who} have no {whole} of the same name: "
                           f"{some(alone)}; write the shard again" +
                           (", or choose with -o data.dataset.caption_key=..." if have is images else ""))


def read_shards(paths, caption_key: str) -> tuple:
    """``(members, captions)`` of several shards, in their order; see ``read_index``.

    Raises:
        BadInput: as ``read_index``, or no pair at all.
    """
    members, captions = [], []
    for number, path in enumerate(paths):
        of_shard = read_index(path, number, caption_key)
        members += of_shard[0]
        captions += of_shard[1]
    if not members:
        raise BadInput(f"{len(paths)} shard(s), from {paths[0]}, hold no pair of an image ({', '.join(IMAGES)}) and a "
                       f"caption (.txt, or {caption_key!r} in .json)")
    return members, captions


def read_member(path: Path, member: Member) -> bytes:
    """The bytes of one image of the shard ``path``."""
    with open(path, "rb") as file:
        file.seek(member.offset)
        return file.read(member.size)
