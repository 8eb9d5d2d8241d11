"""Named files from a folder, or from a tar archive read in memory; nothing is unpacked to disk."""
import tarfile
import zlib
from pathlib import Path

from passl_mixer.errors import BadInput

ARCHIVE_ENDINGS = (".tar.gz", ".tgz", ".tar")


def is_archive(path: Path) -> bool:
    """Whether a path is a file with the ending of an archive."""
    return path.name.lower().endswith(ARCHIVE_ENDINGS) and path.is_file()


def read_members(archive: Path, names, limit_bytes: int) -> dict:
    """The regular files of an archive with the given base names, in any of its folders.

    Args:
        archive: path of a tar file, compressed or not.
        names: base names to look for.
        limit_bytes: a file that is larger by its header is refused before it is read.
    Returns:
        ``{name: bytes}``; missing names are left out, the first of equal names counts.
    Raises:
        BadInput: the archive is damaged or cut off, or a member is too large.
    """
    names, contents = set(names), {}
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in tar:
                name = member.name.rsplit("/", 1)[-1]
                if name not in names or name in contents or not member.isreg():
                    continue
                if member.size > limit_bytes:
                    raise BadInput(f"{archive}: {member.name} has {member.size} bytes, "
                                   f"expected at most {limit_bytes}")
                contents[name] = tar.extractfile(member).read()
                if len(contents) == len(names):
                    break
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise BadInput(f"{archive} cannot be read as an archive, it may be cut off "
                       f"({type(error).__name__}: {error}); get the file again") from error
    return contents


def read_files(folder: Path, names, limit_bytes: int) -> dict:
    """The files of a folder with the given names.

    Args:
        folder, names, limit_bytes: as in ``read_members``.
    Returns:
        ``{name: bytes}``; missing names are left out.
    Raises:
        BadInput: a file is too large.
    """
    contents = {}
    for name in names:
        path = folder / name
        if not path.is_file():
            continue
        if path.stat().st_size > limit_bytes:
            raise BadInput(f"{path} has {path.stat().st_size} bytes, expected at most {limit_bytes}")
        contents[name] = path.read_bytes()
    return contents
