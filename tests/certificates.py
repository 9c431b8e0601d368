"""Certificates for tests, made by openssl."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


class Authority:
    """Signs certificates, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("openssl is not installed")
        self.folder = folder
        self.certificate = folder / "ca.pem"
        self._openssl(*_request("ca"), "-x509", "-out", "ca.pem")

    def sign(self, name: str, *, file: str = "") -> tuple[Path, Path]:
        """The certificate and the key of a name, which is its subject too; valid for localhost and 127.0.0.1."""
        file = file or name
        (self.folder / "names").write_text("subjectAltName = DNS:localhost, IP:127.0.0.1\n")
        self._openssl(*_request(name, key=f"{file}.key"), "-out", "request.csr")
        self._openssl(
            *("x509", "-req", "-in", "request.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-extfile", "names", "-out", f"{file}.new"),
        )
        # In one step, as whoever renews a certificate does.
        (self.folder / f"{file}.new").replace(self.folder / f"{file}.pem")
        return self.folder / f"{file}.pem", self.folder / f"{file}.key"

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True, timeout=30)


def _request(name: str, key: str = "") -> tuple[str, ...]:
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    return ("req", *curve, "-nodes", "-keyout", key or f"{name}.key", "-subj", f"/CN={name}")
