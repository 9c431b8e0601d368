from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from runtime.finance.export import Exported, export
from runtime.finance.features import NAMES, WINDOW
from runtime.finance.networks import Logistic, Probability
from runtime.finance.recipes import RECIPES
from runtime.finance.training import constants

SHAPE = (WINDOW, len(NAMES))


@pytest.fixture(scope="module", params=RECIPES, ids=lambda recipe: recipe.name)
def both(request, parts, tmp_path_factory):
    """A model with its first weights, eager and exported."""
    out = tmp_path_factory.mktemp("models")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        eager = Probability(request.param.network(), *constants(parts.train)).eval()
    export(eager, out, request.param.name)
    return eager, Exported(out, request.param.name)


@pytest.fixture(scope="module")
def windows(parts):
    return torch.from_numpy(parts.test.features[:64])


def test_the_exported_model_is_the_eager_one(both, windows):
    eager, exported = both
    with torch.inference_mode():
        expected = eager(windows)
    for _ in range(3):  # TorchScript specialises itself on the second call
        torch.testing.assert_close(exported(windows), expected, rtol=1e-5, atol=1e-6)


def test_one_row_at_a_time_and_all_at_once_agree(both, windows):
    _, exported = both
    alone = torch.cat([exported(window[None]) for window in windows])
    torch.testing.assert_close(alone, exported(windows), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rows", [0, 1, 2, 7, 513])
def test_any_number_of_rows_gives_one_probability_each(both, rows):
    _, exported = both
    features = 3 * torch.randn(rows, *SHAPE, generator=torch.Generator().manual_seed(0))
    probability = exported(features)
    assert probability.shape == (rows, 1)
    assert probability.dtype == torch.float32
    assert ((probability >= 0) & (probability <= 1)).all()


def test_a_freak_day_still_gets_a_probability(both):
    _, exported = both
    for value in (1e30, -1e30):
        assert torch.isfinite(exported(torch.full((1, *SHAPE), value))).all()


def test_clients_send_raw_features_and_the_model_standardises(both, parts, windows):
    eager, exported = both
    center, spread = constants(parts.train)
    with torch.inference_mode():
        by_hand = torch.sigmoid(eager.network(((windows - center) / spread).clamp(-5, 5)))
    torch.testing.assert_close(exported(windows), by_hand, rtol=1e-5, atol=1e-6)


def test_the_folder_is_in_mlservers_form(tmp_path):
    export(Probability(Logistic(), torch.zeros(SHAPE[1]), torch.ones(SHAPE[1])), tmp_path, "logistic")
    written = sorted(path.name for path in (tmp_path / "logistic").iterdir())
    assert written == ["SHA256SUMS", "model-settings.json", "model.pt", "warm-up.npz"]
    assert json.loads((tmp_path / "logistic" / "model-settings.json").read_text()) == {
        "name": "logistic",
        "implementation": "runtime.TorchScriptModel",
        "platform": "pytorch_torchscript",
        "parameters": {"uri": "./model.pt", "version": "1"},
        "inputs": [{"name": "features", "datatype": "FP32", "shape": [-1, 10, 12]}],
        "outputs": [{"name": "probability", "datatype": "FP32", "shape": [-1, 1]}],
    }


def test_exporting_again_replaces_the_model(tmp_path):
    windows = torch.from_numpy(np.ones((1, *SHAPE), np.float32))
    answers = []
    for bias in (-2.0, 2.0):
        network = Logistic()
        network.logit.weight.data.zero_()
        network.logit.bias.data.fill_(bias)
        export(Probability(network, torch.zeros(SHAPE[1]), torch.ones(SHAPE[1])), tmp_path, "logistic")
        answers.append(Exported(tmp_path, "logistic")(windows).item())
    assert answers == pytest.approx([1 / (1 + np.e**2), 1 / (1 + np.e**-2)])
