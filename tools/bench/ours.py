"""A measured process of ours; started by ``turns.Child``. The CPU set-up happens at import, as for any user.

``PASSL_MIXER_TUNE`` and ``OMP_NUM_THREADS`` come with the environment. See ``tools/peers/protocol.py`` for what it
speaks.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from peers import protocol


def main() -> None:
    """Build what the set-up asks for, then measure it."""
    channel = protocol.Channel()
    setup = channel.setup
    import passl_mixer  # noqa: F401  (the set-up, before Paddle)

    # isort: split
    import paddle

    from bench import learning, networks, runs, searching
    from passl_mixer import distributed, runtime

    device = runtime.select_device(setup.get("device", "cpu"))
    distributed.init()
    paddle.seed(0)
    kinds = {"networks": lambda: networks.network_steps(setup, device), "method": lambda: learning.method_steps(setup),
             "simclr": lambda: learning.simclr_steps(setup, device), "views": lambda: learning.views_steps(setup),
             "runs": lambda: runs.run_steps(setup, device), "labels": lambda: runs.labels_steps(setup),
             "search": lambda: searching.search_steps(setup)}
    steps, facts = kinds[setup["kind"]]()
    channel.serve(steps, facts)


if __name__ == "__main__":
    main()
