"""The table of published checkpoints: every row can be acted on."""
import re

import pytest

from passl_mixer import list_backbones
from passl_mixer.weights import KEY_MAPS
from passl_mixer.weights.zoo import CHECKPOINTS


@pytest.mark.parametrize("row", CHECKPOINTS, ids=lambda c: c.file)
def test_row(row):
    assert row.backbone in list_backbones()
    assert (row.family, row.source) in KEY_MAPS
    assert re.fullmatch(r"https://\S+\.(pth|pth\.tar|npz|safetensors)", row.url)
    assert row.sha256 is None or (re.fullmatch(r"[0-9a-f]{8,64}", row.sha256) and row.sha256 in row.file)
    assert bool(row.top1) == bool(row.reported_in)
    assert row.top1 is None or 60 < row.top1 < 90


def test_files_are_listed_once():
    assert len({c.url for c in CHECKPOINTS}) == len(CHECKPOINTS)


def test_command_lists_and_tells_how(command):
    out = command("weights")
    assert all(c.file in out for c in CHECKPOINTS)
    out = command("weights", "cycle_mlp_b1")
    assert "curl -LO https://github.com/ShoufaChen/CycleMLP/releases/download/v0.1/CycleMLP_B1.pth" in out
    assert "passl-mixer convert CycleMLP_B1.pth cycle_mlp_b1.safetensors --family cycle_mlp --source official" in out
    assert "did you mean 'cycle_mlp_b" in command.refused("weights", "cycle_mlp_b9")
