"""Which launches on two streams a GPU must keep in order, and which it may run side by side.

``Device`` stands for ``paddle.device``, whose streams only exist where there is a GPU (tests/test_gpu.py); it notes
what waits for what.
"""
import contextlib

import pytest

from passl_mixer.training.prefetch import CopyStream, prefetch


class Stream:
    def __init__(self):
        self.waits: set = set()             # everything that is done before what is launched next

    def launch(self, name: str, done: dict) -> None:
        done[name] = frozenset(self.waits)
        self.waits.add(name)

    def record_event(self):
        return frozenset(self.waits)

    def wait_event(self, event) -> None:
        self.waits |= event

    def wait_stream(self, other) -> None:
        self.waits |= other.waits


class Device:
    def __init__(self):
        self.current = Stream()

    def Stream(self):                       # as Paddle calls it
        return Stream()

    def current_stream(self):
        return self.current

    @contextlib.contextmanager
    def stream_guard(self, stream):
        before, self.current = self.current, stream
        yield
        self.current = before


def run(count: int) -> dict:
    """What every launch of a run of ``count`` steps has to wait for, directly or not."""
    device, done = Device(), {}

    def copy(array):
        device.current.launch(f"copy {array}", done)
        return array

    for step, (views, labels) in enumerate(prefetch([([n], None) for n in range(count)], CopyStream(copy, device))):
        assert (views, labels) == ([step], None)
        device.current.launch(f"step {step}", done)
    assert len(done) == 2 * count
    return done


def test_a_step_waits_for_its_own_batch_and_not_for_the_next():
    done = run(5)
    for n in range(4):
        assert f"copy {n}" in done[f"step {n}"]
        assert f"copy {n + 1}" not in done[f"step {n}"]


def test_a_copy_runs_beside_one_step_and_after_those_before_it():
    done = run(5)
    for n in range(1, 4):
        assert f"step {n - 1}" in done[f"copy {n + 1}"]
        assert f"step {n}" not in done[f"copy {n + 1}"]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_short_epochs_lose_nothing(count):
    assert len(run(count)) == 2 * count


def test_labels_are_copied_too():
    copied = []
    side = CopyStream(lambda array: copied.append(array) or array, Device())
    assert list(prefetch([(["a", "b"], "labels")], side)) == [(["a", "b"], "labels")]
    assert copied == ["a", "b", "labels"]
