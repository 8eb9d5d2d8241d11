"""Our backbones and heads with the interface that PASSL's models expect.

Shapes: B images, C = ``num_features``, H' x W' positions.
"""
from typing import Union

from paddle import nn
from paddle.nn import functional as F

from passl_mixer.backbones import build_backbone
from passl_mixer.errors import BadInput, nearest
from passl_mixer.heads import build_head

# Outputs of a backbone: [B, C, 1, 1], [B, C, H', W'] or [B, C].
OUTPUTS = ("pooled", "map", "vector")


def check_output(output: str) -> str:
    """Check the name of an output and return it.

    Raises:
        BadInput: not one of ``OUTPUTS``.
    """
    if output not in OUTPUTS:
        raise BadInput(f"output is {output!r}, expected one of {', '.join(OUTPUTS)}"
                       f"{nearest(str(output), OUTPUTS) if isinstance(output, str) else ''}")
    return output


def normalised_map(net, images):
    """Last map [B, C, H', W'] of images [B, 3, H, W], normalised as the features.

    Its mean over positions is the feature vector, except for a ViT that pools its class token.
    """
    last_bchw = net.feature_maps(images)[-1]
    if not (hasattr(net, "stages") and hasattr(net, "norm")):
        return last_bchw
    # The families with stages normalise after their maps, channels last.
    return net.norm(last_bchw.transpose([0, 2, 3, 1])).transpose([0, 3, 1, 2])


def num_stages(net) -> int:
    """Number of stages for ``frozen_stages``: the stages of a network with stages, the blocks of any other."""
    return len(net.stages if hasattr(net, "stages") else net.blocks)


def frozen_parts(net, count: int) -> list:
    """Layers and parameters before the end of stage ``count``; 0: the stem alone, all stages: the whole network.

    A layer between two stages belongs to the later one; in ConvMLP, where it is part of a stage, to the earlier one.
    Layers outside the stages are the stem, except the last norm.
    """
    if count == num_stages(net):
        return [net]
    parts = [parameter for _, parameter in net.named_parameters(include_sublayers=False)]
    for name, child in net.named_children():
        if name in ("stages", "blocks"):
            parts += list(child)[:count]
        elif name in ("downsamples", "merges"):         # between stages
            parts += list(child)[:max(count - 1, 0)]
        elif name == "stems":                           # one before each stage
            parts += list(child)[:max(count, 1)]
        elif name != "norm":
            parts.append(child)
    return parts


class HostBackbone(nn.Layer):
    """A backbone of ours with an output that a PASSL model takes.

    Args:
        net: the backbone.
        output: "pooled" [B, C, 1, 1], "map" [B, C, H', W'] or "vector" [B, C].
        frozen_stages: -1: nothing; 0: the stem; n: the stem and the first n stages; "all": everything. Frozen
            parameters get no gradient, frozen layers stay in evaluation mode.
    Raises:
        BadInput: an unknown output, or more stages than there are.
    """

    def __init__(self, net: nn.Layer, *, output: str = "pooled", frozen_stages: Union[int, str] = -1):
        super().__init__()
        self.output, self.num_features = check_output(output), net.num_features
        total = num_stages(net)
        count = total if frozen_stages == "all" else frozen_stages
        if not isinstance(count, int) or isinstance(count, bool) or not -1 <= count <= total:
            raise BadInput(f"frozen_stages is {frozen_stages!r}, expected -1 (none), 0 (the stem), up to {total}, the "
                           f"stages of this {type(net).__name__}, or all")
        self.frozen_stages = count
        self.net = net
        # The last child, as in PASSL's ResNet: MoCoBYOL takes it off.
        self.shape = PooledMap() if output == "pooled" else nn.Identity()
        for part in self._frozen():
            for parameter in part.parameters() if isinstance(part, nn.Layer) else [part]:
                parameter.trainable = False

    def _frozen(self) -> list:
        return frozen_parts(self.net, self.frozen_stages) if self.frozen_stages >= 0 else []

    def forward(self, images):
        """Features of images [B, 3, H, W], in the shape of ``output``."""
        for part in self._frozen():         # the trainer's train() has just set every layer's mode
            for layer in part.sublayers(include_self=True) if isinstance(part, nn.Layer) else []:
                layer.training = False
        return normalised_map(self.net, images) if self.output == "map" else self.shape(self.net(images))


class PooledMap(nn.Layer):
    """[B, C] to a map of one position, [B, C, 1, 1], which pooling, ``reshape`` and ``squeeze`` all accept."""

    def forward(self, features_bc):
        return features_bc.unsqueeze([2, 3])


class HostHead(nn.Layer):
    """A head of ours for PASSL's Classification: pools maps, and has ``loss``."""

    def __init__(self, head: nn.Layer):
        super().__init__()
        self.in_features, self.out_features, self.head = head.in_features, head.out_features, head

    def forward(self, features):
        """Class scores [B, K] of features [B, C] or [B, C, H', W']."""
        return self.head(features.mean([2, 3]) if features.ndim == 4 else features)

    def loss(self, scores, labels) -> dict:
        """Mean cross entropy in nats, and accuracies in percent, of scores [B, K] and labels [B]."""
        ranks_bk = scores.detach().argsort(axis=1, descending=True)
        hits_bk = (ranks_bk == labels.reshape([-1, 1])).astype("float32")
        return {"loss": F.cross_entropy(scores, labels),
                **{f"acc{k}": 100.0 * hits_bk[:, :k].sum(axis=1).mean() for k in (1, 5)}}


class BackboneEntry:
    """Constructor of a backbone of ours for PASSL's registry.

    Args:
        name: our name.
        output: output if the YAML has none.
    """

    def __init__(self, name: str, output: str):
        self.name, self.output = name, output

    def __call__(self, *, output=None, pretrained=None, frozen_stages=-1, **options) -> HostBackbone:
        """Build the backbone from the options of the YAML.

        Args:
            output, frozen_stages: as in ``HostBackbone``.
            pretrained: as in ``build_backbone``.
            **options: of the backbone; our registry checks them.
        """
        output = self.output if output is None else output
        net = build_backbone({"name": self.name, "pretrained": pretrained, **options})
        backbone = HostBackbone(net, output=output, frozen_stages=frozen_stages)
        backbone.has_pretrained = pretrained is not None
        return backbone


class HeadEntry:
    """Constructor of a head of ours for PASSL's registry; ``with_avg_pool`` is ignored: maps are always pooled."""

    def __init__(self, name: str):
        self.name = name

    def __call__(self, *, with_avg_pool: bool = True, **options) -> HostHead:
        return HostHead(build_head({"name": self.name, **options}))
