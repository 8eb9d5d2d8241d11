"""The reference files of tests/golden, under the names of any of their origins."""
import json
import re
from pathlib import Path

import numpy
import pytest

RESMLP = {"stem.": "patch_embed.", "linear_tokens": "attn", "mlp_channels": "mlp", "ls1": "gamma_1", "ls2": "gamma_2"}


def official_resmlp(state):
    """A timm ResMLP under the official names and in the official layout."""
    def rename(name):
        return re.sub("|".join(map(re.escape, RESMLP)), lambda match: RESMLP[match.group()], name)
    return {rename(name): value.ravel() if name.endswith(("alpha", "beta")) else value
            for name, value in state.items()}


def official_conv_mixer(state):
    """A timm ConvMixer under the official names; two blocks, so the classifier is the layer 2 + 5."""
    def rename(name):
        name = re.sub(r"^blocks\.(\d+)", lambda match: str(int(match.group(1)) + 3), name)
        return re.sub(r"^stem\.", "", re.sub(r"^head\.", "7.", name))
    return {rename(name): value for name, value in state.items()}


RENAMED = {("resmlp", "official"): official_resmlp, ("conv_mixer", "official"): official_conv_mixer}


@pytest.fixture
def golden():
    """Function of a family and, where the file is of another origin, of a source: (config, reference state dict,
    remaining arrays)."""
    def load(family, source=None):
        path = Path(__file__).parent.parent / "golden" / f"{family}.npz"
        with numpy.load(path, allow_pickle=False) as file:
            data = {name: file[name] for name in file.files}
        config = json.loads(str(data.pop("config")))
        state = {name[len("state/"):]: value for name, value in data.items() if name.startswith("state/")}
        return config, RENAMED.get((family, source), dict)(state), data
    return load
