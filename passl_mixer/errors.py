"""The two ways a run can end badly, and the words used to say so.

``BadInput`` is the user's to mend (exit code 2), ``NumericalFailure`` is the run's (exit code 3). Everything else is a
defect of this package and keeps its traceback.
"""
import difflib


class BadInput(ValueError):
    """Input that cannot be used; the message says what was got, what was expected and what to change."""


class NumericalFailure(ArithmeticError):
    """A loss or gradient that is no longer finite."""


def _is_subsequence(short: str, long: str) -> bool:
    letters = iter(long)
    return all(letter in letters for letter in short)


def nearest(name: str, names) -> str:
    """Words that point from a mistyped name to the closest known one.

    Args:
        name: what was typed.
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
    """The last line of an error of Paddle that says something; its first ones are the trace of the C++ stack."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if "Error" in line.partition(":")[0]]
    return (said or lines or [type(error).__name__])[-1][:200]
