"""Table of published checkpoints (licences MIT and Apache-2.0): address, pre-processing and reported accuracy.

Nothing here downloads. ``passl-mixer weights`` prints the table and how to fetch and convert a checkpoint. Accuracy is
ImageNet-1k top-1 in percent as its source reports it, None without one; it was not measured here.
"""
from typing import NamedTuple, Optional, Tuple

HALF = (0.5, 0.5, 0.5)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TIMM = "https://github.com/rwightman/pytorch-image-models/releases/download/"
DEIT, SHI = "https://dl.fbaipublicfiles.com/deit/", "https://shi-labs.com/projects/convmlp/checkpoints/"
CYCLE = "https://github.com/ShoufaChen/CycleMLP/releases/download/v0.1/"
CONV_MIXER = "https://github.com/tmp-iclr/convmixer/releases/download/v1.0/"


class Checkpoint(NamedTuple):
    """One published file.

    Attributes:
        backbone: our registered name.
        source: of its names, for ``convert_state_dict``.
        url: its address.
        trained_on: data set.
        sha256: leading hex digits from the publisher (torch.hub puts them into the file name), or None.
        img_size: side in pixels.
        mean, std: of pixels where white is 1.
        crop: centre crop over resized side.
        interpolation: of the resize.
        top1: reported accuracy in percent, or None.
        reported_in: source of ``top1``.
        note: remarks.
    """

    backbone: str
    source: str
    url: str
    trained_on: str
    sha256: Optional[str] = None
    img_size: int = 224
    mean: Tuple[float, float, float] = IMAGENET_MEAN
    std: Tuple[float, float, float] = IMAGENET_STD
    crop: float = 0.875
    interpolation: str = "bicubic"
    top1: Optional[float] = None
    reported_in: str = ""
    note: str = ""

    @property
    def file(self) -> str:
        """Name of the file."""
        return self.url.rsplit("/", 1)[-1]

    @property
    def family(self) -> str:
        """Family for ``convert_state_dict``."""
        return next(f for f in ("mlp_mixer", "conv_mlp", "cycle_mlp", "conv_mixer", "resmlp", "gmlp")
                    if self.backbone.startswith(f))


def _mixer(backbone, file, sha256, trained_on, top1=None, **changes):
    facts = {"mean": HALF, "std": HALF, "reported_in": "timm results-imagenet.csv" if top1 else "", **changes}
    return Checkpoint(backbone, "timm", f"{TIMM}{file}-{sha256}.pth", trained_on, sha256, top1=top1, **facts)


def _resmlp(backbone, file, trained_on, top1=None, reported_in="deit README_resmlp.md", **changes):
    return Checkpoint(backbone, "official", f"{DEIT}{file}.pth", trained_on, crop=0.9, top1=top1,
                      reported_in=reported_in if top1 else "", **changes)


MIIL = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "interpolation": "bilinear"}
FROM_SCRATCH = "timm's tag says in21k_ft_in1k; the weights are the ImageNet-1k ones (timm PR 651)"
DINO = "no classifier; kNN {} (deit README_resmlp.md)"
PAPER_RESMLP = "arXiv 2105.03404, table 3"

CHECKPOINTS = (
    _mixer("mlp_mixer_b16", "v0.1-vitjx/jx_mixer_b16_224", "76587d61", "ImageNet-1k", 76.616, note=FROM_SCRATCH),
    _mixer("mlp_mixer_l16", "v0.1-vitjx/jx_mixer_l16_224", "92f9adc4", "ImageNet-1k", 72.084, note=FROM_SCRATCH),
    _mixer("mlp_mixer_b16", "v0.1-vitjx/jx_mixer_b16_224_in21k", "617b3de2", "ImageNet-21k", note="21,843 classes"),
    _mixer("mlp_mixer_l16", "v0.1-vitjx/jx_mixer_l16_224_in21k", "846aa33c", "ImageNet-21k", note="21,843 classes"),
    _mixer("mlp_mixer_b16", "v0.1-tresnet/mixer_b16_224_miil_in21k", "2a558a71", "ImageNet-21k", note="11,221 classes",
           **MIIL),
    _mixer("mlp_mixer_b16", "v0.1-tresnet/mixer_b16_224_miil", "9229a591", "ImageNet-21k, 1k", 82.314, **MIIL),
    _mixer("gmlp_s16", "v0.1-weights/gmlp_s16_224_raa", "10536d42", "ImageNet-1k", 79.652),
    _resmlp("resmlp_s12", "resmlp_12_no_dist", "ImageNet-1k", 76.6, PAPER_RESMLP),
    _resmlp("resmlp_s24", "resmlp_24_no_dist", "ImageNet-1k", 79.4, PAPER_RESMLP),
    _resmlp("resmlp_s36", "resmlp_36_no_dist", "ImageNet-1k", 79.7, PAPER_RESMLP),
    _resmlp("resmlp_b24_8", "resmlpB_24_no_dist", "ImageNet-1k", 81.0, PAPER_RESMLP),
    _resmlp("resmlp_s12", "resmlp_12_dist", "ImageNet-1k, distilled", 77.8),
    _resmlp("resmlp_s24", "resmlp_24_dist", "ImageNet-1k, distilled", 80.8),
    _resmlp("resmlp_s36", "resmlp_36_dist", "ImageNet-1k, distilled", 81.1),
    _resmlp("resmlp_b24_8", "resmlpB_24_dist", "ImageNet-1k, distilled", 83.6),
    _resmlp("resmlp_b24_8", "resmlpB_24_22k", "ImageNet-22k, 1k", 84.4),
    _resmlp("resmlp_s12", "resmlp_12_dino", "ImageNet-1k, DINO", note=DINO.format(62.6)),
    _resmlp("resmlp_s24", "resmlp_24_dino", "ImageNet-1k, DINO", note=DINO.format(69.4)),
    *(Checkpoint(f"conv_mlp_{v}", "official", f"{SHI}convmlp_{v}_imagenet.pth", "ImageNet-1k", crop=0.9, top1=top1,
                 reported_in="SHI-Labs/Convolutional-MLPs README")
      for v, top1 in (("s", 76.8), ("m", 79.0), ("l", 80.2))),
    *(Checkpoint(f"cycle_mlp_b{i}", "official", f"{CYCLE}CycleMLP_B{i}.pth", "ImageNet-1k", top1=top1,
                 reported_in="ShoufaChen/CycleMLP README")
      for i, top1 in enumerate((78.9, 81.6, 82.4, 83.0, 83.2), start=1)),
    *(Checkpoint(f"conv_mixer_{v}", "official", f"{CONV_MIXER}convmixer_{file}.pth.tar", "ImageNet-1k", crop=0.96,
                 top1=top1, reported_in="locuslab/convmixer README")
      for v, file, top1 in (("1536_20", "1536_20_ks9_p7", 81.37), ("768_32", "768_32_ks7_p7_relu", 80.16),
                            ("1024_20", "1024_20_ks9_p14", 76.94))),
)
