"""`python -m runtime.finance OUT`: trains the financial models into OUT, or reuses them, and prints their worth."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

try:
    from rich.console import Console
    from rich.progress import Progress
except ModuleNotFoundError as missing:
    sys.exit(f"the tables are drawn by `rich`, and {missing.name} is not installed: pip install 'croupier[demo]'")

from runtime.finance.builds import build, held_out
from runtime.finance.report import accuracy_table, on_bars, paired_table, reasons, strategy_table


def main(arguments: list[str] | None = None) -> None:
    """Builds, and prints the tables. Exits with a sentence where something is missing."""
    parser = argparse.ArgumentParser(prog="python -m runtime.finance", description=__doc__)
    parser.add_argument("out", type=Path, help="folder for the models, made if missing")
    parser.add_argument("--quick", action="store_true", help="two epochs a model: to try things out, not for use")
    options = parser.parse_args(arguments)
    console = Console()
    try:
        with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
            built = build(options.out, progress=on_bars(bars), quick=options.quick)
        test = held_out()
    except ModuleNotFoundError as missing:
        sys.exit(str(missing))
    except OSError as error:
        sys.exit(f"{options.out}: models cannot be kept there: {error}")
    console.print("reused: same code, data and seed" if built.reused else "trained", "in", str(options.out))
    for table in (reasons(), accuracy_table(built, test), paired_table(built, test), strategy_table(built, test)):
        console.print(table)


if __name__ == "__main__":
    main()
