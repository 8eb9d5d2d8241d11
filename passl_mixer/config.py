"""YAML files, one optional ``base:`` and ``-o key=value`` overrides, checked against a schema.

Keys are strict at every level: an unknown one is an error that names the nearest known one. Sections with a ``name``
(a backbone, a dataset, ...) are checked by the registry that builds them. A key's old name is read as its new one.
"""
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Sequence

import yaml

from passl_mixer.errors import BadInput, nearest
from passl_mixer.passl_yaml import translate as passl_yaml
from passl_mixer.registry import matches, type_words
from passl_mixer.schema import ABOVE_0, FROM_0, OPTIM, RENAMED, REQUIRED, SCHEMA, Entry, Key, check_rules
from passl_mixer.yaml_text import parse, read

# Old name -> new name, both without their section.
_NEW_NAMES = {old.partition(".")[2]: new.partition(".")[2] for old, new in RENAMED.items()}


class Config(dict):
    """A dictionary whose keys are attributes too; a missing one names its nearest neighbour."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError:
            raise AttributeError(self._no_key(name)) from None

    def __setattr__(self, name, value):
        if _NEW_NAMES.get(name) in self:        # it would be set and never read
            raise AttributeError(self._no_key(name))
        self[name] = value

    def _no_key(self, name: str) -> str:
        new = _NEW_NAMES.get(name)
        return f"the configuration has no key {name!r}" + (f"; it is called {new!r} now" if new in self
                                                           else nearest(name, self))


def _merge(base: dict, over: Mapping) -> dict:
    """``over`` on top of ``base``; a section given another ``name`` replaces its base instead of merging."""
    if "name" in over and "name" in base and over["name"] != base["name"]:
        return dict(over)
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(below, Mapping)
        merged[key] = _merge(below, value) if both else value
    return merged


def _override(text: str) -> dict:
    path, equals, value = text.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise BadInput(f"override {text!r} is not of the form key.subkey=value, e.g. -o optim.lr=1e-3")
    nested = parse(value, f"override {text!r}")
    for key in reversed(keys):
        nested = {key: nested}
    return nested


def _overrides(texts: Sequence[str]) -> dict:
    """All overrides as one tree, so that the order of ``x.name=...`` and ``x.option=...`` does not matter."""
    tree: dict = {}
    for text in texts:
        tree = _merge(tree, _override(text))
    return tree


def _renamed(content: Mapping, old_keys: set) -> dict:
    """The same content under today's names; the old names that it has are added to ``old_keys``."""
    content = dict(content)
    for old, new in RENAMED.items():
        (section, key), name = old.split("."), new.split(".")[1]
        below = content.get(section)
        if not isinstance(below, Mapping) or key not in below:
            continue
        if name in below and below[name] != below[key]:
            raise BadInput(f"'{old}' is {below[key]!r} and '{new}' is {below[name]!r}, two names of one key; remove "
                           f"{old}, the old one")
        content[section] = {**{k: v for k, v in below.items() if k != key}, name: below[key]}
        old_keys.add(old)
    return content


def _announce(old_keys: set) -> None:
    """Say on stderr what the user should rename; of several processes the first does."""
    if os.environ.get("PADDLE_TRAINER_ID", "0") == "0":
        for old in sorted(old_keys):
            print(f"{old} is called {RENAMED[old]} now; rename it", file=sys.stderr, flush=True)


def _check(section: Mapping, schema: Mapping, path: str) -> Config:
    for key in section:
        if key not in schema:
            where = f"section '{path}'" if path else "the configuration"
            raise BadInput(f"{where} has no key {key!r}{nearest(str(key), schema)}")
    checked = Config()
    for key, rule in schema.items():
        full = f"{path}.{key}" if path else key
        if isinstance(rule, Entry):
            absent = rule.optional and section.get(key) is None
            checked[key] = None if absent else _check_entry(section.get(key), full)
        elif isinstance(rule, Key):
            checked[key] = _check_value(section, key, full, rule)
        else:
            value = section.get(key, {})
            if not isinstance(value, Mapping):
                raise BadInput(f"'{full}' is {value!r}, expected a mapping with {', '.join(rule)}")
            checked[key] = _check(value, rule, full)
    return checked


def _check_entry(value, full: str) -> Config:
    value = {"name": value} if isinstance(value, str) else value
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        got = "is missing" if value is None else f"is {value!r}"
        raise BadInput(f"'{full}' {got}, expected a mapping with 'name', e.g. {full}: {{name: ...}}")
    return _wrap(value)


def _check_value(section: Mapping, key: str, full: str, rule: Key):
    if key not in section:
        if rule.default is REQUIRED:
            raise BadInput(f"'{full}' is missing; add it to the file or give -o {full}=...")
        return _wrap(rule.default)
    value, allowed = section[key], rule.allowed
    if not matches(value, rule.kind):
        raise BadInput(f"'{full}' is {value!r}, expected {type_words(rule.kind)}")
    if allowed in (ABOVE_0, FROM_0) and value is not None and not (value > 0 or (allowed == FROM_0 and value == 0)):
        raise BadInput(f"'{full}' is {value}, expected a number {allowed}")
    if isinstance(value, str) and isinstance(allowed, list) and value not in allowed:
        raise BadInput(f"'{full}' is {value!r}, expected {', '.join(allowed[:-1])} or {allowed[-1]}")
    return _wrap(value)


def _wrap(value):
    if isinstance(value, Mapping):
        return Config({k: _wrap(v) for k, v in value.items()})
    return [_wrap(v) for v in value] if isinstance(value, (list, tuple)) else value


def plain(value):
    """The same tree in plain dictionaries and lists, as YAML and JSON writers want it."""
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value


class _TranslatedModel(Config):
    """The model section of a translated file; ``architecture``, PASSL's name, is its backbone."""

    architecture = property(lambda self: self["backbone"])


def _load(path: Path) -> tuple:
    """``(content in native keys, notes of the translation)``; the notes of a native file are None."""
    content = read(path)
    if passl_yaml.recognises(content):
        return passl_yaml.translate_file(content, path)
    unknown = [k for k in content if k not in SCHEMA and k != "base"]
    if 2 * len(unknown) > len(content):
        raise BadInput(f"{path} is neither a configuration of passl_mixer (sections {', '.join(SCHEMA)}) nor a file of "
                       f"PASSL v1.1 (model.name, dataloader): it has {', '.join(map(str, unknown[:6]))}; start from "
                       "one of configs/")
    return content, None


def _change(content: dict, over: Mapping, notes) -> dict:
    """``over`` merged into ``content``; a new backbone drops the ``in_features`` that a translated head carries."""
    model = over.get("model")
    if notes is not None and isinstance(model, Mapping) and "backbone" in model:
        head = {k: v for k, v in content["model"]["head"].items() if k != "in_features"}
        content = {**content, "model": {**content["model"], "head": head}}
    return _merge(content, over)


def get_config(path, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration file.

    Args:
        path: a YAML file. Its optional ``base:`` names one other file, relative to it or absolute, which it changes; a
            base has no base of its own. A file of PASSL v1.1 is translated (``passl_yaml``), and then
            ``config.model.architecture`` is ``config.model.backbone``.
        overrides: texts ``a.b=value``, the value typed as YAML.
    Returns:
        The whole configuration with every default filled in; keys are attributes too.
    Raises:
        BadInput: no such file, not YAML, an unknown or missing key, a wrong type or value, keys that contradict each
            other, a PASSL key that cannot be translated.
    """
    return read_config(path, overrides)[0]


def read_config(path, overrides: Sequence[str] = ()) -> tuple:
    """As ``get_config``: ``(configuration, notes)``; the notes of a translation, a list, are None for a native file.

    Raises:
        BadInput: as ``get_config``.
    """
    path, old_keys = Path(path), set()
    content, notes = _load(path)
    content = _renamed(content, old_keys)
    if "base" in content:
        base_path = path.parent / str(content.pop("base"))
        base, notes = _load(base_path)
        if "base" in base:
            raise BadInput(f"{path}: its base {base_path} has a base itself; expected one level only")
        content = _change(_renamed(base, old_keys), content, notes)
    content = _change(content, _renamed(_overrides(overrides), old_keys), notes)
    _announce(old_keys)
    config = _check(content, SCHEMA, "")
    for key, rule in OPTIM.items():
        config.optim[key] = _check_value(config.optim, key, f"optim.{key}", rule)
    check_rules(config)
    if notes is not None:
        config["model"] = _TranslatedModel(config.model)
    return config, notes


def with_defaults(saved: Mapping) -> dict:
    """A configuration that an earlier version saved: under today's names, with newer keys at their defaults."""
    return _filled(_renamed(saved, set()), SCHEMA)


def _filled(tree: Mapping, schema: Mapping) -> dict:
    filled = dict(tree)
    for key, rule in schema.items():
        if isinstance(rule, Mapping):
            filled[key] = _filled(tree.get(key, {}), rule)
        elif isinstance(rule, Key) and rule.default is not REQUIRED:
            filled.setdefault(key, rule.default)
    return filled


def dump(config: Mapping) -> str:
    """The configuration as YAML text that ``get_config`` reads back unchanged."""
    return yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True)
