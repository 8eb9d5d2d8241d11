"""Heads: layers on pooled features [B, in_features]. The index of their names."""
import collections.abc
from typing import Optional

from passl_mixer.errors import BadInput
from passl_mixer.heads.linear import LinearHead
from passl_mixer.heads.mlp import MLPHead
from passl_mixer.registry import HEADS

HEADS.add("linear", LinearHead)
HEADS.add("mlp", MLPHead)
# PASSL's names for the same classifier, so that its YAML files keep working.
HEADS.add("MlpMixerClsHead", LinearHead)
HEADS.add("ClasHead", LinearHead)


def build_head(cfg, in_features: Optional[int] = None):
    """Build a head.

    Args:
        cfg: a name, or a mapping with ``name`` and options.
        in_features: width of the features; without it, ``in_features`` (or PASSL's ``in_channels``) of
            ``cfg``.
    Returns:
        An ``nn.Layer`` with ``in_features`` and ``out_features``, from [B, in_features] to [B, out_features].
    Raises:
        BadInput: unknown name or option, no width, or widths that disagree.
    """
    if not isinstance(cfg, collections.abc.Mapping):
        cfg = {"name": cfg}
    options = {k: v for k, v in cfg.items() if k not in ("in_features", "in_channels")}
    widths = {"in_features of the backbone": in_features,
              **{f"{k} of the head": cfg[k] for k in ("in_features", "in_channels") if k in cfg}}
    widths = {k: v for k, v in widths.items() if v is not None}
    if not widths:
        HEADS.entry(options.get("name"))
        raise BadInput(f"head {options['name']!r} needs in_features; add it beside its 'name'")
    for key, width in widths.items():
        if not isinstance(width, int) or isinstance(width, bool):
            raise BadInput(f"{key} is {width!r}, expected an integer")
    if len(set(widths.values())) > 1:
        words = ", ".join(f"{k} = {v}" for k, v in widths.items())
        raise BadInput(f"the widths of features disagree: {words}; remove the head's key or make them equal")
    return HEADS.build(options, in_features=next(iter(widths.values())))


def require_projector(head, method: str) -> None:
    """Refuse a zero-initialised classifier where embeddings are needed: it maps every image to zero.

    Raises:
        BadInput: ``head`` is a ``LinearHead``; ``method`` is named in the message.
    """
    if isinstance(head, LinearHead):
        raise BadInput(f"method {method!r} needs a projector, got the linear classifier; "
                       "set model.head to {name: mlp, layers: 2, out: 128}")


def build_predictor(entry: dict, projector, method: str):
    """Build a predictor, from the projector's embeddings [B, D] to predictions [B, D].

    Args:
        entry: a head entry; ``name`` may be left out (mlp), and so may ``out``.
        projector: the head whose embeddings it takes, D = ``out_features``.
        method: name of the method, for messages.
    Raises:
        BadInput: a classifier, unknown options, or an ``out`` that is not the projector's.
    """
    width = projector.out_features
    predictor = build_head({"name": "mlp", "out": width, **entry}, in_features=width)
    require_projector(predictor, method)
    if predictor.out_features != width:
        raise BadInput(f"{method}'s predictor has out {predictor.out_features}, the projector "
                       f"{width}; make model.method.predictor.out equal to model.head.out")
    return predictor


__all__ = ["HEADS", "LinearHead", "MLPHead", "build_head", "build_predictor", "require_projector"]
