"""Registries: strict names, options and types, with messages that name the fix. Public paths of what moved."""
import importlib
from typing import Optional, Sequence

import pytest

from passl_mixer.errors import BadInput
from passl_mixer.registry import Registry, matches


class Thing:
    def __init__(self, *, drop_rate: float = 0.0, drop_path_rate: float = 0.0, depths: Sequence[int] = (1,),
                 act: str = "gelu", size: Optional[int] = None):
        self.options = (drop_rate, drop_path_rate, list(depths), act, size)


@pytest.fixture
def things():
    registry = Registry("backbone")
    registry.add("mlp_mixer_b16", Thing, depths=(2, 2))
    registry.add("mlp_mixer_s32", Thing)
    return registry


def test_builds_with_defaults_and_options(things):
    assert things.build("mlp_mixer_b16").options == (0.0, 0.0, [2, 2], "gelu", None)
    assert things.build({"name": "mlp_mixer_b16", "depths": [3], "size": 4}).options == (0.0, 0.0, [3], "gelu", 4)


@pytest.mark.parametrize(("cfg", "words"), [
    ({"name": "mlp_mixer_b61"}, "unknown backbone 'mlp_mixer_b61'; did you mean 'mlp_mixer_b16'?"),
    ({"name": "mlp_mixer_b16", "dropath": 0.1},
     "backbone 'mlp_mixer_b16' has no option 'dropath'; did you mean 'drop_path_rate'?"),
    ({"name": "mlp_mixer_b16", "drop_rate": "much"}, "option 'drop_rate' is 'much', expected a number"),
    ({"name": "mlp_mixer_b16", "depths": [1, "x"]}, "expected a list of an integer"),
    ({"name": "mlp_mixer_b16", "size": 1.5}, "expected an integer or null"),
    ({"drop_rate": 0.1}, "a mapping with 'name'"),
    (None, "a mapping with 'name'"),
])
def test_bad_input_is_named(things, cfg, words):
    with pytest.raises(BadInput) as caught:
        things.build(cfg)
    assert words in str(caught.value)


def test_a_name_is_registered_once_with_known_options(things):
    with pytest.raises(KeyError, match="registered already"):
        things.add("mlp_mixer_b16", Thing)
    with pytest.raises(BadInput, match="no option 'depth'"):
        things.add("other", Thing, depth=3)


def test_given_arguments_are_not_options(things):
    with pytest.raises(BadInput, match="no option 'size'"):
        things.build({"name": "mlp_mixer_b16", "size": 3}, size=4)


@pytest.mark.parametrize(("value", "annotation", "fits"), [
    (1, float, True), (True, float, False), (True, int, False), (1.0, int, False), (None, Optional[int], True),
    ([1, 2.5], Sequence[float], True), ("ab", Sequence[str], False), ({}, dict, True), ([], dict, False)])
def test_matches(value, annotation, fits):
    assert matches(value, annotation) is fits


@pytest.mark.parametrize(("path", "homes"), [
    ("trainer", {"train": "training.trainer"}),
    ("export", dict.fromkeys(["export_checkpoint", "export_network", "load_exported"], "deploy.export")),
    ("evaluate", {"evaluate_checkpoint": "evaluation.evaluate", "encoder_features": "evaluation.features",
                  "extract": "evaluation.features"})])
def test_public_paths_lead_to_what_moved(path, homes):
    public = importlib.import_module(f"passl_mixer.{path}")
    for name, home in homes.items():
        assert getattr(public, name) is getattr(importlib.import_module(f"passl_mixer.{home}"), name)
