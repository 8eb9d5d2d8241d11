"""Forward and backward pass of a step as one CUDA graph, for ``train.cuda_graphs``. Not run on a GPU yet.

A small network's step is hundreds of kernels, and the host takes longer to launch them than the GPU to run them. A
graph is recorded once and launched as a whole. It reads and writes the same addresses every time: batches are copied
into place and gradients stay where they are. The optimiser and ``after_step`` run as usual.

Before a graph is used, its outputs and gradients are compared with those of eager passes on two batches with two seeds.
Every launch checks that no tensor of the model has moved.
"""
from typing import Callable, Sequence

import paddle
from paddle.device.cuda.graphs import CUDAGraph

from passl_mixer.errors import BadInput, first_line

WARM_UP = 3                 # eager passes before: libraries choose their algorithms and working memory in them
TOLERANCE = 1e-2            # of the comparison, relative; sums in another order differ by much less, wrong ones by more
NEGLIGIBLE = 1e-3           # of the largest gradient: below, as for a bias before a norm, there is rounding only
ADVICE = "set train.cuda_graphs=false"


class GraphedPass:
    """Runs forward and backward passes, eagerly at first and then as one graph.

    Args:
        parameters: those that get gradients.
        state: every tensor that a pass reads or writes beside its batch: parameters and buffers.
        reseed: ``reseed(number)`` seeds the generators of random operations.
        pending: the list in which a pass leaves tensors for ``after_step``, as MoCo its keys.
        new_graph: makes a graph with ``capture_begin``, ``capture_end`` and ``replay``.
    """

    def __init__(self, parameters: Sequence, state: Sequence, reseed: Callable, pending: list,
                 new_graph: Callable = CUDAGraph):
        self.parameters, self.state, self.reseed, self.new_graph = list(parameters), list(state), reseed, new_graph
        self.pending = pending
        self.passes, self.graph = 0, None

    @property
    def keeps_gradients(self) -> bool:
        """Whether gradients are overwritten by the next pass, and must not be cleared."""
        return self.graph is not None

    def __call__(self, run_pass: Callable, batch: Sequence, seed: int) -> dict:
        """The outputs of a pass on a batch; gradients are in the parameters' ``grad``.

        Args:
            run_pass: ``run_pass(batch) -> {name: tensor}``, forward and backward.
            batch: tensors on the GPU, of the same shapes every time.
            seed: the number that the generators were seeded with for this pass.
        Raises:
            BadInput: the pass cannot be recorded, or computes something else as a graph.
        """
        self.passes += 1
        if self.passes <= WARM_UP:
            return run_pass(batch)
        if self.graph is None:
            self._record(run_pass, batch, seed)
        if [t.shape for t in batch] != [t.shape for t in self.places]:
            raise BadInput(f"a batch has the shapes {[list(t.shape) for t in batch]}, the recorded one "
                           f"{[list(t.shape) for t in self.places]}; {ADVICE}")
        return self._replay(batch)

    def _replay(self, batch: Sequence) -> dict:
        if self._addresses() != self.addresses:
            raise BadInput("this method moves its tensors between steps, which a recorded graph does not see; "
                           f"{ADVICE}")
        for place, tensor in zip(self.places, batch):
            place.copy_(tensor, False)
        self.graph.replay()
        self.pending.extend(self.left)
        return self.outputs

    def _addresses(self) -> list:
        return [t.data_ptr() for t in self.state]

    def _record(self, run_pass: Callable, batch: Sequence, seed: int) -> None:
        other = [-t.flip(0) if t.ndim == 4 else t for t in batch]               # other images, for other labels
        trials = [(batch, seed), (other, seed + 1)]
        saved = [t.clone() for t in self.state]
        expected = [self._eagerly(run_pass, *trial, saved) for trial in trials]
        self.places = [t.clone() for t in batch]
        self.addresses = self._addresses()
        graph = self.new_graph()
        try:
            graph.capture_begin()
            self.outputs = run_pass(self.places)
            graph.capture_end()
            self.left = list(self.pending)
        except Exception as error:              # whatever Paddle or CUDA meets that cannot be recorded
            raise BadInput(f"this step cannot be recorded as a CUDA graph ({first_line(error)}); {ADVICE}") from error
        self._restore(saved)
        self.graph = graph
        for (trial, number), eager in zip(trials, expected):
            self.reseed(number)
            _compare(self._numbers(self._replay(trial)), eager)
            self._restore(saved)
        self.reseed(seed)

    def _eagerly(self, run_pass: Callable, batch: Sequence, seed: int, saved: Sequence) -> list:
        self.reseed(seed)
        outputs = run_pass(batch)
        values = self._numbers(outputs)
        for p in self.parameters:
            p.clear_gradient(set_to_zero=False)
        self._restore(saved)
        return values

    def _numbers(self, outputs: dict) -> list:
        """``[(name, copy, whether it is a gradient)]`` of what a pass gives and changes."""
        values = [(name, t, False) for name, t in outputs.items()]
        values += [(f"the gradient of {p.name}", p.grad, True) for p in self.parameters if p.grad is not None]
        values += [(t.name, t, False) for t in (*self.state, *self.pending)]
        return [(name, t.astype("float32").clone(), is_gradient) for name, t, is_gradient in values]

    @paddle.no_grad()
    def _restore(self, saved: Sequence) -> None:
        for tensor, value in zip(self.state, saved):
            tensor.copy_(value, False)
        self.pending.clear()


def _compare(graphed: list, eager: list) -> None:
    if len(graphed) != len(eager):
        raise BadInput(f"the recorded pass leaves gradients on other parameters than the eager one; {ADVICE}")
    sizes = [float(tensor.norm()) for _, tensor, _ in eager]
    least = NEGLIGIBLE * max((size for size, (_, _, is_gradient) in zip(sizes, eager) if is_gradient), default=0.0)
    for (name, one, is_gradient), (_, other, _), size in zip(graphed, eager, sizes):
        error = float((one - other).norm())
        if not error <= TOLERANCE * max(size, least if is_gradient else 0.0):
            raise BadInput(f"as a CUDA graph the step computes something else: {name} differs from the eager pass' by "
                           f"{error:.1e}, of {size:.1e}; {ADVICE}")
