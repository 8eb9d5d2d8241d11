"""Ctrl-C and termination signals as a flag, so that a run saves before it ends: all of its processes at one step.

Processes that stopped where their own signal found them would wait for each other's gradients for ever. So they ask
each other, about once a second and always after the same step, whether any of them was told to end; how many steps lie
between two questions follows from the time that all of them agree on. Between questions nothing is exchanged or read.
In an evaluation during training, which all of them compute, they ask after batches in the same way.
"""
import os
import signal
import threading
import time
from typing import Callable

from passl_mixer import distributed

SECONDS, STEPS = 1.0, 64        # between two questions: about so long, and never more steps than that


def steps_to_next_question(steps: int, seconds: float) -> int:
    """Steps that take about a second, 1 to 64, when the last ``steps`` took ``seconds``."""
    return max(1, min(STEPS, int(SECONDS * steps / max(seconds, 1e-9))))


class Stopped(Exception):
    """Ends an evaluation that a signal interrupts; the training loop, which began it, ends the run."""


class Interruption:
    """Turns the first Ctrl-C or termination signal into a flag that the loop looks at; the second one acts as usual.

    Under a launcher later signals change nothing: Paddle's sends three within 0.6 s, to one process after the other,
    and kills by itself what has not ended after 30 s.
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
        """Ask after the next step: from here on a step takes another time. All processes call it at one place."""
        self._steps, self._next, self._asked = 0, 1, time.monotonic()

    def should_stop(self) -> bool:
        """Whether the run is to end after the step just done; the same answer in all processes, which all ask.

        With one process at once after a signal, with several after about a second or the step under way, whichever is
        longer, when at least one of them got a signal.
        """
        if distributed.world_size() == 1:
            return self.seen
        self._steps += 1
        if self._steps < self._next:
            return False
        now = time.monotonic()
        seen, seconds = distributed.maximum([float(self.seen), now - self._asked])
        self._next = steps_to_next_question(self._steps, seconds)
        self._steps, self._asked = 0, now
        return seen > 0

    def stopping(self, encode: Callable) -> Callable:
        """The same function, which raises ``Stopped`` where the run is to end; all processes call it equally often.

        Args:
            encode: images [B, 3, H, W] -> features [B, D]; a batch counts as a step.
        """
        self.restart()

        def encode_and_check(images):
            features = encode(images)
            if self.should_stop():
                raise Stopped
            return features
        return encode_and_check
