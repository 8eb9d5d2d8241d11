"""YAML files, one optional ``base:`` and ``-o key=value`` overrides, checked against a schema.

Keys are strict at every level: an unknown one is an error that names the nearest known one. Sections with a ``name``
(a backbone, a dataset, ...) are checked by the registry that builds them.
"""
from collections.abc import Mapping
from pathlib import Path
from typing import Sequence

import yaml

from passl_mixer.errors import BadInput, nearest
from passl_mixer.passl_yaml import translate as passl_yaml
from passl_mixer.registry import matches, type_words
from passl_mixer.schema import DECAYS, ENTRY, ENTRY_OR_NULL, FROM_0, ITEMS, LOADERS, OPTIM, REQUIRED, SCHEMA
from passl_mixer.yaml_text import parse, read


class Config(dict):
    """A dictionary whose keys are attributes too; a missing one names its nearest neighbour."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the configuration has no key {name!r}{nearest(name, self)}") from None

    def __setattr__(self, name, value):
        self[name] = value


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


def _check(section: Mapping, schema: Mapping, path: str) -> Config:
    for key in section:
        if key not in schema:
            where = f"section '{path}'" if path else "the configuration"
            raise BadInput(f"{where} has no key {key!r}{nearest(str(key), schema)}")
    checked = Config()
    for key, rule in schema.items():
        full = f"{path}.{key}" if path else key
        if rule is ENTRY:
            checked[key] = _check_entry(section.get(key), full)
        elif rule is ENTRY_OR_NULL:
            checked[key] = None if section.get(key) is None else _check_entry(section[key], full)
        elif isinstance(rule, Mapping):
            value = section.get(key, {})
            if not isinstance(value, Mapping):
                raise BadInput(f"'{full}' is {value!r}, expected a mapping with {', '.join(rule)}")
            checked[key] = _check(value, rule, full)
        else:
            checked[key] = _check_value(section, key, full, *rule)
    return checked


def _check_entry(value, full: str) -> Config:
    value = {"name": value} if isinstance(value, str) else value
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        got = "is missing" if value is None else f"is {value!r}"
        raise BadInput(f"'{full}' {got}, expected a mapping with 'name', e.g. {full}: {{name: ...}}")
    return _wrap(value)


def _check_value(section: Mapping, key: str, full: str, kind, default, bound: str = ""):
    if key not in section:
        if default is REQUIRED:
            raise BadInput(f"'{full}' is missing; add it to the file or give -o {full}=...")
        return default
    value = section[key]
    if not matches(value, kind):
        raise BadInput(f"'{full}' is {value!r}, expected {type_words(kind)}")
    if bound and value is not None and not (value > 0 or (bound == FROM_0 and value == 0)):
        raise BadInput(f"'{full}' is {value}, expected a number {bound}")
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
    """The model section of a translated file: ``architecture``, PASSL's word, is its backbone."""

    architecture = property(lambda self: self["backbone"])


def _load(path: Path) -> tuple:
    """``(content in native keys, what was said while it was translated: None if it was native)``."""
    content = read(path)
    if passl_yaml.recognises(content):
        return passl_yaml.translate_file(content, path)
    unknown = [k for k in content if k not in SCHEMA and k != "base"]
    if 2 * len(unknown) > len(content):
        raise BadInput(f"{path} is neither a configuration of passl_mixer (sections {', '.join(SCHEMA)}) nor a file of "
                       f"PASSL v1.1 (model.name, dataloader): it has {', '.join(map(str, unknown[:6]))}; start from "
                       "one "
                       "of configs/")
    return content, None


def _change(content: dict, over: Mapping, notes) -> dict:
    """``_merge``; another backbone leaves behind the width that a translated head has for ``build_head``."""
    model = over.get("model")
    if notes is not None and isinstance(model, Mapping) and "backbone" in model:
        head = {k: v for k, v in content["model"]["head"].items() if k != "in_features"}
        content = {**content, "model": {**content["model"], "head": head}}
    return _merge(content, over)


def get_config(path, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration file.

    Args:
        path: a YAML file. Its optional ``base:`` names one other file, relative to it or absolute, which it changes; a
            base has no base of its own. A file of PASSL v1.1 is translated (``integrations/passl_yaml.py``), and then
            ``config.model.architecture`` is ``config.model.backbone``.
        overrides: texts ``a.b=value``, the value typed as YAML.
    Returns:
        The whole configuration with every default filled in; keys are attributes too.
    Raises:
        BadInput: no such file, not YAML, unknown key, wrong type, missing key, what cannot be translated.
    """
    return read_config(path, overrides)[0]


def read_config(path, overrides: Sequence[str] = ()) -> tuple:
    """As ``get_config``: ``(configuration, notes)``; the notes of a translation, a list, are None for a native file."""
    path = Path(path)
    content, notes = _load(path)
    if "base" in content:
        base_path = path.parent / str(content.pop("base"))
        base, notes = _load(base_path)
        if "base" in base:
            raise BadInput(f"{path}: its base {base_path} has a base itself; one level only")
        content = _change(base, content, notes)
    config = _check(_change(content, _overrides(overrides), notes), SCHEMA, "")
    _check_rest(config)
    if notes is not None:
        config["model"] = _TranslatedModel(config.model)
    return config, notes


def _check_rest(config: Config) -> None:
    """What the table of keys cannot say."""
    for key, rule in OPTIM.items():
        config.optim[key] = _check_value(config.optim, key, f"optim.{key}", *rule)
    if config.data.batch_size % config.train.accumulate:
        raise BadInput(f"'data.batch_size' is {config.data.batch_size} and 'train.accumulate' "
                       f"{config.train.accumulate}; expected a batch that divides evenly into the micro-batches")
    if config.train.recompute and config.train.compile:
        raise BadInput("'train.recompute' and 'train.compile' are both true, and a compiled backbone keeps its "
                       "activations; set one of them to false")
    _check_schedule(config.schedule)
    if config.data.loader not in LOADERS:
        raise BadInput(f"'data.loader' is {config.data.loader!r}, expected {' or '.join(LOADERS)}")
    for item in config.evaluate.at_end:
        if item not in ITEMS:
            raise BadInput(f"'evaluate.at_end' holds {item!r}{nearest(item, ITEMS)}")
    check_items(config.evaluate.at_end, config)


def _check_schedule(schedule: Config) -> None:
    if schedule.warmup_steps is not None and schedule.warmup_epochs:
        raise BadInput(f"'schedule.warmup_steps' is {schedule.warmup_steps} and 'schedule.warmup_epochs' "
                       f"{schedule.warmup_epochs}, two lengths of one warm-up; set schedule.warmup_epochs=0 or "
                       "schedule.warmup_steps=null")
    if schedule.decay not in DECAYS:
        raise BadInput(f"'schedule.decay' is {schedule.decay!r}, expected {' or '.join(DECAYS)}")
    steps = schedule.decay_epochs
    if steps is not None and (not steps or list(steps) != sorted(set(steps)) or steps[0] <= 0 or schedule.final_lr):
        raise BadInput(f"'schedule.decay_epochs' is {steps} and 'schedule.final_lr' {schedule.final_lr}; expected "
                       "positive epochs in rising order, and a final_lr of 0: a staircase ends where it ends")
    if steps is not None and schedule.decay != "cosine":
        raise BadInput(f"'schedule.decay_epochs' is {steps} and 'schedule.decay' {schedule.decay!r}, a staircase and a "
                       "line; set schedule.decay_epochs=null or leave schedule.decay out")
    if steps is None and schedule.decay_factor is not None:
        raise BadInput("'schedule.decay_factor' is given without 'schedule.decay_epochs'; add the epochs, or remove it")


def check_items(items: Sequence[str], config: Mapping) -> None:
    """Raise ``BadInput`` where the trained classifier is to be measured and there is none."""
    method = config["model"]["method"]["name"]
    if "classifier" in items and method != "supervised":
        raise BadInput(f"method {method!r} trains no classifier to evaluate; expected 'supervised', or of "
                       f"{', '.join(item for item in ITEMS if item != 'classifier')}")


def with_defaults(tree: Mapping, schema: Mapping = SCHEMA) -> dict:
    """A configuration that an earlier version saved, with the keys that came since at their defaults."""
    filled = dict(tree)
    for key, rule in schema.items():
        if isinstance(rule, Mapping):
            filled[key] = with_defaults(tree.get(key, {}), rule)
        elif isinstance(rule, tuple) and rule[1] is not REQUIRED:
            filled.setdefault(key, rule[1])
    return filled


def dump(config: Mapping) -> str:
    """The configuration as YAML text that ``get_config`` reads back unchanged."""
    return yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True)
