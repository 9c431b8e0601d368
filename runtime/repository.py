"""The models on disk: `ROOT/NAME/model-settings.json`, or `ROOT/NAME/VERSION/model-settings.json`."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from hashlib import blake2b, file_digest
from pathlib import Path
from stat import S_ISREG
from types import MappingProxyType
from typing import NamedTuple

from protos.errors import FailedPrecondition
from runtime.environment import as_file, settings_of, told_by
from runtime.settings import FILE, ModelSettings, read_settings

SETTLED_NS = 2_000_000_000  # the age from which a file that is written again shows another time, on any disk

DEPTH = 4  # of the folders in which settings that are not read are looked for, once

_VERSION = re.compile(r"v?\d")
_log = logging.getLogger(__name__)

_Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Found:
    """A model folder. Without settings it is broken, and `reason` says why."""

    name: str
    version: str
    folder: Path
    settings: ModelSettings | None
    reason: str = ""

    def fingerprint(self) -> str:
        """Changes when the content of one of the model's files does; the same in every process that looks.

        Not when they are only written again, as Seldon's agent does with the settings at each load.
        """
        files = set(_files(self.folder))
        if self.settings and self.settings.uri:
            files |= set(_files(self.folder / self.settings.uri))
        contents = [(str(path), _content(path)) for path in sorted(files)]
        return blake2b(repr(contents).encode(), digest_size=16).hexdigest()


class _Folder(NamedTuple):
    name: str
    path: str


class Repository:
    """A folder of model folders. Looks at the disk at each question; a broken model does not hide the others.

    MLSERVER_MODEL_* variables of the environment tell what a settings file leaves out. Where there is none, they may
    tell of one model, whose folder is the root. A settings file is parsed once until it changes. Several threads may
    ask at a time.
    """

    def __init__(self, root: Path, environment: Mapping[str, str] = MappingProxyType({})) -> None:
        self._root = root.absolute()  # a model's code may go elsewhere
        self._told = told_by(environment)
        self._parsed: dict[str, tuple[_Stamp, Found]] = {}  # by the path of the settings
        self._claimed: dict[str, set[str]] | None = None  # the folders in which a name was last seen

    def scan(self) -> list[Found]:
        """Every model folder. Two that claim one name and version are both refused."""
        parsed: dict[str, tuple[_Stamp, Found]] = {}
        claimed: dict[str, set[str]] = {}
        every: list[Found] = []
        for folder in self._folders():
            for found in self._within(folder, parsed):
                claimed.setdefault(found.name, set()).add(folder.name)
                every.append(found)
        if self._claimed is None:
            _warn(self._root, every)
        self._parsed, self._claimed = parsed, claimed
        return _settled(every) if every or self._only is None else [self._only]

    def find(self, name: str) -> list[Found]:
        """The versions of one model; none if there is no such model.

        Looked for in the folder of its name and where it was last seen, and only then everywhere: that yet another
        folder claims it is noticed by the next scan.
        """
        if self._claimed is not None:
            # Never a path made of the name, which comes from a client.
            likely = {name, *self._claimed.get(name, ())}
            folders = [folder for folder in self._folders() if folder.name in likely]
            found = [each for folder in folders for each in self._within(folder, {}) if each.name == name]
            if found:
                return _settled(found)
        return [found for found in self.scan() if found.name == name]

    @cached_property
    def _only(self) -> Found | None:
        """The model of the environment, which counts where there is no settings file, as for MLServer."""
        if not self._told:
            return None
        folder = self._root.resolve()
        name = self._told.get("name") or folder.name
        try:
            settings = settings_of(self._told, name=name)
        except FailedPrecondition as error:
            return Found(name, "", folder, None, error.message)
        return Found(settings.name, settings.version, folder, settings)

    def _folders(self) -> list[_Folder]:
        if not self._root.is_dir():
            raise FailedPrecondition(f"there is no folder {self._root}")
        try:
            if (self._root / FILE).exists():  # the root is itself a model's folder
                return [_Folder(self._root.resolve().name, str(self._root))]
            return _subfolders(self._root)
        except OSError as error:
            raise FailedPrecondition(f"the folder {self._root} cannot be listed: {error.strerror}") from error

    def _within(self, folder: _Folder, parsed: dict[str, tuple[_Stamp, Found]]) -> list[Found]:
        """The versions in a folder; those whose settings need not be parsed again are noted."""
        try:
            versions = () if folder.path == str(self._root) else _subfolders(folder.path)
            found = [self._read(folder.path, folder.name, "", parsed)]
            found += [self._read(each.path, folder.name, each.name, parsed) for each in versions]
        except OSError as error:
            return [Found(folder.name, "", Path(folder.path), None, f"{folder.path} cannot be read: {error.strerror}")]
        return [each for each in found if each is not None]

    def _read(self, folder: str, name: str, version: str, parsed: dict[str, tuple[_Stamp, Found]]) -> Found | None:
        path = f"{folder}/{FILE}"
        try:
            stat = os.stat(path)  # noqa: PTH116 - at a tenth of what a Path takes
        except (FileNotFoundError, NotADirectoryError):
            return None
        stamp = _stamp_of(stat)
        known = self._parsed.get(path)
        if known is None or known[0] != stamp:
            known = stamp, self._parse(Path(folder), name, version)
        if known[1].settings is not None and _is_settled(stat):
            parsed[path] = known
        return known[1]

    def _parse(self, folder: Path, name: str, version: str) -> Found:
        try:
            settings = read_settings(folder / FILE, name=name, version=version, told=as_file(self._told))
        except FailedPrecondition as error:
            return Found(name, version, folder, None, error.message)
        return Found(settings.name, settings.version, folder, settings)


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


def _subfolders(folder: str | Path) -> list[_Folder]:
    # Kubernetes keeps the real files of a mounted volume in folders such as ..data.
    with os.scandir(folder) as entries:
        return sorted(_Folder(each.name, each.path) for each in entries if each.name[0] != "." and each.is_dir())


def _settled(every: list[Found]) -> list[Found]:
    """One folder for each name and version: where several claim them, none."""
    claimed: dict[tuple[str, str], list[Found]] = {}
    for found in every:
        claimed.setdefault((found.name, found.version), []).append(found)
    return [claims[0] if len(claims) == 1 else _disputed(claims) for claims in claimed.values()]


def _disputed(claims: list[Found]) -> Found:
    first = claims[0]
    called = f"model {first.name!r}" + (f" version {first.version!r}" if first.version else "")
    folders = " and ".join(str(claim.folder) for claim in claims)
    return replace(first, settings=None, reason=f"{called} is claimed by {folders}; give one of them another name")


def _warn(root: Path, every: list[Found]) -> None:
    """Says which settings are not read, though MLServer would, and which folders may be no versions."""
    read = {each.folder for each in every}
    deep = [path for depth in range(1, DEPTH + 1) for path in root.glob("*/" * depth + FILE) if path.parent not in read]
    for path in deep:
        if not any(part.startswith(".") for part in path.relative_to(root).parts):
            _log.warning("%s is not read: settings lie in NAME/ or NAME/VERSION/ of %s", path, root)
    for each in every:
        name, version = each.folder.parent.name, each.folder.name
        as_folders = (each.name, each.version) == (name, version) and each.folder.parent not in read
        if as_folders and not _VERSION.match(version):
            _log.warning("%s is version %r of model %r, after its folders", each.folder, version, name)


def _files(path: Path) -> list[Path]:
    """The files of a model: those of its folders, too, but hidden ones and those of other models."""
    return _inside(path, root := path.resolve(), {root}) if path.is_dir() else [path]


def _inside(folder: Path, root: Path, followed: set[Path]) -> list[Path]:
    """The files in a folder of a model, and in those below; links to other folders of the `root` are followed once."""
    files: list[Path] = []
    for inner in sorted(folder.iterdir()):
        if inner.is_file() and not inner.name.startswith("."):
            files.append(inner)
        elif _is_own(inner):
            if inner.is_symlink():  # as Kubernetes has them in mounted volumes, into ..data
                real = inner.resolve()
                if real in followed or not real.is_relative_to(root):
                    continue
                followed.add(real)
            files += _inside(inner, root, followed)
    return files


def _is_own(inner: Path) -> bool:
    """Whether a folder in that of a model belongs to it."""
    return inner.is_dir() and not inner.name.startswith((".", "__")) and not (inner / FILE).exists()


def _content(path: Path) -> str:
    try:
        stat = path.stat()
        if not S_ISREG(stat.st_mode):  # nobody waits here for a pipe
            return ""
        # When it was modified anybody can set.
        return _settled_hash(path, _stamp_of(stat)) if _is_settled(stat) else _hash(path)
    except OSError:  # it went between listing and looking, or never was
        return ""


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, blake2b).hexdigest()


@lru_cache(maxsize=100_000)  # files: what looks as it did is not read again
def _settled_hash(path: Path, _stamp: _Stamp) -> str:
    return _hash(path)


def _stamp_of(stat: os.stat_result) -> _Stamp:
    return stat.st_ino, stat.st_ctime_ns, stat.st_size


def _is_settled(stat: os.stat_result) -> bool:
    """Whether a file that changes from now on will have another stamp."""
    return time.time_ns() - stat.st_ctime_ns > SETTLED_NS
