"""PyTorch at its best on a CPU: eager or compiled, in float32 or under bfloat16 autocast, with its fastest optimiser.

Which of the four ways is the fastest depends on the network and on the processor, so the benchmark measures all.
"""
import contextlib
import time

import torch

WAYS = ("eager", "compile", "bf16", "compile and bf16")
# Every way, step and memory layout of a network is one program of the same code; the limit counts them together.
PROGRAMS = 256
TRIES = 3


def set_up(threads: int) -> None:
    """Choose the number of threads; from here on a program too many is an error, and not a silent return to eager.

    Args:
        threads: of PyTorch's operators.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    settings = torch._dynamo.config
    settings.recompile_limit = settings.accumulated_recompile_limit = PROGRAMS
    settings.fail_on_recompile_limit_hit = True


def is_compiled(way: str) -> bool:
    """Whether a way compiles."""
    return way.startswith("compile")


def is_bf16(way: str) -> bool:
    """Whether a way computes under autocast."""
    return way.endswith("bf16")


def autocast(way: str):
    """The context of a forward pass."""
    return torch.autocast("cpu", torch.bfloat16) if is_bf16(way) else contextlib.nullcontext()


def program(function, way: str, *, frozen: bool = False):
    """A function as a way runs it: itself, or ``torch.compile`` of it for fixed shapes.

    Args:
        function: of tensors.
        way: of ``WAYS``.
        frozen: parameters are constants (Inductor's ``freezing``), for inference.
    """
    if not is_compiled(way):
        return function
    return torch.compile(function, dynamic=False, options={"freezing": True} if frozen else None)


def adamw(parameters, **options) -> torch.optim.Optimizer:
    """AdamW in one kernel for all parameters, which PyTorch has for CPUs.

    Args:
        parameters: tensors or groups.
        **options: of ``torch.optim.AdamW``.
    """
    return torch.optim.AdamW(parameters, fused=True, **options)


def shortest(step) -> float:
    """Seconds of the fastest of some calls, after one that does not count."""
    step()
    seconds = []
    for _ in range(TRIES):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    return min(seconds)
