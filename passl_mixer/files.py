"""Atomic writing of files."""
import os
from pathlib import Path


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file atomically: after a crash at any moment it has the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)                     # the rename itself survives a power cut
        finally:
            os.close(folder)
