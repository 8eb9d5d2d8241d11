"""docs/config.md is what the schema, signatures and docstrings say."""
import runpy
from pathlib import Path

from passl_mixer.registry import matches
from passl_mixer.schema import ABOVE_0, FROM_0, OPTIM, REQUIRED, SCHEMA, Key

ROOT = Path(__file__).resolve().parents[1]


def keys_of(section, path=""):
    for name, rule in section.items():
        if isinstance(rule, Key):
            yield path + name, rule
        elif isinstance(rule, dict):
            yield from keys_of(rule, f"{path}{name}.")


def test_page_is_current():
    tool = runpy.run_path(str(ROOT / "tools" / "config_page.py"))
    assert tool["PAGE"].read_text(encoding="utf-8") == tool["page"](), "run python tools/config_page.py"


def test_every_default_is_allowed():
    wrong = []
    for name, rule in [*keys_of(SCHEMA), *keys_of(OPTIM, "optim.")]:
        value, allowed = rule.default, rule.allowed
        if value is REQUIRED:
            continue
        fits = matches(value, rule.kind)
        if value is not None and allowed in (ABOVE_0, FROM_0):
            fits = fits and (value > 0 or (value == 0 and allowed == FROM_0))
        if isinstance(value, str) and isinstance(allowed, list):
            fits = fits and value in allowed
        if not fits or not rule.meaning:
            wrong.append(name)
    assert not wrong
    assert {"seed", "train.accumulate_steps", "evaluate.knn.k"} <= {name for name, _ in keys_of(SCHEMA)}
