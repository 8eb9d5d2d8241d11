"""Ctrl-C and termination signals as a flag, so that a run saves before it ends."""
import signal
import threading


class Interruption:
    """Turns the first Ctrl-C or termination signal into a flag that the loop looks at; the second one acts as usual."""

    def __init__(self):
        self.seen = False
        self._previous = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def _note(self, number, _frame):
        self.seen = True
        signal.signal(number, self._previous[number])

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)
