"""The reference files of tests/golden."""
import json
from pathlib import Path

import numpy
import pytest


@pytest.fixture
def golden():
    """Function of a family: (config, reference state dict, remaining arrays)."""
    def load(family):
        path = Path(__file__).parent.parent / "golden" / f"{family}.npz"
        with numpy.load(path, allow_pickle=False) as file:
            data = {name: file[name] for name in file.files}
        config = json.loads(str(data.pop("config")))
        state = {name[len("state/"):]: value for name, value in data.items() if name.startswith("state/")}
        return config, state, data
    return load
