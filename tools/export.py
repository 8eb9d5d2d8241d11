"""`python tools/export.py ...` is `passl-mixer export ...`, from a checkout that need not be installed."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from passl_mixer.cli import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
