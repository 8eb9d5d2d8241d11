"""docs/recipes.md is true: it names every shipped configuration, its values are theirs, and their headers' -o work."""
import re
from pathlib import Path

import pytest

from passl_mixer.config import get_config
from passl_mixer.registry import BACKBONES, HEADS, METHODS, VIEWS
from passl_mixer.training.optim import OPTIONS
from passl_mixer.training.run import build_run
from passl_mixer.yaml_text import parse
from tests.test_configs import CONFIGS, shrunk

ROOT = Path(__file__).resolve().parents[1]
REGISTRIES = {"model.backbone": BACKBONES, "model.head": HEADS, "model.method": METHODS, "data.train_views": VIEWS,
              "data.eval_views": VIEWS, "model.method.predictor": HEADS}
PAGE = (ROOT / "docs" / "recipes.md").read_text()
SECTIONS = re.split(r"^## ", PAGE, flags=re.M)[1:]
ROW = re.compile(r"^\| `([a-z_.0-9]+)` \| `([^`]+)` \|", re.M)


def files(section: str) -> list:
    return re.findall(r"`(configs/[^`]+\.yaml)`", section)


def value_of(config, key: str):
    """What a dotted key is in a configuration; an entry that leaves an option out has the constructor's default."""
    path, _, option = key.rpartition(".")
    section = config
    for part in path.split("."):
        section = section[part]
    if option in section and (path != "optim" or section[option] is not None):
        return section[option]
    if path == "optim":                         # an option set to null is left out
        return OPTIONS[section["name"]].get(option)
    name = section.get("name", "mlp")
    defaults = REGISTRIES[path].entry(name)[1]
    return defaults.get(option, REGISTRIES[path].parameters(name)[option].default)


def test_every_configuration_is_named_once():
    named = [path for section in SECTIONS for path in files(section)]
    assert sorted(named) == sorted(str(p.relative_to(ROOT)) for p in CONFIGS)


CASES = [(path, key, text) for section in SECTIONS for path in files(section) for key, text in ROW.findall(section)]


@pytest.mark.parametrize("path", sorted({path for path, _, _ in CASES}))
def test_the_column_ours_is_what_the_file_resolves_to(path):
    config = get_config(ROOT / path)
    wrong = []
    for _, key, text in [case for case in CASES if case[0] == path]:
        found, expected = value_of(config, key), parse(text, "docs/recipes.md")
        found = list(found) if isinstance(found, (list, tuple)) else found
        if found != expected:
            wrong.append(f"{key}: the page says {expected!r}, the file {found!r}")
    assert not wrong, wrong


def offers() -> list:
    """``(configuration, an -o that its header offers)``, those that name folders left out."""
    found = []
    for path in CONFIGS:
        lines = [line[2:] for line in path.read_text().splitlines() if line.startswith("#")]
        for quoted, plain in re.findall(r'-o (?:"([^"]+)"|(\S+))', " ".join(lines)):
            option = quoted or plain.rstrip(".,)")
            if not option.startswith(("data.dataset.root=", "train.init_from=")):
                found.append((path, option))
    return found


def test_headers_offer_options():
    """So that a change of the headers' form does not leave the next test with nothing."""
    assert len(offers()) > 20
    assert sum("name: lars" in option for _, option in offers()) == 4


@pytest.mark.parametrize(("path", "option"), offers(), ids=lambda v: v if isinstance(v, str) else v.stem)
def test_what_a_header_offers_builds(path, option):
    build_run(get_config(path, [option, *shrunk(path)]))
