"""PASSL's models as backbone, head and method. Each function reads the ``model`` section of one of them.

A function adds a note where this project's method computes something else than PASSL's code.
"""
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Callable, Optional

from passl_mixer.errors import BadInput
from passl_mixer.passl_yaml.keys import Keys


@dataclass
class Model:
    """Content of a model section."""

    backbone: dict
    head: dict
    method: dict
    num_views: int = 2
    inside: str = ""        # done to the images inside PASSL's model: "normalise" or "augment and normalise"
    captions: bool = False


def resnet(keys: Keys, notes: list, projector: bool = False) -> tuple:
    """Read a ResNet section: ``(entry, features, value of frozen_stages, outputs of its last layer)``.

    Args:
        keys, notes, projector: the section, the list of notes, whether a projector is its last layer.
    Raises:
        BadInput: an unsupported option.
    """
    kind = keys.choice(["ResNet", "ResNetsimclr"])
    depth = keys.take("depth", int)
    entry = {"name": f"resnet{depth}"} if depth in (18, 50) else {"name": "ResNet", "depth": depth}
    if kind == "ResNetsimclr":
        entry["stem"] = "no_pool"
        notes.append("model.backbone ResNetsimclr: PASSL's has no max-pool after its first convolution, and neither "
                     "has stem no_pool; this is four times the work of a ResNet; -o model.backbone.stem=imagenet has "
                     "the pool")
    if keys.take("zero_init_residual", bool, False):
        entry["zero_init_residual"] = True
    keys.take("with_pool", bool, False)         # features are pooled here, whoever pools them there
    pretrained = keys.take("pretrained", Optional[str], None)
    entry.update({"pretrained": pretrained} if pretrained else {})
    classes = keys.take("num_classes", int, 0)
    if classes > 0 and not projector:
        raise keys.refusal("num_classes", classes, "a backbone has no classifier here; remove the key")
    return entry, 512 if depth in (18, 34) else 2048, keys.take("frozen_stages", int, -1), classes


def _trained(keys: Keys, notes: list, projector: bool = False) -> tuple:
    backbone = keys.section("backbone")
    entry, width, frozen, classes = resnet(backbone, notes, projector)
    if frozen >= 0:
        raise backbone.refusal("frozen_stages", frozen, "pretraining trains the whole backbone here; remove the key")
    return entry, width, classes


NECKS = {       # options of our mlp beside the widths
    "LinearNeck": {"layers": 1, "norm": None},
    "NonLinearNeckV1": {"layers": 2, "norm": None},
    "NonLinearNeckV2": {"layers": 2, "norm": "bn", "hidden_bias": True, "last_bias": True},
    "NonLinearNeckfc3": {"layers": 3, "norm": "bn", "hidden_bias": True, "last_bias": True, "last_norm": True,
                         "init_std": 0.01},
}


def neck(keys: Keys, width: int, notes: list) -> dict:
    """Read a neck section as an ``mlp`` entry.

    Args:
        keys, width, notes: the section, features of its input, the list of notes.
    Raises:
        BadInput: an unsupported option.
    """
    kind = keys.choice(list(NECKS))
    entry = {"name": "mlp", **NECKS[kind], "out": keys.take("out_channels", int)}
    given = keys.take("in_channels", int)
    if given != width:
        raise keys.refusal("in_channels", given, f"its input has {width} features; write {width}")
    if kind != "LinearNeck":
        entry["hidden"] = keys.take("hid_channels", int)
    if kind == "NonLinearNeckV2":
        entry["hidden_bias"] = keys.take("with_bias", bool, True)
    if kind == "NonLinearNeckfc3":
        notes.append("model.neck NonLinearNeckfc3: the last BatchNorm has a scale and no shift here, as in SimCLR's "
                     "code")
    keys.take("with_avg_pool", bool, True)
    return entry


def _with_width(entry: dict, width: int) -> dict:
    return {**entry, "in_features": width}


def _contrastive(keys: Keys, notes: list, name: str) -> tuple:
    """``(backbone, head, keys of the loss)`` of a model whose ``head`` is the contrastive loss of this name."""
    backbone, width, _ = _trained(keys, notes)
    head = _with_width(neck(keys.section("neck"), width, notes), width)
    loss = keys.section("head")
    loss.choice([name])
    loss.take("return_accuracy", bool, True)
    return backbone, head, loss


def _moco(keys: Keys, notes: list) -> Model:
    backbone, head, loss = _contrastive(keys, notes, "ContrastiveHead")
    keys.only("dim", (head["out"],), "the queue has the width of the neck's out_channels; write that or remove the key")
    keys.only("T", (0.07,), "PASSL itself takes the temperature from model.head; remove the key")
    method = {"name": "moco", "queue_size": keys.take("K", int, 65536), "momentum": keys.take("m", float, 0.999),
              "temperature": loss.take("temperature", float, 0.1)}
    notes.append("model MoCo: PASSL's key encoder normalises by running statistics and averages those too; ours "
                 "normalises by its own batches, in bn_splits groups of permuted images, as the official code does "
                 "over GPUs")
    return Model(backbone, head, method)


def _simclr(keys: Keys, notes: list) -> Model:
    backbone, head, loss = _contrastive(keys, notes, "SimCLRContrastiveHead")
    loss.only("multi_rank", (False,), "negatives span all processes here already; remove the key")
    for key in ("dim", "T"):
        keys.take(key, float, 0.0)          # PASSL's code reads neither
    notes.append("model.head SimCLRContrastiveHead: PASSL's loss is the sum of two halves of NT-Xent and three times a "
                 "consistency term (CO2) that SimCLR does not have; ours is the mean over 2B rows, half that sum, "
                 "without the term, and negatives come from all processes, not from one card")
    return Model(backbone, head, {"name": "simclr", "temperature": loss.take("temperature", float, 0.5)})


def _byol(keys: Keys, notes: list) -> Model:
    backbone, width, _ = _trained(keys, notes)
    head = neck(keys.section("neck"), width, notes)
    predictor = neck(keys.section("predictor"), head["out"], notes)
    keys.section("head").choice(["L2Head"])
    if keys.take("target_decay_method", str, "fixed") != "cosine":
        raise keys.refusal("target_decay_method", "fixed", "the target's decay rises to 1 by a cosine here: cosine")
    momentum = keys.take("target_decay_rate", float, 0.996)
    if not keys.take("align_init_network", bool, True):
        notes.append("model.align_init_network: false starts the target as another random network; ours is a copy")
    _sync_bn(keys, notes, False)
    for key in ("dim", "num_classes", "embedding_dim"):
        keys.take(key, int, 0)
    notes.append("model BYOL: PASSL v1.1 never updates its target (the call is commented out); ours is updated after "
                 "every step, as in the paper. PASSL's linear classifier beside the loss (num_classes, embedding_dim) "
                 "does not change the features and is left out; evaluate.* measures them")
    notes.append("model BYOL: PASSL blurs, solarises and normalises inside the model, with probabilities (1.0, 0.1) "
                 "and (0, 0.2) and another sigma for every tap of the blur; here the views do it, with one sigma per "
                 "blur")
    return Model(backbone, _with_width(head, width), {"name": "byol", "momentum": momentum, "predictor": predictor},
                 inside="augment and normalise")


def _sync_bn(keys: Keys, notes: list, default: bool) -> None:
    if not keys.take("use_synch_bn", bool, default):
        notes.append("model.use_synch_bn: false; BatchNorm spans all processes here; -o train.sync_batch_norm=false "
                     "keeps statistics per process")


def _simsiam(keys: Keys, notes: list) -> Model:
    backbone, width, out = _trained(keys, notes, projector=True)
    if out <= 0:
        raise BadInput("'model.backbone.num_classes' is missing; SimSiam's projector is that wide, e.g. 2048")
    keys.only("dim", (out,), f"it is the width of the projector, model.backbone.num_classes; write {out}")
    head = {"name": "mlp", "layers": 3, "hidden": width, "out": out, "norm": "bn", "last_norm": True,
            "last_affine": False}
    predictor = neck(keys.section("predictor"), out, notes)
    keys.section("head").choice(["SimSiamContrastiveHead"])
    _sync_bn(keys, notes, True)
    return Model(backbone, _with_width(head, width), {"name": "simsiam", "predictor": predictor})


def _classifier(keys: Keys, kind: str, width: int, classes: int) -> dict:
    keys.choice([kind])
    given = keys.take("in_channels", int, 2048)
    if given != width:
        raise keys.refusal("in_channels", given, f"the backbone has {width} features; write {width}")
    return {"name": "linear", "num_classes": keys.take("num_classes", int, classes), "in_features": width}


def _classification(keys: Keys, notes: list) -> Model:
    section = keys.section("backbone")
    backbone, width, frozen, _ = resnet(section, notes)
    if frozen not in (-1, 4):
        raise section.refusal("frozen_stages", frozen, "all of the backbone is frozen here (4), or nothing (-1)")
    keys.only("with_sobel", (False,), "there is no Sobel filter here; remove the key")
    head = keys.section("head")
    entry = _classifier(head, "ClasHead", width, 1000)
    head.take("with_avg_pool", bool, False)
    notes.append("model.head ClasHead: starts at zero here, from N(0, 0.01^2) in PASSL")
    if frozen == 4 and "pretrained" not in backbone:
        notes.append("model.backbone.frozen_stages 4: the frozen backbone is random until you name its weights "
                     "(PASSL's --pretrained): -o train.init_from=RUN for a run of passl_mixer, "
                     "-o model.backbone.pretrained=FILE for others")
    method = {"name": "supervised", **({"freeze_backbone": True} if frozen == 4 else {})}
    return Model(backbone, entry, method, num_views=1)


def _byol_classification(keys: Keys, notes: list) -> Model:
    model = _classification(keys, notes)
    model.inside = "normalise"
    return model


def _mixer(keys: Keys, notes: list) -> Model:
    section = keys.section("architecture")
    section.choice(["MlpMixer"])
    entry = {"name": "MlpMixer", "img_size": section.take("img_size", int, 224), "patch_size":
             section.take("patch_size", int, 16), "embed_dim": section.take("embed_dim", int, 512),
             "num_blocks": section.take("num_blocks", int, 8)}
    for key, kind in (("in_chans", int), ("mlp_ratio", list), ("drop_path_rate", float)):
        entry.update({key: section.take(key, kind)} if key in section else {})
    section.only("drop_rate", (0, 0.0), "there is no dropout in the MLPs here; drop_path_rate is there")
    section.take("num_classes", int, 0)         # PASSL's code does not use it
    if entry.get("drop_path_rate"):
        notes.append("model.architecture.drop_path_rate: rises linearly over the blocks here, as in the paper; it is "
                     "the same in every block in PASSL")
    notes.append("model MlpMixerWrapper: PASSL v1.1's cannot train (it unpacks the features as a pair); ours trains "
                 "what its classes describe, cross entropy of a linear head on the mean of the tokens")
    head = _classifier(keys.section("head"), "MlpMixerClsHead", entry["embed_dim"], 1000)
    return Model(entry, head, {"name": "supervised"}, num_views=1)


def _clip(keys: Keys, notes: list) -> Model:
    section = keys.section("architecture")
    section.choice(["CLIP"])
    layers = section.take("vision_layers", object)
    if not isinstance(layers, int):
        raise section.refusal("vision_layers", layers,
                              "a list is CLIP's own ResNet, which passl_mixer does not have; one integer is ViT")
    width, out = section.take("vision_width", int), section.take("embed_dim", int)
    backbone = {"name": "ViT", "img_size": section.take("image_resolution", int),
                "patch_size": section.take("vision_patch_size", int), "embed_dim": width, "num_blocks": layers,
                "num_heads": width // 64}
    _clip_layout(section, backbone)
    text = {"vocab_size": section.take("vocab_size", int), "context_length": section.take("context_length", int),
            "width": section.take("transformer_width", int), "num_layers": section.take("transformer_layers", int),
            "num_heads": section.take("transformer_heads", int)}
    keys.section("head").choice(["CLIPHead"])
    notes.append("model.head CLIPHead: PASSL adds the losses of images and of captions; ours is their mean, as in the "
                 "paper. The scale is at most 100 here, exp(4.6) = 99.5 in PASSL")
    head = {"name": "mlp", "layers": 1, "out": out, "norm": None, "last_bias": False, "init_std": width ** -0.5}
    return Model(backbone, _with_width(head, width), {"name": "clip", "text": text}, num_views=1, captions=True)


def _clip_layout(section: Keys, backbone: dict) -> None:
    section.only("qkv_bias", (True,), "attention has biases here")
    section.only("proj", (True,), "images are projected by a linear map here")
    backbone.update(pre_norm=section.take("pre_norm", bool), stem_bias=section.take("patch_bias", bool),
                    act="quick_gelu")


MODELS: Mapping[str, Callable] = {
    "MoCo": _moco, "SimCLR": _simclr, "BYOL": _byol, "SimSiam": _simsiam, "Classification": _classification,
    "ByolClassification": _byol_classification, "MlpMixerWrapper": _mixer, "CLIPWrapper": _clip,
}
