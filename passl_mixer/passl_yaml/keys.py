"""Reading a foreign mapping key by key, so that none is dropped silently."""
from collections.abc import Mapping
from typing import Sequence

from passl_mixer.errors import BadInput
from passl_mixer.registry import matches, type_words

REQUIRED = object()


def number(value):
    """A float that YAML 1.1 reads as text, such as 1e-6, as a number; anything else as it is."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


class Keys:
    """A section of a file whose keys are taken one by one; ``finish`` refuses the others.

    Args:
        content: the section; it is not changed.
        path: of the section in the file, for messages; empty for the whole file.
    Raises:
        BadInput: the section is no mapping.
    """

    def __init__(self, content: Mapping, path: str = ""):
        if not isinstance(content, Mapping):
            raise BadInput(f"'{path}' is {content!r}, expected a mapping")
        self.path, self._left, self._opened = path, dict(content), []

    def name_of(self, key: str) -> str:
        """The full path of a key."""
        return f"{self.path}.{key}" if self.path else str(key)

    def __contains__(self, key) -> bool:
        return key in self._left

    def take(self, key: str, kind, default=REQUIRED):
        """Take the value of a key.

        Args:
            key: the key.
            kind: expected type.
            default: value if the file has no such key; without it, the key is required.
        Raises:
            BadInput: a missing required key, or a value of another type.
        """
        if key not in self._left:
            if default is REQUIRED:
                raise BadInput(f"'{self.name_of(key)}' is missing; add it, expected {type_words(kind)}")
            return default
        value = self._left.pop(key)
        value = number(value) if kind is float else value
        if not matches(value, kind):
            raise BadInput(f"'{self.name_of(key)}' is {value!r}, expected {type_words(kind)}")
        return value

    def only(self, key: str, allowed: Sequence, why: str):
        """Take a key with few supported values; the file may leave it out.

        Args:
            key: the key.
            allowed: the supported values.
            why: reason why others are not supported, for messages.
        Raises:
            BadInput: another value.
        """
        if key in self._left:
            value = self._left.pop(key)
            if value not in allowed or isinstance(value, bool) != isinstance(allowed[0], bool):
                raise self.refusal(key, value, why)

    def refusal(self, key: str, value, why: str) -> BadInput:
        """The error for an unsupported option.

        Args:
            key: the key.
            value: its value.
            why: the reason.
        """
        return BadInput(f"'{self.name_of(key)}: {value}' cannot be honoured: {why}")

    def choice(self, known: Sequence[str], key: str = "name") -> str:
        """Take a name, one of ``known``.

        Raises:
            BadInput: another name; the message has the nearest one.
        """
        value = self.take(key, str)
        if value not in known:
            raise BadInput(f"'{self.name_of(key)}' is {value!r}, which is not translated; known: {', '.join(known)}")
        return value

    def section(self, key: str, default=REQUIRED) -> "Keys":
        """A section below this one; all its keys must be taken too."""
        opened = Keys(self.take(key, dict, default), self.name_of(key))
        self._opened.append(opened)
        return opened

    def items(self, key: str) -> list:
        """The mappings of a list, each a section."""
        opened = [Keys(v, f"{self.name_of(key)}[{i}]") for i, v in enumerate(self.take(key, Sequence, []))]
        self._opened += opened
        return opened

    def finish(self) -> None:
        """Check that all keys were taken.

        Raises:
            BadInput: a key that was not.
        """
        for opened in self._opened:
            opened.finish()
        for key, value in self._left.items():
            path = self.name_of(key)
            while isinstance(value, Mapping) and value:
                key, value = next(iter(value.items()))
                path = f"{path}.{key}"
            raise BadInput(f"'{path}: {value}' has no translation, and no key is dropped silently; remove it, and "
                           "give its meaning in native keys with -o (docs/passl_yaml.md)")
