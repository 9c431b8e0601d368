"""Compiles the .proto files: one descriptor set, and stubs for the type checker. Needs grpcio-tools (the dev extra).

python -m protos.generate           writes them
python -m protos.generate --check   exits with 1 when they are stale
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = ["inference.proto", "croupier.proto"]
GENERATED = ["descriptors.binpb", "inference_pb2.pyi", "croupier_pb2.pyi"]


def generate(into: Path) -> None:
    """Writes the generated files into a folder; raises RuntimeError when protoc refuses the sources."""
    from grpc_tools import protoc

    status = protoc.main(
        ["protoc", f"-I{HERE}", f"--descriptor_set_out={into / GENERATED[0]}", f"--pyi_out={into}", *SOURCES]
    )
    if status:
        raise RuntimeError(f"protoc failed with status {status}")


def main() -> int:
    """Writes the generated files, or checks them; returns the process's exit status."""
    if "--check" not in sys.argv[1:]:
        generate(HERE)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        generate(fresh)
        stale = [name for name in GENERATED if (HERE / name).read_bytes() != (fresh / name).read_bytes()]
    if stale:
        print(f"stale: {', '.join(stale)}; run: python -m protos.generate", file=sys.stderr)
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main())
