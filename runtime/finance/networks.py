"""Small networks that map standardised windows [n, WINDOW, features] to logits [n, 1]. All of them can be scripted.

They differ in what they may look at: one day linearly, one day with interactions, the days in order, any pair of days.
"""

# A module's call is typed Any in PyTorch.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from runtime.finance.features import NAMES, WINDOW

FEATURES = len(NAMES)


class Logistic(nn.Module):
    """Logistic regression on the last day: the HAR model as a classifier, and the line every network has to beat."""

    def __init__(self) -> None:
        super().__init__()
        self.logit = nn.Linear(FEATURES, 1)

    def forward(self, window: Tensor) -> Tensor:
        """Logits [n, 1] of windows [n, WINDOW, features]."""
        return self.logit(window[:, -1])


class Gated(nn.Module):
    """Gated residual network on the last day: interactions, each let through by a gate, beside a linear path.

    After the GRN of Lim et al., "Temporal Fusion Transformers" (2021, doi:10.1016/j.ijforecast.2021.03.012).
    """

    def __init__(self, width: int = 24, dropout: float = 0.2) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(FEATURES, width), nn.ELU(), nn.Dropout(dropout))
        self.gate = nn.Sequential(nn.Linear(width, width), nn.Sigmoid())
        self.value = nn.Linear(width, width)
        self.logit = nn.Linear(width + FEATURES, 1)

    def forward(self, window: Tensor) -> Tensor:
        """Logits [n, 1] of windows [n, WINDOW, features]."""
        today = window[:, -1]
        hidden = self.hidden(today)
        return self.logit(torch.cat([self.gate(hidden) * self.value(hidden), today], dim=-1))


class Recurrent(nn.Module):
    """LSTM over the window: reads the days in order and may remember how the last fortnight unfolded."""

    def __init__(self, width: int = 16, dropout: float = 0.2) -> None:
        super().__init__()
        self.lstm = nn.LSTM(FEATURES, width, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.logit = nn.Linear(width, 1)

    def forward(self, window: Tensor) -> Tensor:
        """Logits [n, 1] of windows [n, WINDOW, features]."""
        states, _ = self.lstm(window)
        return self.logit(self.dropout(states[:, -1]))


class Attention(nn.Module):
    """One pre-norm transformer block, asked from the last day: any day of the window may speak to today directly.

    Written by hand: only the last day's query is needed, and nn.TransformerEncoder's fast path does not script.
    """

    def __init__(self, width: int = 16, heads: int = 2, dropout: float = 0.2) -> None:
        super().__init__()
        self.heads, self.head_width = heads, width // heads
        self.scale = 1.0 / math.sqrt(self.head_width)
        self.embed = nn.Linear(FEATURES, width)
        self.position = nn.Parameter(0.02 * torch.randn(WINDOW, width))
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.mix = nn.Linear(width, width)
        self.feed = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * width, width),
        )
        self.last = nn.Sequential(nn.LayerNorm(width), nn.Dropout(dropout))
        self.logit = nn.Linear(width + FEATURES, 1)

    def forward(self, window: Tensor) -> Tensor:
        """Logits [n, 1] of windows [n, WINDOW, features]."""
        days = self.embed(window) + self.position
        normed = self.norm(days)
        query = self._by_head(self.query(normed[:, -1:]))
        key, value = self.key_value(normed).chunk(2, dim=-1)
        weight = torch.softmax(query @ self._by_head(key).transpose(-2, -1) * self.scale, dim=-1)
        heard = (weight @ self._by_head(value)).transpose(1, 2).flatten(2)
        today = (days[:, -1:] + self.mix(heard)).squeeze(1)
        return self.logit(torch.cat([self.last(today + self.feed(today)), window[:, -1]], dim=-1))

    def _by_head(self, states: Tensor) -> Tensor:
        return states.view(states.shape[0], states.shape[1], self.heads, self.head_width).transpose(1, 2)


class Probability(nn.Module):
    """What is exported: raw windows in, probabilities [n, 1] out; `center` and `spread` [features] are baked in.

    A standardised value is held within +-5, so that one freak day cannot carry a network far from what it was shown.
    """

    def __init__(self, network: nn.Module, center: Tensor, spread: Tensor) -> None:
        super().__init__()
        self.network = network
        self.center = nn.Buffer(center)
        self.spread = nn.Buffer(spread)

    def logit(self, features: Tensor) -> Tensor:
        """Logits [n, 1] of raw windows [n, WINDOW, features]."""
        return self.network(((features - self.center) / self.spread).clamp(-5.0, 5.0))

    def forward(self, features: Tensor) -> Tensor:
        """Probability [n, 1] of a high range tomorrow, from raw windows [n, WINDOW, features]."""
        return torch.sigmoid(self.logit(features))
