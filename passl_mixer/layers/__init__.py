"""Layers that several backbones share, and what they check before they are built or run."""
