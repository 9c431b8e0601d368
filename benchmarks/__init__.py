"""One question a file: `python -m benchmarks.NAME [--quick] [--json]`; `python -m benchmarks` asks them all."""
