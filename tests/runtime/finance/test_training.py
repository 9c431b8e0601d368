from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from runtime.finance.evaluation import correct
from runtime.finance.networks import Attention, Gated, Logistic, Recurrent
from runtime.finance.recipes import RECIPES
from runtime.finance.training import Budget, constants, fit

TINY = Budget(epochs=2)


def _weights(model: nn.Module) -> Tensor:
    return torch.cat([parameter.flatten() for parameter in model.parameters()])


@pytest.fixture(scope="module")
def few(parts):
    """The last year of the training part, and of validation."""
    return parts.train.where(np.arange(len(parts.train)) >= len(parts.train) - 500), parts.validation


def test_the_constants_are_the_training_parts_mean_and_deviation(parts):
    center, spread = constants(parts.train)
    rows = parts.train.features[:, -1].astype(np.float64)
    np.testing.assert_allclose(center, rows.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(spread, rows.std(axis=0, ddof=1), rtol=1e-4)


def test_a_model_keeps_the_constants_it_was_given_whatever_the_other_parts_hold(parts, few):
    train, validation = few
    scaling = constants(parts.train)
    wild = replace(validation, features=100 * validation.features)
    for other in (validation, wild):
        model = fit(Logistic, scaling, train, other, budget=TINY).model
        assert torch.equal(model.center, scaling[0])
        assert torch.equal(model.spread, scaling[1])


def test_validation_decides_when_to_stop_and_nothing_else(parts, few):
    """With the best epoch the same, another validation part leaves the weights the same bit for bit."""
    train, validation = few
    half = validation.where(np.arange(len(validation)) % 2 == 0)
    one = fit(Logistic, constants(parts.train), train, validation, budget=TINY)
    two = fit(Logistic, constants(parts.train), train, half, budget=TINY)
    assert one.epoch == two.epoch == 2
    assert one.validation_loss != two.validation_loss
    assert torch.equal(_weights(one.model), _weights(two.model))


@pytest.mark.parametrize("network", [Logistic, Gated, Recurrent, Attention])
def test_the_same_seed_gives_the_same_bits(network, parts, few):
    budget = Budget(epochs=1)
    models = [fit(network, constants(parts.train), *few, seed=seed, budget=budget).model for seed in (3, 3, 4)]
    one, same, other = map(_weights, models)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_training_leaves_the_global_generator_and_the_threads_as_they_were(parts, few):
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    fit(Gated, constants(parts.train), *few, budget=TINY)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_training_stops_when_validation_no_longer_gains(parts, few):
    train, validation = few
    flipped = replace(validation, label=~validation.label)
    told: list[float] = []
    trained = fit(
        Logistic,
        constants(parts.train),
        train,
        flipped,
        budget=Budget(epochs=50, patience=2, learning_rate=0.1),
        progress=told.append,
    )
    assert trained.epoch + 2 < 50
    assert len(told) <= trained.epoch + 2
    assert told[-1] == 1.0


def test_progress_rises_to_one(parts, few):
    told: list[float] = []
    fit(Logistic, constants(parts.train), *few, budget=TINY, progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_a_specialist_is_trained_on_its_own_days_only(parts):
    days = {recipe.name: recipe.days(parts.train) for recipe in RECIPES}
    assert days["logistic"].all()
    np.testing.assert_array_equal(days["calm"], ~parts.train.turbulent)
    np.testing.assert_array_equal(days["turbulent"], parts.train.turbulent)


def test_names_are_unique_and_each_recipe_says_why():
    names = [recipe.name for recipe in RECIPES]
    assert len(names) == len(set(names)) >= 5
    assert all(recipe.why for recipe in RECIPES)


def test_the_linear_model_is_right_on_more_than_seventy_percent_of_days_it_never_saw(parts):
    trained = fit(Logistic, constants(parts.train), parts.train, parts.validation)
    with torch.no_grad():
        probability = trained.model(torch.from_numpy(parts.test.features))[:, 0].numpy()
    assert correct(parts.test.label, probability).mean() > 0.70
