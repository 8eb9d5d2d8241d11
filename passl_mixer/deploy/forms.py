"""Forms of families for export: copies with the same outputs that are faster in Paddle's CPU programs.

Other families are exported as they are.
"""
from passl_mixer.backbones.as_mlp import ASMLP
from passl_mixer.backbones.cycle_mlp import CycleMLP
from passl_mixer.backbones.wave_mlp import WaveMLP
from passl_mixer.deploy.as_mlp import with_flat_sums
from passl_mixer.deploy.cycle_mlp import SortedCycleMLP
from passl_mixer.deploy.wave_mlp import with_planes

# family -> function that makes the copy
FORMS = {ASMLP: with_flat_sums, CycleMLP: SortedCycleMLP, WaveMLP: with_planes}


def for_program(backbone):
    """The form of a backbone for export: a copy, or the backbone itself if its family has no other form.

    Args:
        backbone: any backbone of this package in evaluation mode; not changed.
    Returns:
        A layer with the ``forward`` and ``feature_maps`` of the backbone, for tracing and not for training.
    """
    form = FORMS.get(type(backbone))
    return backbone if form is None else form(backbone)
