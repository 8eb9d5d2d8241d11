"""Methods: what is trained and how, around any backbone and head. The index of their names."""
import collections.abc

from passl_mixer.backbones import build_backbone
from passl_mixer.errors import BadInput, nearest
from passl_mixer.heads import build_head
from passl_mixer.methods.byol import BYOL
from passl_mixer.methods.clip import CLIP
from passl_mixer.methods.moco import MoCo
from passl_mixer.methods.moco_v3 import MoCoV3
from passl_mixer.methods.simclr import SimCLR
from passl_mixer.methods.simsiam import SimSiam
from passl_mixer.methods.supervised import Supervised
from passl_mixer.registry import METHODS

METHODS.add("supervised", Supervised)
METHODS.add("simclr", SimCLR)
METHODS.add("moco", MoCo)
METHODS.add("byol", BYOL)
METHODS.add("simsiam", SimSiam)
METHODS.add("moco_v3", MoCoV3)
METHODS.add("clip", CLIP)


def build_method(cfg, backbone=None, head=None):
    """Build a method around a backbone and a head, or all three.

    Args:
        cfg: the method's entry (a name, or a mapping with ``name`` and options) when ``backbone`` and
            ``head`` are given, else the ``model`` section: a mapping of ``backbone``, ``head`` and ``method``
            to their entries.
        backbone: ``nn.Layer``, [B, 3, H, W] -> [B, num_features].
        head: ``nn.Layer``, [B, num_features] -> [B, out_features].
    Returns:
        An ``nn.Layer``: ``forward(views, labels) -> {"loss", ...}``.
    Raises:
        BadInput: unknown name or option, or sizes that disagree.
    """
    if (backbone is None) != (head is None):
        raise BadInput("build_method needs both backbone and head, or neither and the whole model section")
    if backbone is None:
        parts = ("backbone", "head", "method")
        if not isinstance(cfg, collections.abc.Mapping):
            raise BadInput(f"the model section is a mapping of backbone, head and method, got {cfg!r}")
        for key in cfg:
            if key not in parts:
                raise BadInput(f"the model section has no key {key!r}{nearest(str(key), parts)}")
        for key in parts:
            if key not in cfg:
                raise BadInput(f"the model section needs {key!r}")
        backbone = build_backbone(cfg["backbone"])
        head = build_head(cfg["head"], in_features=backbone.num_features)
        cfg = cfg["method"]
    return METHODS.build(cfg, backbone=backbone, head=head)


__all__ = ["BYOL", "CLIP", "METHODS", "MoCo", "MoCoV3", "SimCLR", "SimSiam", "Supervised", "build_method"]
