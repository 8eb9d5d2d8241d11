"""Readers of images' captions: tables, JSON lines, text files beside the images.

Readers are generators of ``(image path, caption, line)``; they open no image. Text is UTF-8, with or without a byte
order mark. Errors name the file and the line.
"""
import contextlib
import csv
import json
import os
from pathlib import Path

from passl_mixer.data.folder import walk_images
from passl_mixer.errors import BadInput, nearest

DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
SHOWN = 3  # names in a message


def decode_text(data: bytes, where: str, first_line: int = 1) -> str:
    """Decode UTF-8.

    Args:
        data: bytes of the file, or a part of it.
        where: the file, for messages.
        first_line: number of the first line of ``data``; 1 drops a byte order mark.
    Raises:
        BadInput: not UTF-8; the message has the line.
    """
    try:
        return data.decode("utf-8-sig" if first_line == 1 else "utf-8")
    except UnicodeDecodeError as error:
        line = first_line + error.object[:error.start].count(b"\n")
        raise BadInput(f"{where}, line {line}: not UTF-8 text ({error.reason}); save it as UTF-8") from None


def lines_of(path):
    """Iterate over the lines of a UTF-8 file, line ends kept."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            yield decode_text(line, str(path), number)


def checked_caption(value, where: str) -> str:
    """A caption without the white space around it.

    Raises:
        BadInput: not a string, or empty.
    """
    if not isinstance(value, str):
        raise BadInput(f"{where}: the caption is {value!r}, expected a text")
    if not value.strip():
        raise BadInput(f"{where}: the caption is empty; write one, or take the image out")
    return value.strip()


def some(names) -> str:
    """The first names of a list, for a message."""
    return ", ".join(names[:SHOWN]) + (" ..." if len(names) > SHOWN else "")


def delimiter_of(path: Path) -> str:
    """The delimiter of a table by its file's ending.

    Raises:
        BadInput: neither .csv nor .tsv.
    """
    if path.suffix.lower() not in DELIMITERS:
        raise BadInput(f"{path} ends neither in .csv nor in .tsv; say what divides its columns, e.g. "
                       "-o data.dataset.delimiter=';'")
    return DELIMITERS[path.suffix.lower()]


def read_table(path: Path, image_column: str, caption_column: str, delimiter: str):
    """Pairs of a table with a header line, quoted as in CSV (RFC 4180) with any delimiter.

    Args:
        path: the file.
        image_column, caption_column: names in the header.
        delimiter: one character.
    Yields:
        ``(image, caption, line)``; of a row that spans lines, the last one.
    Raises:
        BadInput: no such column, a row of another length, a quote that does not close, an empty caption.
    """
    with contextlib.closing(lines_of(path)) as lines:   # the file is closed before an error is shown
        yield from _table_rows(lines, path, image_column, caption_column, delimiter)


def _table_rows(lines, path, image_column, caption_column, delimiter):
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
        for option, name in (("image_column", image_column), ("caption_column", caption_column)):
            if header.count(name) != 1:
                state = "two columns" if name in header else "no column"
                raise BadInput(f"{path} has {state} {name!r}{nearest(name, header)}; choose with "
                               f"-o data.dataset.{option}=...")
        image, caption = header.index(image_column), header.index(caption_column)
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if row and len(row) != len(header):
                raise BadInput(f"{where}: {len(row)} columns, expected the header's {len(header)}; put values that "
                               "hold the delimiter in double quotes")
            if row:
                yield row[image], checked_caption(row[caption], where), reader.line_num
    except csv.Error as error:
        raise BadInput(f"{path}, line {reader.line_num}: not a table ({error}); put values that hold quotes, line "
                       "ends or the delimiter in double quotes, and double the quotes in them") from None


def read_jsonl(path: Path, image_key: str, caption_key: str):
    """Pairs of a file with one JSON object a line; empty lines are left out.

    Args:
        path: the file.
        image_key, caption_key: keys of the objects.
    Yields:
        ``(image, caption, line)``.
    Raises:
        BadInput: a line that is no JSON object, or lacks a key or a caption.
    """
    for number, line in enumerate(lines_of(path), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        record = json_object(line, where)
        for option, key in (("image_key", image_key), ("caption_key", caption_key)):
            if key not in record:
                raise BadInput(f"{where}: no key {key!r}{nearest(key, record)}; choose with "
                               f"-o data.dataset.{option}=...")
        if not isinstance(record[image_key], str):
            raise BadInput(f"{where}: the image is {record[image_key]!r}, expected a path")
        yield record[image_key], checked_caption(record[caption_key], where), number


def json_object(text: str, where: str) -> dict:
    """Parse one JSON object.

    Raises:
        BadInput: not JSON, or not an object.
    """
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where}: not JSON ({error})") from None
    if not isinstance(record, dict):
        raise BadInput(f"{where}: expected a JSON object, got {type(record).__name__}")
    return record


def read_folder(root: Path, extensions: tuple):
    """Pairs of a folder, at any depth: an image and the text file of the same stem beside it, one caption a file.

    Raises:
        BadInput: an image without a caption or the reverse; a text that is empty or not UTF-8.
    """
    texts = {os.path.splitext(name)[0]: name for name in walk_images(str(root), (".txt",))}
    images = list(walk_images(str(root), extensions))
    without = [name for name in images if os.path.splitext(name)[0] not in texts]
    if without:
        raise BadInput(f"{root}: {len(without)} of {len(images)} images have no .txt of the same name beside them: "
                       f"{some(without)}; write their captions, or take them out")
    stems = {os.path.splitext(name)[0] for name in images}
    alone = [name for stem, name in texts.items() if stem not in stems]
    if alone:
        raise BadInput(f"{root}: {len(alone)} of {len(texts)} captions have no image of the same name beside them: "
                       f"{some(alone)}; put the images there, or take the texts out")
    for name in images:
        text = root / texts[os.path.splitext(name)[0]]
        yield name, checked_caption(decode_text(text.read_bytes(), str(text)), str(text)), 1


def existing_pairs(rows, base: Path, source: Path) -> tuple:
    """Read all pairs and check that the images exist.

    Args:
        rows: ``(image, caption, line)``; images relative to ``base``, or absolute.
        base: folder of the images.
        source: origin of the rows, for messages.
    Returns:
        ``(paths, captions)``, two lists of N strings.
    Raises:
        BadInput: missing images (their number and the first names), or no pair at all.
    """
    paths, captions, missing = [], [], []
    for image, caption, line in rows:
        path = os.path.join(base, image)
        if not os.path.isfile(path):
            missing.append(f"{image!r} (line {line})")
        paths.append(path)
        captions.append(caption)
    if missing:
        raise BadInput(f"{source} names {len(paths)} images, of which {len(missing)} are not in {base}: "
                       f"{some(missing)}; put them there, or say where they are with "
                       "-o data.dataset.root=/path/to/images")
    if not paths:
        raise BadInput(f"{source} holds no pair of an image and a caption")
    return paths, captions
