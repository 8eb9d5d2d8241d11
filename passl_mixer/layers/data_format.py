"""Networks of convolutions whose maps lie as [B, H, W, C]: what ``train.channels_last`` turns on. Not run on a GPU yet.

In bfloat16 and float16 a GPU's tensor cores work on that layout, and cuDNN transposes any other. ResNet, ConvMixer and
ConvMLP, set to it, transpose the images where they come in and their maps where they leave; weights, names and results
stay what they are. On a CPU they choose it themselves where they compute in bfloat16.
"""
from passl_mixer import ops


def set_data_format(model, data_format: str) -> None:
    """Let every network in a model that has the choice compute on maps of a layout from now on.

    Args:
        model: a backbone, or a method with all its backbones: a momentum encoder is set too. Parameters, their names
            and modes stay the same.
        data_format: "NCHW" or "NHWC".
    """
    for network in model.sublayers(include_self=True):
        if data_format in getattr(network, "data_formats", ()):
            network.data_format = data_format
            for layer in network.sublayers():
                if hasattr(layer, "data_format"):       # Conv2D, MaxPool2D, BatchNorm2D and what synchronises it
                    layer.data_format = data_format


def from_nchw(x_bchw, data_format: str):
    """Maps [B, C, H, W] in a layout: themselves, or [B, H, W, C] for "NHWC"."""
    return ops.permute(x_bchw, [0, 2, 3, 1]) if data_format == "NHWC" else x_bchw


def to_nchw(x, data_format: str):
    """Maps of a layout, [B, H, W, C] for "NHWC", as [B, C, H, W]."""
    return ops.permute(x, [0, 3, 1, 2]) if data_format == "NHWC" else x


def layout_of(network, images) -> str:
    """The layout of a network's maps: of convolutions in bfloat16 on a CPU "NHWC", else its ``data_format``.

    Args:
        network: has ``data_format``.
        images: [B, C, H, W].
    """
    return "NHWC" if ops.computes_in_bf16(images) else network.data_format
