"""Ctrl-C and termination signals as a flag: a run saves before it ends, and all of its processes end at one step.

A process that stopped alone would leave the others waiting for its gradients. So all processes exchange their flags
about once a second, always after the same step. The number of steps between two exchanges follows from the time that
all processes agree on. During a kNN evaluation, which all processes compute, they exchange flags after batches.
"""
import os
import signal
import threading
import time
from typing import Callable

from passl_mixer import distributed

SECONDS, STEPS = 1.0, 64        # between two exchanges: about so long, and at most so many steps


def steps_to_next_exchange(steps: int, seconds: float) -> int:
    """Steps that take about a second, 1 to 64, when the last ``steps`` took ``seconds``."""
    return max(1, min(STEPS, int(SECONDS * steps / max(seconds, 1e-9))))


class Stopped(Exception):
    """Raised in an evaluation that a signal interrupts. The training loop catches it and ends the run."""


class Interruption:
    """Turns the first Ctrl-C or termination signal into a flag for the loop; a second signal acts as usual.

    Under a launcher, later signals are ignored: Paddle's launcher sends three within 0.6 s to one process after the
    other, and kills processes that still run after 30 s.
    """

    def __init__(self):
        self.seen = False
        self._previous = {}
        self._launched = "PADDLE_TRAINER_ID" in os.environ
        self.restart()

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def _note(self, number, _frame):
        self.seen = True
        if not self._launched:
            signal.signal(number, self._previous[number])

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def restart(self) -> None:
        """Exchange flags after the next step, as the time of a step changes here. All processes call it together."""
        self._steps, self._next, self._exchanged = 0, 1, time.monotonic()

    def should_stop(self) -> bool:
        """Whether the run ends after the step just done. All processes call it and get the same answer.

        One process ends at once after a signal. Several end when one of them got a signal, after about a second or the
        step under way, whichever is longer.
        """
        if distributed.world_size() == 1:
            return self.seen
        self._steps += 1
        if self._steps < self._next:
            return False
        now = time.monotonic()
        seen, seconds = distributed.maximum([float(self.seen), now - self._exchanged])
        self._next = steps_to_next_exchange(self._steps, seconds)
        self._steps, self._exchanged = 0, now
        return seen > 0

    def stopping(self, encode: Callable) -> Callable:
        """Wrap an encoder so that it raises ``Stopped`` when the run ends. All processes call it equally often.

        Args:
            encode: images [B, 3, H, W] -> features [B, D]; a batch counts as a step.
        Returns:
            A function with the same argument and result.
        """
        self.restart()

        def encode_and_check(images):
            features = encode(images)
            if self.should_stop():
                raise Stopped
            return features
        return encode_and_check
