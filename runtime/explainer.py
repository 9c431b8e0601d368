"""What explains a model, made and tried out when the model is loaded."""

from __future__ import annotations

import numpy as np

from protos.errors import FailedPrecondition, InvalidArgument
from protos.tensors import FLOATS
from runtime.explain import BASELINE, DELTA, Explainer, Question, attributions
from runtime.model import Arrays, Differentiable, Model
from runtime.naming import naming
from runtime.options import ExplainOptions
from runtime.rounding import alike
from runtime.settings import ModelSettings
from runtime.warmup import PAIR, TOLERANCE, examples

STEPS = 2  # show that it works


def explainer_of(model: Model, settings: ModelSettings, sample: Arrays) -> Explainer | None:
    """What explains a model, tried out, with rows of `sample` if there are any; None where its settings ask for none.

    Blocks while PyTorch's graphs are built. Raises FailedPrecondition saying why a model cannot be explained.
    """
    options = settings.options.explained
    if options is None:
        return None
    with naming("parameters.extra.explain"):
        return _explainer(model, settings, options, sample)


def _explainer(model: Model, settings: ModelSettings, options: ExplainOptions, sample: Arrays) -> Explainer:
    if not isinstance(model, Differentiable):
        raise FailedPrecondition(f"{model.platform} has no gradients; TorchScript and exported programs have")
    for spec in (*model.inputs, *model.outputs):
        if not spec.counts_rows:
            raise FailedPrecondition(f"rows are explained, and {spec.name!r} has none: its shape begins with no -1")
    named = [BASELINE, DELTA, *(attributions(spec.name) for spec in model.inputs), *(out.name for out in model.outputs)]
    if twice := next((name for name in named if named.count(name) > 1), None):
        raise FailedPrecondition(f"two outputs would be named {twice!r}; rename the tensor of the model")
    from runtime.formats.integrated_gradients import IntegratedGradients  # PyTorch and Captum: only where wanted

    explainer = IntegratedGradients(model.differentiable(), model, settings, options.baseline)
    _try_out(explainer, model, settings.options.warm_up_size, sample)
    return explainer


def _try_out(explainer: Explainer, model: Model, free_size: int, sample: Arrays) -> None:
    """Baseline, attributions and delta must add up to what the model answers, for an output at least."""
    rng = np.random.default_rng(0)
    arrays = examples(model.inputs, PAIR, rng=rng, free_size=free_size, sample=sample)
    answer = model.run(arrays)
    refused = InvalidArgument("no output is of floating point")
    explained = False
    for spec in model.outputs:
        if spec.datatype not in FLOATS:
            continue
        question = Question(spec.name, (0,) * (len(spec.shape) - 1), STEPS)
        try:
            told = explainer.explain(arrays, question, lambda: None)
        except InvalidArgument as error:
            refused = error
            continue
        explained = True
        expected = answer[spec.name].reshape(PAIR, -1)[:, 0]
        if np.isfinite(expected).all() and not np.isfinite(told[BASELINE]).all():
            raise FailedPrecondition(
                f"{question.target} is {told[BASELINE].sum()} at the baseline, which is zero in every input unless "
                f"baseline says otherwise; set baseline to inputs that the model has an answer to"
            )
        found = told[BASELINE] - told[DELTA]
        for each in model.inputs:
            if each.datatype in FLOATS:
                found = found + told[attributions(each.name)].reshape(PAIR, -1).sum(1, dtype=np.float64)
        if not alike(expected, found, TOLERANCE):
            raise FailedPrecondition(
                f"what explains {question.target} does not add up to the model's answer: a row depends on the others, "
                f"or on chance"
            )
    if not explained:
        raise refused
