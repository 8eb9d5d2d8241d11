"""Exported networks on a CPU: Paddle's inference predictor, with oneDNN if its results are correct.

Three defects of Paddle are avoided, seen on 2.6.2 and 3.3.1 or on the named one:
- With Paddle's norms over the last axis of maps, oneDNN, which reorders the axes, gives wrong results or ends the
  process. ``export.py`` notes such a network and it runs without oneDNN. Our networks use ``ops/norms.py``.
- Paddle 3 places every possible operator on oneDNN, some with wrong results (Wave-MLP). It also fuses reshapes into
  their producers and then mistakes their shapes (ViP); these passes are always off here. ``export.py`` tries all
  operators on oneDNN, only products with bias and GELU and convolutions, and none. It takes the fastest correct one.
- Creating and calling a predictor sets the math threads of the whole process, a call sets one; they are restored.
"""
import contextlib
import ctypes
import functools
import json
import os
from pathlib import Path
from typing import Optional, Union

import numpy as np
import paddle

from passl_mixer import runtime
from passl_mixer.errors import BadInput

PROGRAMS = ("model.json", "model.pdmodel")      # of Paddle 3 and of 2.6
FACTS = "export.json"
OPERATORS = ("all", "products", "none")         # computed by oneDNN
# Passes of Paddle 3's predictor; 2.6 has neither the defects nor the choice "products".
PLACEMENT_PASS = "onednn_placement_pass"
BROKEN_PASSES = ("operator_reshape_onednn_fuse_pass", "operator_unsqueeze_onednn_fuse_pass")


@functools.cache
def _math_libraries() -> list:
    """``(library, getter, setter)`` of the number of threads of Paddle's OpenMP and MKL."""
    folder = Path(paddle.__file__).parent / "libs"
    names = {"libiomp5.so": ("omp_get_max_threads", "omp_set_num_threads"),
             "libmklml_intel.so": ("MKL_Get_Max_Threads", "MKL_Set_Num_Threads")}
    return [(ctypes.CDLL(str(folder / file)), *functions) for file, functions in names.items()
            if (folder / file).exists()]


@contextlib.contextmanager
def _threads_kept():
    before = [getattr(library, getter)() for library, getter, _ in _math_libraries()]
    try:
        yield
    finally:
        for (library, _, setter), count in zip(_math_libraries(), before):
            getattr(library, setter)(count)


class Exported:
    """A loaded export, ``network(images) -> outputs``, made by ``load_exported``; not for use by several threads.

    Attributes:
        facts: the content of ``export.json``.
    """

    def __init__(self, predictor, facts: dict):
        self.predictor, self.facts = predictor, facts

    def __call__(self, images: np.ndarray) -> Union[np.ndarray, list]:
        """Outputs of images.

        Args:
            images: float32 [B, C, H, W], normalised with the facts' ``mean`` and ``std``.
        Returns:
            Features or logits, float32 [B, D]; of an export of maps, the list of [B, C_i, H_i, W_i].
        Raises:
            BadInput: another shape or type.
        """
        shape = self.facts["input_shape"]
        fits = isinstance(images, np.ndarray) and images.dtype == np.float32 and images.ndim == 4 and len(images) > 0
        if not fits or any(side not in (None, got) for side, got in zip(shape, images.shape)):
            got = f"{images.dtype} {list(images.shape)}" if isinstance(images, np.ndarray) else type(images).__name__
            raise BadInput(f"images are {got}, expected a NumPy array float32 "
                           f"[{', '.join(str(side or 'B') for side in shape)}]; resize, normalise and convert them")
        self.predictor.get_input_handle(self.predictor.get_input_names()[0]).copy_from_cpu(np.ascontiguousarray(images))
        with _threads_kept():
            self.predictor.run()
        outputs = [self.predictor.get_output_handle(n).copy_to_cpu() for n in self.predictor.get_output_names()]
        return outputs if self.facts["what"] == "maps" else outputs[0]


def load_exported(folder, *, onednn: Optional[bool] = None, threads: Optional[int] = None,
                  precision: str = "fp32") -> Exported:
    """Load an exported network for a CPU.

    Args:
        folder: written by ``export_network``.
        onednn: whether to use oneDNN; None: if that is correct for this network and was faster at export.
        threads: math threads of the calls, at least 1; None: those of this package's CPU set-up.
        precision: "fp32", or "bf16" for oneDNN's products in bfloat16, on processors with AVX-512 BF16. Outputs then
            agree with the network's to about a hundredth of the largest.
    Returns:
        A function from images, NumPy float32 [B, C, H, W], to outputs.
    Raises:
        BadInput: no export in the folder, a program of another Paddle, oneDNN for a network that it breaks, or a
            precision that the processor does not support.
    """
    folder = Path(folder)
    facts, program = _read(folder)
    if onednn and not facts["onednn"]:
        raise BadInput(f"{folder} does not run with oneDNN: {facts['onednn_why_not']}; leave onednn out")
    if threads is not None and threads < 1:
        raise BadInput(f"threads is {threads}, expected at least 1; leave it out for all cores")
    chosen = facts.get("operators", "products" if facts["onednn"] else "none")
    if onednn is False:
        chosen = "none"
    elif chosen == "none" and facts["onednn"] and (onednn or precision == "bf16"):
        chosen = "products"
    if precision not in ("fp32", "bf16"):
        raise BadInput(f"precision is {precision!r}, expected fp32 or bf16")
    if precision == "bf16" and (chosen == "none" or not has_bfloat16()):
        raise BadInput("bf16 needs oneDNN and a processor with AVX-512 BF16, and "
                       + (f"{folder} runs without oneDNN" if chosen == "none" else "this one has none") + "; use fp32")
    return open_program(program, facts, chosen, threads=threads, precision=precision)


def open_program(program: Path, facts: dict, operators: str, *, threads: Optional[int] = None,
                 precision: str = "fp32") -> Exported:
    """Create a predictor without a check of its results.

    Args:
        program: Paddle's program, beside ``model.pdiparams``.
        facts: the content of ``export.json``.
        operators: one of ``OPERATORS``.
        threads, precision: as in ``load_exported``.
    Raises:
        RuntimeError, ValueError: from Paddle, here or at the first call.
    """
    config = paddle.inference.Config(str(program), str(program.with_name("model.pdiparams")))
    config.disable_gpu()
    config.disable_glog_info()
    config.switch_ir_optim(True)
    config.set_cpu_math_library_num_threads(threads or _default_threads())
    if operators == "none":
        config.disable_mkldnn()
    else:
        config.enable_mkldnn()
        if precision == "bf16":
            config.enable_mkldnn_bfloat16()
        if program.name == PROGRAMS[0]:
            for name in BROKEN_PASSES + ((PLACEMENT_PASS,) if operators == "products" else ()):
                config.delete_pass(name)
    with _threads_kept():
        return Exported(paddle.inference.create_predictor(config), facts)


def my_program(folder: Path) -> Path:
    """Path of this Paddle's program in an exported folder."""
    return folder / (PROGRAMS[0] if int(paddle.__version__.partition(".")[0] or 0) >= 3 else PROGRAMS[1])


def has_bfloat16() -> bool:
    """Whether this processor has AVX-512 BF16; False if Linux does not say."""
    path = Path("/proc/cpuinfo")
    return path.exists() and "avx512_bf16" in path.read_text().split()


def _default_threads() -> int:
    chosen = os.environ.get("OMP_NUM_THREADS", "")
    return runtime.tune_cpu()["threads"] or (int(chosen) if chosen.isdigit() else 1)


def _read(folder: Path) -> tuple:
    """``(facts, program file)`` of an exported folder."""
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        facts = {}
    if not isinstance(facts, dict) or facts.get("passl_mixer_export") != 1:
        raise BadInput(f"{folder} is no exported network: it has no {FACTS} of this package; make one with "
                       "passl-mixer export RUN FOLDER -c CONFIG")
    mine = my_program(folder)
    if not mine.is_file() or not (folder / "model.pdiparams").is_file():
        raise BadInput(f"{folder} was exported by Paddle {facts['versions']['paddle']} or is incomplete, and this is "
                       f"Paddle {paddle.__version__}, which needs {mine.name} and model.pdiparams; export it again")
    return facts, mine
