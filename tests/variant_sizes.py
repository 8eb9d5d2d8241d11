"""Sizes of the registered backbones, counted once for all tests of a run: laying out the larger ones takes seconds."""
import functools

from passl_mixer.surgery.macs import summary

size_of = functools.cache(summary)
