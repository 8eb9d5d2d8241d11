"""YAML files, one optional ``base:`` and ``-o key=value`` overrides, checked against a schema.

Keys are strict at every level: an unknown one is an error that names the nearest known one. Sections with a ``name``
(a backbone, a dataset, ...) are checked by the registry that builds them.
"""
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Optional, Sequence

import yaml

from passl_mixer.errors import BadInput, nearest
from passl_mixer.registry import matches, type_words

ENTRY = object()        # a section that a registry checks: {name: ..., options}
REQUIRED = object()
ABOVE_0, FROM_0 = "above 0", "0 or more"
ITEMS = ["knn", "linear", "labels_1", "labels_10"]

# key -> (type, default, range of a number); REQUIRED keys have no default
SCHEMA = {
    "seed": (int, 0, FROM_0),
    "output_dir": (str, REQUIRED),
    "model": {"backbone": ENTRY, "head": ENTRY, "method": ENTRY},
    "data": {
        "dataset": ENTRY, "train_views": ENTRY, "eval_views": ENTRY,
        "batch_size": (int, REQUIRED, ABOVE_0),             # over all devices and accumulation steps
        "num_workers": (int, 2, FROM_0),                    # loader threads per process
    },
    "optim": ENTRY,                                         # and the two keys of OPTIM
    "schedule": {"epochs": (int, REQUIRED, ABOVE_0), "warmup_epochs": (float, 0.0, FROM_0),
                 "final_lr": (float, 0.0, FROM_0)},
    "train": {
        "device": (str, "auto"), "precision": (str, "fp32"), "accumulate": (int, 1, ABOVE_0),
        "max_steps": (Optional[int], None, ABOVE_0), "log_every_steps": (int, 50, ABOVE_0),
        "checkpoint_every_epochs": (int, 1, FROM_0), "checkpoint_every_steps": (Optional[int], None, ABOVE_0),
        "keep_checkpoints": (int, 2, ABOVE_0), "visualdl": (bool, False), "collapse_threshold": (float, 0.05, FROM_0),
        "init_from": (Optional[str], None),                 # run or checkpoint whose backbone the run starts from
    },
    "evaluate": {
        "every_epochs": (int, 0, FROM_0),                   # kNN monitor; 0: never
        "at_end": (Sequence[str], []),                      # of ITEMS
        "batch_size": (int, 256, ABOVE_0),
        "knn": {"k": (int, 20, ABOVE_0), "temperature": (float, 0.1, ABOVE_0),
                "bank_images": (Optional[int], None, ABOVE_0)},
        "linear": {"epochs": (int, 100, ABOVE_0), "lr": (float, 0.1, ABOVE_0), "batch_size": (int, 512, ABOVE_0),
                   "weight_decay": (float, 0.0, FROM_0)},
        "few_labels": {"draws": (int, 20, ABOVE_0), "l2": (float, 0.01, ABOVE_0)},
    },
}
# lr is for base_batch_size images (null: for data.batch_size) and grows linearly with data.batch_size
OPTIM = {"lr": (float, REQUIRED, ABOVE_0), "base_batch_size": (Optional[int], None, ABOVE_0)}


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


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, except that 1e-3 is a number and a repeated key an error."""

    def construct_mapping(self, node, deep=False):
        mapping = super().construct_mapping(node, deep)
        if len(mapping) != len(node.value):
            keys = [self.construct_object(k) for k, _ in node.value]
            twice = next(k for k in keys if keys.count(k) > 1)
            raise yaml.constructor.ConstructorError(None, None, f"key {twice!r} is given twice", node.start_mark)
        return mapping


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"), list("-+.0123456789"))


def _parse(text: str, where: str):
    loader = None
    try:
        loader = _Loader(text)
        return loader.get_single_data()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise BadInput(f"{where}{line}: not YAML: {getattr(error, 'problem', None) or error}") from None
    finally:
        if loader is not None:
            loader.dispose()


def _read(path: Path) -> dict:
    if not path.is_file():
        folder = path.parent
        others = [p.name for p in sorted(folder.glob("*.yaml"))] if folder.is_dir() else []
        hint = nearest(path.name, others) if others else f"; the folder {folder} does not exist or holds no .yaml"
        raise BadInput(f"no configuration file {path}{hint}")
    try:
        content = _parse(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError:
        raise BadInput(f"{path} is not UTF-8 text; expected a YAML file") from None
    if not isinstance(content, dict):
        raise BadInput(f"{path}: expected sections such as model: and data:, got {type(content).__name__}")
    return content


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
    nested = _parse(value, f"override {text!r}")
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


def get_config(path, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration file.

    Args:
        path: a YAML file. Its optional ``base:`` names one other file, relative to it or absolute, which it changes; a
            base has no base of its own.
        overrides: texts ``a.b=value``, the value typed as YAML.
    Returns:
        The whole configuration with every default filled in; keys are attributes too.
    Raises:
        BadInput: no such file, not YAML, unknown key, wrong type, missing key.
    """
    path = Path(path)
    content = _read(path)
    if "base" in content:
        base_path = path.parent / str(content.pop("base"))
        base = _read(base_path)
        if "base" in base:
            raise BadInput(f"{path}: its base {base_path} has a base itself; one level only")
        content = _merge(base, content)
    config = _check(_merge(content, _overrides(overrides)), SCHEMA, "")
    _check_rest(config)
    return config


def _check_rest(config: Config) -> None:
    """What the table of keys cannot say."""
    for key, rule in OPTIM.items():
        config.optim[key] = _check_value(config.optim, key, f"optim.{key}", *rule)
    if config.data.batch_size % config.train.accumulate:
        raise BadInput(f"'data.batch_size' is {config.data.batch_size} and 'train.accumulate' "
                       f"{config.train.accumulate}; expected a batch that divides evenly into the micro-batches")
    for item in config.evaluate.at_end:
        if item not in ITEMS:
            raise BadInput(f"'evaluate.at_end' holds {item!r}{nearest(item, ITEMS)}")


def dump(config: Mapping) -> str:
    """The configuration as YAML text that ``get_config`` reads back unchanged."""
    return yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True)
