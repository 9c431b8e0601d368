"""Fits one network: AdamW on the log loss, stopped where the validation part no longer gains. Same seed, same bits."""

# PyTorch leaves Tensor.split and Tensor.backward untyped.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as log_loss

from runtime.finance.networks import Probability
from runtime.finance.task import Samples


@dataclass(frozen=True)
class Budget:
    """How long, and how, to train. The values were chosen on the validation part."""

    epochs: int = 60
    patience: int = 10
    batch: int = 128
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2


QUICK = Budget(epochs=2)


@dataclass(frozen=True)
class Trained:
    """A model as it stood after its best epoch, ready for inference; the loss is the validation part's, in nats."""

    model: Probability
    epoch: int
    validation_loss: float


def constants(train: Samples) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each feature over the days of the training part: ([features], [features])."""
    rows = torch.from_numpy(train.features[:, -1])
    return rows.mean(dim=0), rows.std(dim=0)


def fit(
    network: Callable[[], nn.Module],
    scaling: tuple[Tensor, Tensor],
    train: Samples,
    validation: Samples,
    *,
    seed: int = 0,
    budget: Budget | None = None,
    progress: Callable[[float], None] = lambda _done: None,
) -> Trained:
    """Trains one network from its first weights; `progress` is told the share done, 0 to 1, after each epoch.

    `validation` decides only when to stop. PyTorch's global generator is left as it was found.
    """
    budget = budget or Budget()
    with _repeatable(seed):
        model = Probability(network(), *scaling)
        optimizer = torch.optim.AdamW(model.parameters(), lr=budget.learning_rate, weight_decay=budget.weight_decay)
        features, label = _tensors(train)
        best = Trained(copy.deepcopy(model).eval(), 0, _loss(model, validation))
        for epoch in range(1, budget.epochs + 1):
            model.train()
            for rows in torch.randperm(len(train)).split(budget.batch):
                optimizer.zero_grad()
                log_loss(model.logit(features[rows]), label[rows]).backward()
                optimizer.step()
            loss = _loss(model, validation)
            if loss < best.validation_loss:
                best = Trained(copy.deepcopy(model).eval(), epoch, loss)
            if epoch - best.epoch >= budget.patience:
                break
            progress(epoch / budget.epochs)
    progress(1.0)
    return best


def _loss(model: Probability, samples: Samples) -> float:
    features, label = _tensors(samples)
    model.eval()
    with torch.no_grad():
        return log_loss(model.logit(features), label).item()


def _tensors(samples: Samples) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(samples.features), torch.from_numpy(samples.label).float()[:, None]


@contextmanager
def _repeatable(seed: int) -> Iterator[None]:
    # One thread: with more, the order of a sum depends on how many cores happen to be there.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)
