"""YAML text and files to plain values, strictly: a repeated key is an error, and 1e-3 is a number."""
import re
from pathlib import Path

import yaml

from passl_mixer.errors import BadInput, nearest


class Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, except that 1e-3 is a number and a repeated key an error."""

    def construct_mapping(self, node, deep=False):
        """A mapping without repeated keys.

        Raises:
            ConstructorError: a key that is there twice.
        """
        mapping = super().construct_mapping(node, deep)
        if len(mapping) != len(node.value):
            keys = [self.construct_object(k) for k, _ in node.value]
            twice = next(k for k in keys if keys.count(k) > 1)
            raise yaml.constructor.ConstructorError(None, None, f"key {twice!r} is given twice", node.start_mark)
        return mapping


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"), list("-+.0123456789"))


def parse(text: str, where: str):
    """The value of a YAML text; ``where`` is its origin, for messages.

    Raises:
        BadInput: not YAML.
    """
    loader = None
    try:
        loader = Loader(text)
        return loader.get_single_data()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise BadInput(f"{where}{line}: not YAML: {getattr(error, 'problem', None) or error}") from None
    finally:
        if loader is not None:
            loader.dispose()


def read(path: Path) -> dict:
    """The sections of a YAML file.

    Raises:
        BadInput: a missing file, not UTF-8, not YAML or not a mapping.
    """
    if not path.is_file():
        folder = path.parent
        others = [p.name for p in sorted(folder.glob("*.yaml"))] if folder.is_dir() else []
        hint = nearest(path.name, others) if others else f"; the folder {folder} does not exist or holds no .yaml"
        raise BadInput(f"no configuration file {path}{hint}")
    try:
        content = parse(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError:
        raise BadInput(f"{path} is not UTF-8 text; expected a YAML file") from None
    if not isinstance(content, dict):
        raise BadInput(f"{path}: expected sections such as model: and data:, got {type(content).__name__}")
    return content
