"""A backbone as one static program of Paddle: what ``train.compile`` turns on.

The program is traced once for every input shape and mode. Losses agree with those of the eager network to rounding; the
backward passes of ``ops/`` and ``train.recompute`` belong to eager networks and do not apply. On a CPU this
is for trying only (docs/export.md has what was measured); on a GPU CINN compiles the program where Paddle has it, which
was not run.
"""
import paddle

from passl_mixer.errors import BadInput, first_line


def compile_backbone(backbone, name: str, img_size: int) -> None:
    """Let a backbone's ``forward`` run as a static program from now on; parameters and modes stay what they are.

    Args:
        backbone: any backbone of this package; other methods, such as ``feature_maps``, stay eager.
        name: of the backbone, for messages.
        img_size: height and width of the images to try it with, in pixels.
    Raises:
        BadInput: Paddle cannot make a program of this backbone.
    """
    cinn = paddle.get_device().startswith("gpu") and paddle.is_compiled_with_cinn()
    eager = backbone.forward
    try:
        paddle.jit.to_static(backbone, backend="CINN" if cinn else None, full_graph=True)
        size = [None, backbone.in_chans, img_size, img_size]
        # Traces and runs nothing: running statistics stay as they are.
        backbone.forward.concrete_program_specify_input_spec([paddle.static.InputSpec(size, "float32")])
    except Exception as error:                  # whatever Paddle's tracer meets; the first line says where
        backbone.forward = eager
        raise BadInput(f"backbone {name!r} cannot be compiled by this Paddle ({paddle.__version__}): "
                       f"{first_line(error)}; set train.compile=false") from error
