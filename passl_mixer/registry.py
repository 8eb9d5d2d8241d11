"""Names to classes: the only indirection between a YAML file and the code it runs.

A registry is a table ``name -> (class, preset options)``. ``build`` checks a configuration against the constructor's
signature and type annotations, so a typo is an error before anything is computed.
"""
import collections.abc
import inspect
import types
import typing

from passl_mixer.errors import BadInput, nearest

# Optional[int] and, from Python 3.10, int | None
_UNIONS = (typing.Union, *([types.UnionType] if hasattr(types, "UnionType") else []))


def matches(value, annotation) -> bool:
    """Whether a YAML value has the annotated type (an int is a float, a bool is not an int)."""
    if annotation in (inspect.Parameter.empty, typing.Any, object):
        return True
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in _UNIONS:
        return any(matches(value, a) for a in args)
    if annotation is None or annotation is type(None):
        return value is None
    if annotation is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if origin in (collections.abc.Sequence, list, tuple):
        if not isinstance(value, (list, tuple)):
            return False
        return not args or all(matches(v, args[0]) for v in value)
    if origin in (collections.abc.Mapping, dict):
        return isinstance(value, collections.abc.Mapping)
    return isinstance(value, origin or annotation)


def type_words(annotation) -> str:
    """A type annotation in plain words, for messages."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in _UNIONS:
        return " or ".join(type_words(a) for a in args)
    if annotation is type(None):
        return "null"
    if origin in (collections.abc.Sequence, list, tuple):
        return f"a list of {type_words(args[0])}" if args else "a list"
    if origin in (collections.abc.Mapping, dict) or annotation is dict:
        return "a mapping"
    words = {int: "an integer", float: "a number", str: "a string", bool: "true or false"}
    return words.get(annotation, getattr(annotation, "__name__", str(annotation)))


class Registry:
    """A table of buildable classes.

    Args:
        kind: singular noun for an entry, for messages.
    """

    def __init__(self, kind: str):
        self.kind = kind
        self._entries: dict = {}

    def add(self, name: str, cls: type, **defaults) -> None:
        """Register a class.

        Args:
            name: new name.
            cls: the class that ``build`` calls.
            **defaults: preset options of the constructor; a configuration may override them.
        Raises:
            KeyError: the name is taken.
            BadInput: a preset that the constructor does not accept.
        """
        if name in self._entries:
            raise KeyError(f"{self.kind} {name!r} is registered already, as {self._entries[name][0].__qualname__}")
        self._entries[name] = (cls, defaults)
        self._check_options(name, defaults, given=())

    def names(self) -> list:
        """Registered names, in order of registration."""
        return list(self._entries)

    def __contains__(self, name) -> bool:
        return name in self._entries

    def entry(self, name: str) -> tuple:
        """``(class, preset options)`` of a name.

        Raises:
            BadInput: unknown name; the message has the nearest one.
        """
        if not isinstance(name, str) or name not in self._entries:
            raise BadInput(f"unknown {self.kind} {name!r}{nearest(str(name), self._entries)}")
        return self._entries[name]

    def parameters(self, name: str) -> dict:
        """Constructor parameters of a name: ``{option: inspect.Parameter}``."""
        cls, _ = self.entry(name)
        signature = inspect.signature(cls.__init__)
        return {k: p for k, p in signature.parameters.items() if k != "self"}

    def _check_options(self, name: str, options: typing.Mapping, given: typing.Iterable) -> None:
        parameters = self.parameters(name)
        hints = typing.get_type_hints(self.entry(name)[0].__init__)
        choosable = [k for k in parameters if k not in given]
        for key, value in options.items():
            if key not in choosable:
                raise BadInput(f"{self.kind} {name!r} has no option {key!r}{nearest(str(key), choosable)}")
            hint = hints.get(key, typing.Any)
            if not matches(value, hint):
                raise BadInput(f"{self.kind} {name!r}: option {key!r} is {value!r}, expected {type_words(hint)}")

    def read(self, cfg, given: typing.Iterable = ()) -> tuple:
        """``(name, options)`` of a configuration, each option checked. Nothing is built, and options may be missing.

        Args:
            cfg: a name, or a mapping with ``name`` and options.
            given: names of the arguments that the program supplies.
        Raises:
            BadInput: unknown name or option, wrong type.
        """
        if isinstance(cfg, str):
            cfg = {"name": cfg}
        if not isinstance(cfg, collections.abc.Mapping) or "name" not in cfg:
            raise BadInput(f"a {self.kind} is a name or a mapping with 'name', got {cfg!r}")
        options = {k: v for k, v in cfg.items() if k != "name"}
        self._check_options(cfg["name"], options, given)
        return cfg["name"], options

    def build(self, cfg, /, **given):
        """Build an entry.

        Args:
            cfg: a name, or a mapping with ``name`` and options.
            **given: arguments that the program supplies; they are no options of the configuration.
        Returns:
            The object.
        Raises:
            BadInput: unknown name or option, wrong type, missing option.
        """
        name, options = self.read(cfg, given)
        cls, defaults = self.entry(name)
        arguments = {**defaults, **options, **given}
        missing = [k for k, p in self.parameters(name).items()
                   if p.default is inspect.Parameter.empty and k not in arguments
                   and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        if missing:
            raise BadInput(f"{self.kind} {name!r} needs option {missing[0]!r}; add it beside its 'name'")
        return cls(**arguments)


BACKBONES = Registry("backbone")
HEADS = Registry("head")
METHODS = Registry("method")
DATASETS = Registry("dataset")
VIEWS = Registry("views recipe")
