"""The models on disk: `ROOT/NAME/model-settings.json`, or `ROOT/NAME/VERSION/model-settings.json`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from protos.errors import FailedPrecondition
from runtime.settings import FILE, ModelSettings, read_settings

Fingerprint = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Found:
    """A model folder. Without settings it is broken, and `reason` says why."""

    name: str
    version: str
    folder: Path
    settings: ModelSettings | None
    reason: str = ""

    def fingerprint(self) -> Fingerprint:
        """Changes when a file of the model does: path, inode, time and size of each."""
        files = set(_files(self.folder))
        if self.settings and self.settings.uri:
            files |= set(_files(self.folder / self.settings.uri))
        return tuple((str(path), *_stat(path)) for path in sorted(files))


class Repository:
    """A folder of model folders. Reads the disk at each question; a broken model does not hide the others."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def scan(self) -> list[Found]:
        """Every model folder. Two that claim one name and version are both refused."""
        claimed: dict[tuple[str, str], list[Found]] = {}
        for found in self._folders():
            claimed.setdefault((found.name, found.version), []).append(found)
        return [claims[0] if len(claims) == 1 else _disputed(claims) for claims in claimed.values()]

    def find(self, name: str) -> list[Found]:
        """The versions of one model; none if there is no such model."""
        # Never a path made of the name, which comes from a client.
        return [found for found in self.scan() if found.name == name]

    def _folders(self) -> Iterator[Found]:
        if not self._root.is_dir():
            raise FailedPrecondition(f"there is no folder {self._root}")
        if (self._root / FILE).exists():  # the root is itself a model's folder
            yield _read(self._root, name=self._root.resolve().name, version="")
            return
        for folder in _subfolders(self._root):
            try:
                yield from _versions(folder)
            except OSError as error:
                yield Found(folder.name, "", folder, None, f"{folder} cannot be read: {error.strerror}")


def locate(folder: Path, uri: str, well_known: Sequence[str]) -> Path:
    """The model's own file: `uri`, or without one the well-known name in the folder.

    Raises FailedPrecondition saying what was looked for and where.
    """
    if "://" in uri:
        raise FailedPrecondition(f"{folder / FILE}: parameters.uri: {uri!r} is not a local path, which is all we read")
    path = folder / uri
    for candidate in (path, *(path / name for name in well_known)):
        if candidate.is_file():
            return candidate
    if uri and not path.exists():
        raise FailedPrecondition(f"{folder / FILE}: parameters.uri: there is no {path}")
    raise FailedPrecondition(f"{path} has no {' or '.join(well_known)}, and parameters.uri names no file")


def _subfolders(folder: Path) -> list[Path]:
    # Kubernetes keeps the real files of a mounted volume in folders such as ..data.
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _versions(folder: Path) -> Iterator[Found]:
    if (folder / FILE).exists():
        yield _read(folder, name=folder.name, version="")
    for inner in _subfolders(folder):
        if (inner / FILE).exists():
            yield _read(inner, name=folder.name, version=inner.name)


def _read(folder: Path, *, name: str, version: str) -> Found:
    try:
        settings = read_settings(folder / FILE, name=name, version=version)
    except FailedPrecondition as error:
        return Found(name, version, folder, None, error.message)
    return Found(settings.name, settings.version, folder, settings)


def _disputed(claims: list[Found]) -> Found:
    first = claims[0]
    called = f"model {first.name!r}" + (f" version {first.version!r}" if first.version else "")
    folders = " and ".join(str(claim.folder) for claim in claims)
    return replace(first, settings=None, reason=f"{called} is claimed by {folders}; give one of them another name")


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return [inner for inner in path.iterdir() if inner.is_file()]
    return [path]


def _stat(path: Path) -> tuple[int, int, int]:
    try:
        stat = path.stat()
    except OSError:  # it went between listing and looking, or never was
        return (0, 0, 0)
    return (stat.st_ino, stat.st_mtime_ns, stat.st_size)
