"""MLP vision backbones, classification heads and self-supervised pretraining for PaddlePaddle.

Importing this package sets the CPU up (``passl_mixer.runtime``) but does not import Paddle yet: Paddle loads with the
first builder asked for, after the set-up and after cheap checks of the user's input.
"""
import importlib

from passl_mixer import autocast, runtime
from passl_mixer.config import get_config
from passl_mixer.version import __version__

__all__ = ["Pyramid", "build_backbone", "build_head", "build_method", "get_config", "list_backbones", "resize_tokens",
           "to_conv", "__version__"]

runtime.tune_cpu()
autocast.expect_autocast_on_cpus()

_BUILDERS = {"build_backbone": "backbones", "list_backbones": "backbones",
             "build_head": "heads", "build_method": "methods",
             "resize_tokens": "surgery.resolution", "Pyramid": "surgery.pyramid", "to_conv": "surgery.conv_form"}


def __getattr__(name):
    if name not in _BUILDERS:
        raise AttributeError(f"module 'passl_mixer' has no attribute {name!r}")
    return getattr(importlib.import_module(f"passl_mixer.{_BUILDERS[name]}"), name)


def __dir__():
    return sorted([*globals(), *_BUILDERS])
