"""Ctrl-C and termination signals as a flag, so that a run saves before it ends: all of its processes at one step.

Processes that stopped where their own signal found them would wait for each other's gradients for ever. So they ask
each other, about once a second and always after the same step, whether any of them was told to end; how many steps lie
between two questions follows from the time that all of them agree on. Between questions nothing is exchanged or read.
"""
import os
import signal
import threading
import time

from passl_mixer import distributed

SECONDS, STEPS = 1.0, 64        # between two questions: about so long, and never more steps than that


def steps_to_next_question(steps: int, seconds: float) -> int:
    """Steps that take about a second, 1 to 64, when the last ``steps`` took ``seconds``."""
    return max(1, min(STEPS, int(SECONDS * steps / max(seconds, 1e-9))))


class Interruption:
    """Turns the first Ctrl-C or termination signal into a flag that the loop looks at; the second one acts as usual.

    Under a launcher later signals change nothing: Paddle's sends three within 0.6 s, to one process after the other,
    and kills by itself what has not ended after 30 s.

    Args:
        step: steps done when the loop begins; the same in all processes.
    """

    def __init__(self, step: int = 0):
        self.seen = False
        self._previous = {}
        self._launched = "PADDLE_TRAINER_ID" in os.environ
        self._asked_at, self._asked, self._next = step, time.monotonic(), step

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

    def stops_after(self, step: int) -> bool:
        """Whether the run is to end after this many steps; the same answer in all processes, which all ask.

        With one process at once after a signal, with several after about a second or the step under way, whichever is
        longer, when at least one of them got a signal.
        """
        if distributed.world_size() == 1:
            return self.seen
        if step < self._next:
            return False
        now = time.monotonic()
        seen, seconds = distributed.maximum([float(self.seen), now - self._asked])
        self._next = step + steps_to_next_question(step - self._asked_at, seconds)
        self._asked_at, self._asked = step, now
        return seen > 0
