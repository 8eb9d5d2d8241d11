"""The two errors that end a run, and helpers for their messages.

``BadInput`` (exit code 2) is corrected by the user, ``NumericalFailure`` (exit code 3) came up in the run. Any other
exception is a defect of this package and keeps its traceback.
"""
import difflib


class BadInput(ValueError):
    """Input that cannot be used; the message says what was got, what was expected and what to change."""


class NumericalFailure(ArithmeticError):
    """An output of the method, or a parameter about to be saved, is NaN or infinite."""


def _is_subsequence(short: str, long: str) -> bool:
    letters = iter(long)
    return all(letter in letters for letter in short)


def nearest(name: str, names) -> str:
    """The end of a message about an unknown name: the closest known name, or all of them.

    Args:
        name: as typed.
        names: the known names.
    Returns:
        ``"; did you mean 'x'?"``, or ``"; known: a, b, c"`` when nothing is close.
    """
    names = [str(n) for n in names]

    def score(candidate):
        typed, known = str(name).lower().replace("_", ""), candidate.lower().replace("_", "")
        abbreviated = len(typed) > 2 and _is_subsequence(typed, known)
        return abbreviated + difflib.SequenceMatcher(None, typed, known).ratio()

    best = max(names, key=score, default=None)
    if best is not None and score(best) >= 0.6:
        return f"; did you mean '{best}'?"
    return f"; known: {', '.join(sorted(names))}" if names else ""


def first_line(error: Exception) -> str:
    """The reason in an error of Paddle, at most 200 characters; its first lines are the trace of the C++ stack."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reasons = [line for line in lines if "Error" in line.partition(":")[0]]
    return (reasons or lines or [type(error).__name__])[-1][:200]
