from __future__ import annotations

import re
from pathlib import Path

import pytest

import bandits


def test_what_the_readme_shows_runs() -> None:
    text = (Path(bandits.__file__).parent / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    shown: dict[str, object] = {}
    exec(block, shown)
    assert shown["p"] == pytest.approx([1 / 3, 2 / 3])
    assert shown["arm"] in (0, 1)
