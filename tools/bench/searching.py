"""Searches for the nearest features in a process of ours."""
from peers import random_features

from passl_mixer.evaluation.neighbours import nearest


def search_steps(setup: dict) -> tuple:
    """``(steps, facts)``: "step", one exact search for ``k`` neighbours.

    Args:
        setup: ``bank`` and ``queries`` (numbers of rows), ``width``, ``k``.
    """
    bank = random_features.all_of(setup["bank"], setup["width"], 0)
    queries = random_features.all_of(setup["queries"], setup["width"], 1)
    step, facts = random_features.search_step(lambda: nearest(queries, bank, setup["k"]), setup["queries"])
    return {"step": step}, {"step": facts}
