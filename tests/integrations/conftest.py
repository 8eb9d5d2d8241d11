"""What the tests of PASSL share: PASSL with our names in it, and a folder of images."""
import sys
import warnings

import cv2
import numpy
import pytest

from passl_mixer.integrations.passl import register


@pytest.fixture(scope="module")
def passl():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")         # of importing PASSL and what it needs
        register()
    return sys.modules["passl"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes of four images."""
    root, rng = tmp_path_factory.mktemp("images"), numpy.random.default_rng(0)
    for name in "ab":
        (root / name).mkdir()
        for i in range(4):
            cv2.imwrite(str(root / name / f"{i}.png"), rng.integers(0, 256, (36, 36, 3), dtype=numpy.uint8))
    return root
