"""What was known before the replay began: whatever is fitted or picked for it is fitted or picked here.

The constants of the context come from the training years, the arm to send everything to from the validation years. The
days that are replayed have no part in either.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from runtime.finance import Samples
from runtime.finance.evaluation import correct
from runtime.finance.export import Exported
from runtime.finance.features import NAMES, WINDOW

KNOWN = {"day": "range_1", "week": "range_5", "month": "range_22"}
"""What a route may know, by column of the models: the range of the day, week and month, ln over the year's median.

Corsi's three horizons (2009, doi:10.1093/jjfinec/nbp001), taken as they are: no choice was made by their worth here.
"""

INDEX = "index"
"""The parameter of a request that says which index it is about."""

_LAST_DAY = (WINDOW - 1) * len(NAMES)


def context_of(train: Samples) -> dict[str, dict[str, Any]]:
    """The context of a route, as a configuration has it: KNOWN, read from the last day of the window, and the index.

    Every number is a column of the request itself, so it is known when the request is made.
    """
    today = train.features[:, -1].astype(float)
    context: dict[str, dict[str, Any]] = {
        name: {
            "tensor": "features",
            "column": _LAST_DAY + NAMES.index(column),
            "rows": "first",
            "mean": round(float(today[:, NAMES.index(column)].mean()), 4),
            "scale": round(float(today[:, NAMES.index(column)].std()), 4),
        }
        for name, column in KNOWN.items()
    }
    context[INDEX] = {"parameter": INDEX, "levels": ["sp500", "nasdaq"], "missing": "zeros"}
    return context


def picked(models: Path, names: Sequence[str], validation: Samples) -> str:
    """The model of the folder with the best mean reward on the validation days; the first of equals."""
    features = torch.from_numpy(validation.features)
    reward = {
        name: float(correct(validation.label, Exported(models, name)(features)[:, 0].numpy()).mean()) for name in names
    }
    return max(reward, key=lambda name: reward[name])
