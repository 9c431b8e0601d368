"""Statistics that stay valid while people peek: at all times at once, however often one looks, whenever one stops."""

from __future__ import annotations

from bandits.anytime.differences import Difference, bounded_difference, difference, difference_sequence
from bandits.anytime.means import EmpiricalBernstein, betting_interval, mean_interval, mean_sequence
from bandits.anytime.mismatch import draw_evidence, draw_rows, mean_weights, split_evidence
from bandits.anytime.quantiles import Buckets, quantile_band, quantile_evidence, quantile_interval
from bandits.anytime.rates import log_evidence_above, rate_interval
from bandits.anytime.scores import aipw_scores, aipw_terms, cuped
from bandits.anytime.verdict import Guardrail, Rules, Verdict, difference_guardrail, rate_guardrail

__all__ = [
    "Buckets",
    "Difference",
    "EmpiricalBernstein",
    "Guardrail",
    "Rules",
    "Verdict",
    "aipw_scores",
    "aipw_terms",
    "betting_interval",
    "bounded_difference",
    "cuped",
    "difference",
    "difference_guardrail",
    "difference_sequence",
    "draw_evidence",
    "draw_rows",
    "log_evidence_above",
    "mean_interval",
    "mean_sequence",
    "mean_weights",
    "quantile_band",
    "quantile_evidence",
    "quantile_interval",
    "rate_guardrail",
    "rate_interval",
    "split_evidence",
]
