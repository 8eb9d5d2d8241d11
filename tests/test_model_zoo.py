"""docs/model_zoo.md is what the registry says."""
import runpy
from pathlib import Path

import pytest
from helpers.backbones import size_of

from passl_mixer import list_backbones
from passl_mixer.backbones.published import PUBLISHED_TOP1

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_page_is_current():
    tool = runpy.run_path(str(ROOT / "tools" / "model_zoo.py"))
    assert tool["PAGE"].read_text(encoding="utf-8") == tool["page"](size_of), "run python tools/model_zoo.py"


def test_published_numbers_belong_to_registered_names():
    assert set(PUBLISHED_TOP1) <= set(list_backbones())
