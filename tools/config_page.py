"""Write docs/config.md: every key from the schema, and the options of every named entry from signatures and docstrings.

python tools/config_page.py            (a test fails when the page is not what this writes)
"""
import inspect
import os
import re
import sys
import typing
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("GLOG_minloglevel", "2")

from passl_mixer import list_backbones  # noqa: E402
from passl_mixer.data import DATASETS, VIEWS  # noqa: E402
from passl_mixer.heads import HEADS  # noqa: E402
from passl_mixer.methods import METHODS  # noqa: E402
from passl_mixer.methods.text_tower import TextTransformer  # noqa: E402
from passl_mixer.registry import BACKBONES, Registry, type_words  # noqa: E402
from passl_mixer.schema import OPTIM, RENAMED, REQUIRED, SCHEMA, Entry, Key  # noqa: E402
from passl_mixer.training.optim import OPTIONS, SHARED  # noqa: E402

PAGE = ROOT / "docs" / "config.md"
HEADER = """# Configuration keys

Written by `python tools/config_page.py` from `passl_mixer/schema.py`, signatures and docstrings; do not edit.

A configuration is a YAML file. `base:` names one other file, relative to it, that it changes; a base has no base of its
own. `-o key=value` changes any key, typed as YAML: `-o optim.lr=1e-3 -o "evaluate.at_end=[knn]"`. An unknown key is an
error that names the nearest one. A section given another `name` replaces its base instead of merging with it. A size or
normalisation that is left open follows `data.train_views`. In Python, `get_config(path, ["optim.lr=1e-3"])` gives the
same configuration with keys as attributes.

A named entry, such as `model.backbone`, is a mapping with `name` and options, or the name alone. The options of each
are further down.
"""
GIVEN = ("self", "backbone", "head", "in_features", "out_features", "split")   # the program supplies them
VIEW_OPTIONS = {
    "img_size": "side of the views, pixels",
    "crop_min": "smallest share of the image's area that a crop keeps, above 0 and up to 1",
    "flip_p": "probability of a horizontal flip",
    "interpolation": "\"bilinear\" or \"bicubic\", antialiased as Pillow does it",
    "jitter": "strengths of brightness, contrast, saturation and hue; hue at most 0.5",
    "jitter_p": "probability of colour jitter",
    "gray_p": "probability of a gray image",
    "blur_p": "probability of the blur, whose kernel is a tenth of `img_size`",
    "mean": "subtracted from pixels in 0..1; a number, or one per channel",
    "std": "divides after that; a number, or one per channel",
}
OPTIMISER_OPTIONS = {
    "weight_decay": ("number", "decay of the weights, 0 or more"),
    "clip_norm": ("number or null", "largest global norm of the gradients; null: no clipping"),
    "exclude": ("list of strings", "patterns of parameter names without decay, nor adapted by LARS; vectors never are"),
    "decay_vectors": ("true or false", "decay biases and norms too, and what `exclude` names by default"),
    "fixed_lr": ("list of strings", "patterns of parameter names whose rate stays at the peak"),
    "beta1": ("number", "decay of the first moment, in [0, 1)"),
    "beta2": ("number", "decay of the second moment, in [0, 1)"),
    "eps": ("number", "added to the root of the second moment, above 0"),
    "momentum": ("number", "of the velocity, in [0, 1)"),
    "nesterov": ("true or false", "Nesterov's form of momentum"),
    "trust_coefficient": ("number", "of the layer-wise rate, above 0"),
    "lr_in_velocity": ("true or false", "the velocity holds the rate (SimCLR); false: it does not (BYOL, MoCo v3)"),
}


def words_of(kind) -> str:
    """A type for a table: ``integer``, ``number or null``, ``list of strings``."""
    text = type_words(kind)
    text = re.sub(r"a list of an? (\w+)", r"list of \1s", text)
    return re.sub(r"\ban? ", "", text)


def default_of(value) -> str:
    """A default as YAML would have it."""
    return "required" if value in (REQUIRED, inspect.Parameter.empty) else f"`{yaml_of(value)}`"


def yaml_of(value) -> str:
    """A value in YAML's flow style."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(yaml_of, value))}]"
    if isinstance(value, float):
        return repr(round(value, 4) if value > 1e-3 else value)
    return f'"{value}"' if str(value).startswith("*") else str(value)


def allowed_of(allowed) -> str:
    """The allowed values of a key."""
    return allowed if isinstance(allowed, str) else ", ".join(f"`{word}`" for word in allowed)


def table(header: tuple, rows: list) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def rows_of(section: dict, prefix: str) -> list:
    """A row for every key of a section and of the sections in it."""
    rows = []
    for key, rule in section.items():
        name = f"`{prefix}{key}`"
        if isinstance(rule, Key):
            rows.append((name, words_of(rule.kind), default_of(rule.default), allowed_of(rule.allowed), rule.meaning))
        elif isinstance(rule, Entry):
            rows.append((name, f"named {rule.kind}", "`null`" if rule.optional else "required", "", rule.meaning))
        else:
            rows += rows_of(rule, f"{prefix}{key}.")
    return rows


def sections() -> str:
    """The keys, one table a section."""
    columns = ("key", "type", "default", "allowed", "meaning")
    top = {key: rule for key, rule in SCHEMA.items() if isinstance(rule, Key)}
    parts = [f"## Top level\n\n{table(columns, rows_of(top, ''))}"]
    for key, rule in SCHEMA.items():
        if isinstance(rule, Entry):
            rows = rows_of({key: rule}, "") + rows_of(OPTIM, f"{key}.")
        elif isinstance(rule, Key):
            continue
        else:
            rows = rows_of(rule, f"{key}.")
        parts.append(f"## `{key}`\n\n{table(columns, rows)}")
    old = table(("old name", "name"), [(f"`{before}`", f"`{now}`") for before, now in RENAMED.items()])
    return "\n".join([*parts, "## Old names\n\nAn old name works and is announced on stderr. Both names with different "
                      f"values are an error.\n\n{old}"])


def first_line(cls: type) -> str:
    """The first sentence of a docstring, in Markdown."""
    return markdown(inspect.getdoc(cls).split("\n\n")[0])


def markdown(text: str) -> str:
    """Docstring text as a table cell."""
    return " ".join(text.split()).replace("``", "`").replace("|", "\\|").rstrip(".")


def arguments_of(cls: type) -> dict:
    """``{argument: meaning}`` of the Args section of a class' docstring."""
    found, names = {}, []
    _, _, block = inspect.getdoc(cls).partition("\nArgs:\n")
    for line in block.splitlines():
        if not line.startswith("    "):
            break
        if not line.startswith("     "):
            head, _, rest = line.strip().partition(": ")
            names = head.split(", ")
            found.update(dict.fromkeys(names, rest))
        else:
            found.update({name: f"{found[name]} {line.strip()}" for name in names})
    return {name: markdown(text) for name, text in found.items()}


def options(cls: type, shared: dict) -> str:
    """The table of a constructor's options; ``shared`` has meanings that the class' docstring leaves out."""
    hints, meanings = typing.get_type_hints(cls.__init__), {**shared, **arguments_of(cls)}
    rows = [(f"`{name}`", words_of(hints[name]), default_of(parameter.default), meanings[name])
            for name, parameter in inspect.signature(cls.__init__).parameters.items() if name not in GIVEN]
    return table(("option", "type", "default", "meaning"), rows) if rows else "No options.\n"


def entries(title: str, registry: Registry, shared: dict) -> str:
    """One section: every class of a registry under all its names."""
    names: dict = {}
    for name in registry.names():
        names.setdefault(registry.entry(name)[0], []).append(name)
    parts = [f"## {title}\n"]
    for cls, own in names.items():
        parts.append(f"### {', '.join(f'`{name}`' for name in own)}\n\n{first_line(cls)}.\n\n{options(cls, shared)}")
        if cls.__name__ == "CLIP":
            parts.append(f"Options of its `text`:\n\n{options(TextTransformer, {})}")
    text = "\n".join(parts)
    for cls, own in names.items():              # docstrings name classes, configurations their names
        text = text.replace(f"`{cls.__name__}`", f"`{own[0]}`") if cls.__name__ not in own else text
    return text


def backbones() -> str:
    """One row a class: its options with their defaults."""
    rows = []
    for name in list_backbones():
        if BACKBONES.entry(name)[1] == {}:
            parameters = BACKBONES.parameters(name).items()
            words = [f"`{key}`" + ("" if p.default is p.empty else f" {yaml_of(p.default)}") for key, p in parameters]
            rows.append((f"`{name}`", ", ".join(words)))
    return ("## Backbones: `model.backbone`\n\nThe variants and their sizes are in [model_zoo.md](model_zoo.md); each "
            "takes every option of its class, and `pretrained`\n([weights.md](weights.md)). The value after an "
            "option is its default.\n\n"
            + table(("class", "options"), rows))


def optimisers() -> str:
    """One table for what all optimisers have, one for what each has beside it."""
    def options_table(known):
        return table(("option", "type", "default", "meaning"),
                     [(f"`{key}`", OPTIMISER_OPTIONS[key][0], default_of(value), OPTIMISER_OPTIONS[key][1])
                      for key, value in known.items()])

    parts = ["## Optimisers: `optim`\n\nOptions of all, beside `name`, `lr` and `base_batch_size`. An option set to "
             f"null is left out.\n\n{options_table(SHARED)}"]
    for name, known in OPTIONS.items():
        own = {key: value for key, value in known.items() if key not in SHARED}
        parts.append(f"### `{name}`\n\n{options_table(own)}")
    return "\n".join(parts)


def page() -> str:
    """The whole page."""
    return "\n".join([
        HEADER, sections(), backbones(), entries("Heads: `model.head`", HEADS, {}),
        entries("Methods: `model.method`", METHODS, {}), optimisers(),
        entries("Datasets: `data.dataset`, `data.eval_dataset`\n\nFolder layouts and file formats: [data.md](data.md), "
                "[clip.md](clip.md).", DATASETS, {}),
        entries("Views: `data.train_views`, `data.eval_views`\n\nProbabilities, strengths and sources side by side: "
                "[data.md](data.md).", VIEWS, VIEW_OPTIONS)])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE.relative_to(ROOT))
