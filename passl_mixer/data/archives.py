"""Named files from a folder, or from a .tar.gz or .tgz archive read in memory; nothing is ever unpacked to
disk."""
import tarfile
import zlib
from pathlib import Path

from passl_mixer.errors import BadInput

ARCHIVE_ENDINGS = (".tar.gz", ".tgz", ".tar")


def is_archive(path: Path) -> bool:
    """Whether a path is a file with the ending of an archive."""
    return path.name.lower().endswith(ARCHIVE_ENDINGS) and path.is_file()


def read_members(archive: Path, names, limit_bytes: int) -> dict:
    """The archive's regular files with the given base names, whatever folder they are in.

    Args:
        archive: path of a tar file, compressed or not.
        names: base names to look for.
        limit_bytes: a file said to be larger is refused before it is read.
    Returns:
        ``{name: bytes}`` of those found; the first of equal names counts.
    Raises:
        BadInput: the archive is damaged or cut off, or a member is too large.
    """
    wanted, found = set(names), {}
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in tar:
                name = member.name.rsplit("/", 1)[-1]
                if name not in wanted or name in found or not member.isreg():
                    continue
                if member.size > limit_bytes:
                    raise BadInput(f"{archive}: {member.name} has {member.size} bytes, "
                                   f"expected at most {limit_bytes}")
                found[name] = tar.extractfile(member).read()
                if len(found) == len(wanted):
                    break
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise BadInput(f"{archive} cannot be read as an archive, it may be cut off "
                       f"({type(error).__name__}: {error}); get the file again") from error
    return found


def read_files(folder: Path, names, limit_bytes: int) -> dict:
    """The contents of a folder's files with the given names: ``{name: bytes}`` of those found; see
    ``read_members``."""
    found = {}
    for name in names:
        path = folder / name
        if not path.is_file():
            continue
        if path.stat().st_size > limit_bytes:
            raise BadInput(f"{path} has {path.stat().st_size} bytes, expected at most {limit_bytes}")
        found[name] = path.read_bytes()
    return found
