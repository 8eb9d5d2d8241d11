"""Files of prompts, the texts of classes for zero-shot classification."""
from pathlib import Path
from typing import Sequence

from passl_mixer.errors import BadInput

SEPARATOR = " | "       # between the prompts of one class


def read_prompts(path) -> list:
    """The non-empty lines of a prompt file.

    Raises:
        BadInput: no such file, not UTF-8 (with the line), or an empty file.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"no file of prompts {path.absolute()}; expected lines such as 'a photo of a {{}}', or one line "
                       "a class")
    lines = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        try:
            lines.append(line.decode("utf-8-sig" if number == 1 else "utf-8").strip())
        except UnicodeDecodeError:
            raise BadInput(f"{path}, line {number}: not UTF-8 text; save it as UTF-8") from None
    lines = [line for line in lines if line]
    if not lines:
        raise BadInput(f"{path} is empty; expected lines such as 'a photo of a {{}}', or one line a class")
    return lines


def class_prompts(lines: Sequence[str], class_names: Sequence[str], where: str) -> list:
    """The prompts of every class.

    Args:
        lines: of a file. Either templates, all with ``{}`` for the name of a class; or one line a class, in the order
            of the labels, with `` | `` between its prompts.
        class_names: C names.
        where: the file, for messages.
    Returns:
        C lists of strings.
    Raises:
        BadInput: templates mixed with other lines, another number of lines than classes, or a class without prompt.
    """
    templates = [line for line in lines if "{}" in line]
    if templates and len(templates) < len(lines):
        other = next(line for line in lines if "{}" not in line)
        raise BadInput(f"{where}: {len(templates)} of {len(lines)} lines are templates with {{}}, but {other!r} is "
                       "not; write {} into every line, or into none and give one line a class")
    if templates:
        return [[line.replace("{}", name) for line in lines] for name in class_names]
    if len(lines) != len(class_names):
        raise BadInput(f"{where} has {len(lines)} lines without {{}}, but the data has {len(class_names)} classes "
                       f"({class_names[0]!r}, ...); give one line a class in the order of the labels, or templates "
                       "with {}")
    prompts = [[text.strip() for text in line.split(SEPARATOR.strip()) if text.strip()] for line in lines]
    empty = [i for i, texts in enumerate(prompts) if not texts]
    if empty:
        raise BadInput(f"{where}: the line of class {class_names[empty[0]]!r} holds no prompt")
    return prompts
