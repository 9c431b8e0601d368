"""The models there are, and why. One more model is one more line here, and a class in networks.py if it needs one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from runtime.finance.networks import Attention, Gated, Logistic, Recurrent
from runtime.finance.task import Samples


def every_day(samples: Samples) -> NDArray[np.bool_]:
    """All samples, [n]."""
    return np.ones(len(samples), dtype=np.bool_)


def calm_days(samples: Samples) -> NDArray[np.bool_]:
    """The samples whose volatility state is calm, [n]."""
    return ~samples.turbulent


def turbulent_days(samples: Samples) -> NDArray[np.bool_]:
    """The samples whose volatility state is turbulent, [n]."""
    return samples.turbulent


@dataclass(frozen=True)
class Recipe:
    """A model before it is trained: its name, why it is there, its network, and the days it is trained on."""

    name: str
    why: str
    network: Callable[[], nn.Module]
    days: Callable[[Samples], NDArray[np.bool_]] = every_day


RECIPES = (
    Recipe("logistic", "the linear line to beat: HAR on the last day", Logistic),
    Recipe("gated", "interactions of the last day's features", Gated),
    Recipe("lstm", "the order of the last ten days", Recurrent),
    Recipe("transformer", "any of the ten days, looked up directly", Attention),
    Recipe("calm", "the LSTM, trained on calm days only", Recurrent, calm_days),
    Recipe("turbulent", "the LSTM, trained on turbulent days only", Recurrent, turbulent_days),
)
