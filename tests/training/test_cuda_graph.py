"""``train.cuda_graphs``: what a recorded pass is held to, and how a run goes on around it.

``Recorded`` stands for Paddle's CUDA graph, which needs a GPU: it runs the recorded pass again on the tensors it was
recorded with and writes into the tensors that it gave, as a graph does; tests/test_gpu.py has Paddle's own.
"""
import numpy as np
import paddle
import pytest
from helpers.methods import DROP_PATH, overrides
from helpers.runs import first_losses

from passl_mixer.errors import BadInput
from passl_mixer.runtime import seed_step
from passl_mixer.training.cuda_graph import WARM_UP, GraphedPass
from passl_mixer.training.run import build_run
from passl_mixer.training.step import train_step

RUNS = {**{name: overrides(name) for name in ("simclr", "moco_split", "byol")},
        "supervised": [*overrides("supervised"), DROP_PATH]}


class Recorded:
    """A graph of the pass that ``pass_of`` notes while it is recorded."""

    def __init__(self, run, *, random: bool = True):
        self.run, self.random, self.replays = run, random, 0

    def capture_begin(self):
        self.seed = paddle.get_rng_state()

    def record(self, run_pass, batch, outputs):
        self.run_pass, self.batch, self.outputs = run_pass, batch, outputs
        self.left = list(getattr(self.run.method, "pending", []))
        self.gradients = {p.name: p.grad for p in self.run.method.parameters() if p.grad is not None}

    def capture_end(self):
        pass

    def replay(self):
        self.replays += 1
        parameters = self.run.method.parameters()
        for p in parameters:
            p.clear_gradient(set_to_zero=False)
        if not self.random:
            paddle.set_rng_state(self.seed)
        pending = getattr(self.run.method, "pending", [])
        before = len(pending)
        for name, value in self.run_pass(self.batch).items():
            self.outputs[name].copy_(value, True)
        for place, value in zip(self.left, pending[before:]):
            place.copy_(value, True)
        del pending[before:]
        assert {p.name for p in parameters if p.grad is not None} == set(self.gradients)


class Graphed(GraphedPass):
    """A ``GraphedPass`` whose graphs learn which pass they record."""

    def _record(self, run_pass, batch, seed):
        def noted(tensors):
            outputs = run_pass(tensors)
            if getattr(self, "made", None) is not None and not hasattr(self.made, "run_pass"):
                self.made.record(run_pass, tensors, outputs)
            return outputs

        super()._record(noted, batch, seed)


def graphed(run, **options):
    def new_graph():
        found.made = Recorded(run, **options)
        return found.made

    method = run.method
    found = Graphed([p for _, p in method.trainable_parameters()], [*method.parameters(), *method.buffers()],
                    lambda step: seed_step(run.config.seed, step), getattr(method, "pending", []), new_graph)
    return found


def graphed_run(tiny, *overrides, **options):
    run = build_run(tiny("schedule.epochs=9", *overrides))
    run.graphed = graphed(run, **options)
    return run


def steps(run, count: int) -> list:
    return [float(loss) for loss in first_losses(run, count)]


@pytest.mark.parametrize("name", RUNS)
def test_recorded_steps_train_as_eager_ones_do(tiny, name):
    """Losses, and with them parameters, buffers and queue, are those of the run without graphs."""
    sides = []
    for record in (False, True):
        run = build_run(tiny("schedule.epochs=9", "schedule.warmup_epochs=0", *RUNS[name]))
        if record:
            run.graphed = graphed(run)
        sides.append(steps(run, WARM_UP + 4))
    assert run.graphed.made.replays == 2 + 4            # two trials, and the steps
    np.testing.assert_allclose(sides[1], sides[0], rtol=1e-6)
    assert len(set(sides[0])) == len(sides[0])


def test_a_graph_that_draws_the_same_numbers_every_time_is_refused(tiny):
    run = graphed_run(tiny, *RUNS["supervised"], random=False)
    with pytest.raises(BadInput, match=r"computes something else: .* set train.cuda_graphs=false"):
        steps(run, WARM_UP + 1)


def test_a_graph_that_keeps_the_first_batch_is_refused(tiny, monkeypatch):
    run = graphed_run(tiny)
    replay = Recorded.replay

    def stale(self):
        self.first = getattr(self, "first", None) or [t.clone() for t in self.batch]
        self.batch = self.first
        replay(self)

    monkeypatch.setattr(Recorded, "replay", stale)
    with pytest.raises(BadInput, match="computes something else"):
        steps(run, WARM_UP + 1)


def test_a_tensor_that_moves_is_noticed(tiny):
    run = graphed_run(tiny, *RUNS["moco_split"])
    steps(run, WARM_UP + 1)
    moved = paddle.rand(run.method.queue.shape)
    moved._share_buffer_to(run.method.queue)
    with pytest.raises(BadInput, match="moves its tensors between steps"):
        steps(run, 1)


def test_another_batch_size_is_refused(tiny):
    run = graphed_run(tiny)
    steps(run, WARM_UP + 1)
    views, labels = next(iter(run.loader.epoch(0)))
    with pytest.raises(BadInput, match=r"a batch has the shapes .* set train.cuda_graphs=false"):
        train_step(run, ([view[:4] for view in views], labels[:4]), 9)


def test_what_cannot_be_recorded_says_so(tiny):
    run = build_run(tiny("schedule.epochs=9"))

    class Refusing(Recorded):
        def capture_end(self):
            raise OSError("\n\nstack of C++\n\nExternalError: CUDA error(900), operation not permitted")

    run.graphed = graphed(run)
    run.graphed.new_graph = lambda: Refusing(run)
    with pytest.raises(BadInput, match=r"cannot be recorded as a CUDA graph \(ExternalError: CUDA error\(900\)"):
        steps(run, WARM_UP + 1)


@pytest.mark.parametrize(("override", "words"), [
    ("train.precision=fp16", "train.precision is fp16; expected fp32 or bf16"),
    ("train.accumulate_steps=2", "train.accumulate_steps is 2; expected 1"),
    ("train.recompute=true", "train.recompute is True; expected false")])
def test_runs_whose_passes_differ_are_refused(tiny, override, words):
    with pytest.raises(BadInput, match=words):
        build_run(tiny("train.cuda_graphs=true", override))


def test_on_a_cpu_the_run_says_that_it_goes_without(tiny, capsys):
    from passl_mixer.training.trainer import train

    train(tiny("train.cuda_graphs=true", "train.max_steps=1", "evaluate.at_end=[]", "evaluate.every_epochs=0"))
    assert "train.cuda_graphs is not available on cpu" in capsys.readouterr().out
