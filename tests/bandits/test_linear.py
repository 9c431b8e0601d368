"""What the linear policies share: the layout, the regression, and how contexts are read."""

from __future__ import annotations

import pickle
from typing import Any, TypeAlias

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits import LinearThompson, LinUCB, SquareCB, Vector
from bandits.linear import FARTHEST, Linear

KINDS: list[type[LinUCB | LinearThompson | SquareCB]] = [LinUCB, LinearThompson, SquareCB]
EVERYONE = np.ones(3, dtype=bool)

Events: TypeAlias = list[tuple[int, float, Vector]]

each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def events(features: int, *, arms: int = 3, number: int = 60, seed: int = 0) -> Events:
    rng = np.random.default_rng(seed)
    return [(int(rng.integers(arms)), float(rng.random()), rng.normal(size=features)) for _ in range(number)]


def learn(policy: Linear, told: Events, arms: int = 3) -> Vector:
    sums = np.zeros((arms, policy.width))
    for arm, reward, context in told:
        sums[arm] += policy.delta(reward, context, 1.0)
    return sums


def by_numpy(policy: Linear, told: Events, arms: int = 3) -> list[tuple[Vector, Vector]]:
    """θ and A⁻¹ of each arm, from the events themselves."""
    mean = np.array(policy.mean or (0.0,) * policy.features)
    scale = np.array(policy.scale or (1.0,) * policy.features)
    expected, weight = policy.expected, policy.l2
    if expected is None:
        expected, weight = (sum(reward for _, reward, _ in told) + 0.5) / (len(told) + 1), 1.0
    regressions = []
    for k in range(arms):
        Z = np.array([[1.0, *((context - mean) / scale)] for arm, _, context in told if arm == k])
        r = np.array([reward for arm, reward, _ in told if arm == k])
        Z = Z.reshape(-1, 1 + policy.features)
        inverse = np.linalg.inv(Z.T @ Z + np.diag([weight] + [policy.l2] * policy.features))
        theta = inverse @ Z.T @ (r - expected)
        theta[0] += expected
        regressions.append((theta, inverse))
    return regressions


# The layout


def test_a_row_is_what_it_says() -> None:
    row = LinUCB(2).delta(0.5, np.array([2.0, -3.0]), 1.0)
    assert row.tolist() == [1.0, 0.5, 0.25, 2.0, -3.0, 1.0, -1.5, 4.0, -6.0, 9.0]


def test_a_row_holds_the_standardised_context() -> None:
    row = LinUCB(2, mean=(1.0, 1.0), scale=(0.5, 2.0)).delta(1.0, np.array([2.0, -3.0]), 1.0)
    assert row.tolist() == [1.0, 1.0, 1.0, 2.0, -2.0, 2.0, -2.0, 4.0, -4.0, 4.0]


def test_a_layout_names_width_and_constants() -> None:
    plain = SquareCB(3).layout
    assert plain == "linear:3"
    assert SquareCB(3, mean=(0.0, -0.0, 0.0), scale=(1.0, 1.0, 1.0)).layout == plain
    others = [
        SquareCB(4),
        SquareCB(3, mean=(0.0, 0.0, 1.0)),
        SquareCB(3, mean=(0.0, 1.0, 0.0)),
        SquareCB(3, scale=(1.0, 1.0, 2.0)),
        SquareCB(3, mean=(0.0, 0.0, 1.0), scale=(1.0, 1.0, 2.0)),
    ]
    assert len({plain, *(policy.layout for policy in others)}) == 1 + len(others)


def test_a_digest_is_the_same_on_every_machine() -> None:
    assert LinUCB(2, mean=(0.5, -1.0), scale=(2.0, 0.1)).layout == "linear:2:fcf43809"


@each_kind
def test_the_kinds_and_the_settings_that_fit_adds_take_over_each_others_sums(kind: type[LinUCB]) -> None:
    for policy in kind(3), kind(3, l2=0.5), kind(3, 0.25):
        assert policy.layout == LinUCB(3).layout
        assert policy.width == LinUCB(3).width


@each_kind
def test_configuration_can_make_it_and_it_can_be_copied(kind: type[LinUCB]) -> None:
    settings = {"features": 2, "mean": [1, 2], "scale": [0.5, 3], "l2": 2}
    policy = msgspec.convert(settings, kind)
    assert policy == kind(2, mean=(1.0, 2.0), scale=(0.5, 3.0), l2=2.0)
    told = events(2)
    copied = pickle.loads(pickle.dumps(policy))
    assert copied == policy
    assert np.array_equal(learn(copied, told), learn(policy, told))


@pytest.mark.parametrize(
    ("settings", "argument"),
    [
        ({"features": 0}, "features"),
        ({"features": -1}, "features"),
        ({"features": 2, "mean": (1.0,)}, "mean"),
        ({"features": 2, "mean": (1.0, float("nan"))}, "mean"),
        ({"features": 2, "mean": (1.0, float("inf"))}, "mean"),
        ({"features": 2, "mean": (1.0, 1e300)}, "mean"),
        ({"features": 2, "scale": (1.0, 1.0, 1.0)}, "scale"),
        ({"features": 2, "scale": (1.0, 0.0)}, "scale"),
        ({"features": 2, "scale": (1.0, -1.0)}, "scale"),
        ({"features": 2, "scale": (1.0, 1e-300)}, "scale"),
        ({"features": 2, "scale": (1.0, float("nan"))}, "scale"),
        ({"features": 2, "scale": (1.0, float("inf"))}, "scale"),
        ({"features": 2, "l2": 0.0}, "l2"),
        ({"features": 2, "l2": float("nan")}, "l2"),
        ({"features": 2, "l2": float("inf")}, "l2"),
    ],
)
def test_settings_that_make_no_regression_are_refused(settings: dict[str, Any], argument: str) -> None:
    for kind in KINDS:
        with pytest.raises(ValueError, match=f"^{argument}: "):
            kind(**settings)


# The regression


@pytest.mark.parametrize("features", [1, 2, 7, 20])
@pytest.mark.parametrize("l2", [0.1, 4.0])
@pytest.mark.parametrize("expected", [None, 0.25])
def test_it_is_the_ridge_regression_of_the_events(features: int, l2: float, expected: float | None) -> None:
    policy = LinUCB(features, mean=(0.3,) * features, scale=(1.7,) * features, l2=l2, expected=expected)
    told = events(features)
    models = policy.models(learn(policy, told), errors=True)
    n = 1 + features
    for model, (theta, inverse) in zip(models, by_numpy(policy, told), strict=True):
        assert model[:n] == pytest.approx(theta, abs=1e-12)
        doubled = 2 * inverse - np.diag(np.diag(inverse))
        assert model[n:] == pytest.approx(doubled[np.tril_indices(n)], abs=1e-12)
    assert np.array_equal(policy.models(learn(policy, told), errors=False), models[:, :n])


@each_kind
@pytest.mark.parametrize("wrong", [-0.1, 1.1, float("nan")])
def test_what_is_expected_is_a_reward(kind: type[LinUCB], wrong: float) -> None:
    with pytest.raises(ValueError, match=r"^expected: must lie in \[0, 1\]"):
        kind(2, expected=wrong)


def test_an_arm_without_rewards_may_be_expected_to_pay_something_else() -> None:
    policy = SquareCB(2, expected=1.0)
    sums = np.zeros((3, policy.width))
    for _ in range(20):
        sums[0] += policy.delta(0.5, np.array([0.5, 1.0]), 1.0)
    p = policy.fit(sums)(np.array([0.5, 1.0]), EVERYONE)
    assert p[1] == p[2] > p[0]


def test_without_rewards_an_arm_is_expected_to_do_as_the_others_do() -> None:
    policy = SquareCB(2)
    sums = np.zeros((3, policy.width))
    for reward in (0.8, 1.0, 0.9, 0.8, 1.0):
        sums[0] += policy.delta(reward, np.array([0.5, 0.5]), 1.0)
    theta = policy.models(sums, errors=False)[2]
    assert theta == pytest.approx([(4.5 + 0.5) / (5 + 1), 0.0, 0.0])


@each_kind
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_constants_do_what_standardising_beforehand_does(kind: type[LinUCB], data: st.DataObject) -> None:
    mean = data.draw(st.lists(st.floats(-100, 100), min_size=3, max_size=3))
    scale = data.draw(st.lists(st.floats(0.01, 100), min_size=3, max_size=3))
    raw = kind(3, mean=tuple(mean), scale=tuple(scale))
    told = events(3, seed=data.draw(st.integers(0, 99)))
    p = kind(3).fit(learn(kind(3), told))
    q = raw.fit(learn(raw, [(arm, reward, x * scale + mean) for arm, reward, x in told]))
    for _, _, x in events(3, number=5, seed=1):
        assert q(x * scale + mean, EVERYONE) == pytest.approx(p(x, EVERYONE), abs=1e-7)


@each_kind
def test_features_that_say_the_same_and_millions_of_plays_are_no_trouble(kind: type[LinUCB]) -> None:
    """One-hot columns beside the bias, and a column twice: A has directions with nothing in them but the prior."""
    rng = np.random.default_rng(0)
    policy = kind(5)
    sums = np.zeros((3, policy.width))
    for i in range(300):
        kind_of = np.eye(3)[rng.integers(3)]
        twice = rng.normal()
        sums[i % 3] += policy.delta(rng.random(), np.array([*kind_of, twice, twice]), 1.0)
    for times in (1.0, 1e6, 1e12):
        p = policy.fit(sums * times)(np.array([1.0, 0.0, 0.0, 0.5, 0.5]), EVERYONE)
        assert p.sum() == pytest.approx(1)


@each_kind
def test_rounding_below_zero_is_forgiven(kind: type[LinUCB]) -> None:
    policy = kind(2, l2=1e-6)
    sums = np.array([1e6 * policy.delta(0.5, np.array([1.0, 1.0]), 1.0) for _ in range(3)])
    sums[1, -1] -= 1e-5  # now a combination of features has the square -1e-5, of millions
    assert policy.fit(sums)(np.array([0.5, 1.0]), EVERYONE).sum() == pytest.approx(1)


@each_kind
def test_sums_over_no_contexts_are_refused(kind: type[LinUCB]) -> None:
    policy = kind(2)
    for column in (7, 9):  # the squares of the features
        sums = learn(policy, events(2))
        sums[1, column] = -100.0
        with pytest.raises(ValueError, match=r"^sums: the row of arm 1 "):
            policy.fit(sums)
    sums = learn(policy, events(2))
    sums[2, 8] = 1e6  # a product greater than the squares allow
    with pytest.raises(ValueError, match=r"^sums: the row of arm 2 "):
        policy.fit(sums)


@each_kind
@pytest.mark.parametrize("counts", [(-1.0, 0.0, 0.0), (1.0, 2.0, 4.0), (5.0, -1.0, 1.0)])
def test_counts_that_no_rewards_can_sum_to_are_refused(kind: type[LinUCB], counts: tuple[float, ...]) -> None:
    policy = kind(2)
    sums = learn(policy, events(2))
    sums[1, :3] = counts
    with pytest.raises(ValueError, match=r"^sums: the row of arm 1 "):
        policy.fit(sums)


# How contexts are read


@each_kind
def test_a_context_may_be_a_list_or_lie_otherwise_in_memory(kind: type[LinUCB]) -> None:
    policy = kind(3)
    fitted = policy.fit(learn(policy, events(3)))
    context = np.array([0.5, -1.25, 2.0])
    allowed = np.array([True, False, True])
    p = fitted(context, allowed)
    row = policy.delta(0.5, context, 1.0)
    frozen = context.copy()
    frozen.flags.writeable = False
    others: list[Any] = [context.tolist(), tuple(context), context.astype(np.float32), context.astype(">f8")]
    others += [[*context[:2].tolist(), np.int64(2)], np.repeat(context, 2)[::2], context[::-1].copy()[::-1], frozen]
    for other in others:
        assert np.array_equal(fitted(other, allowed), p)
        assert np.array_equal(policy.delta(0.5, other, 1.0), row)
    assert np.array_equal(fitted(context, np.repeat(allowed, 2)[::2]), p)


@each_kind
@pytest.mark.parametrize(
    "wrong",
    [None, 0.5, [0.5] * 2, [0.5] * 4, [[0.5] * 3], [[0.5], [0.5] * 2], ["1", "2", "3"], [0.5, None, 0.5], [0.5, 1j, 2]],
    ids=str,
)
def test_what_is_no_row_of_so_many_numbers_is_refused(kind: type[LinUCB], wrong: Any) -> None:
    policy = kind(3)
    with pytest.raises(ValueError, match=r"^context: "):
        policy.fit(np.zeros((3, policy.width)))(wrong, EVERYONE)
    with pytest.raises(ValueError, match=r"^context: "):
        policy.delta(0.5, wrong, 1.0)


@each_kind
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf"), 7.3e9, -7.3e300])
def test_a_number_that_cannot_be_read_is_named_by_its_place_but_not_quoted(kind: type[LinUCB], wrong: float) -> None:
    policy = kind(3, mean=(0.0, 0.0, 1.0), scale=(1.0, 1.0, 2.0))
    context = np.array([0.5, 0.5, wrong])
    for refused in (
        lambda: policy.fit(np.zeros((3, policy.width)))(context, EVERYONE),
        lambda: policy.delta(0.5, context, 1.0),
    ):
        with pytest.raises(ValueError, match=r"^context: number 2 ") as refusal:
            refused()
        assert "7.3" not in str(refusal.value)


@each_kind
@settings(max_examples=30, deadline=None)
@given(mean=st.floats(-1e6, 1e6), scale=st.floats(1e-3, 1e3), sign=st.sampled_from((-1, 1)), steps=st.integers(-2, 2))
def test_what_can_be_decided_on_can_be_learnt_from(
    kind: type[LinUCB], mean: float, scale: float, sign: int, steps: int
) -> None:
    """Else a client would get a decision, and could not report its reward."""
    policy = kind(1, mean=(mean,), scale=(scale,))
    limit = mean + sign * FARTHEST * scale
    for _ in range(abs(steps)):
        limit = float(np.nextafter(limit, np.inf * sign * steps))

    def accepted(read: Any) -> bool:
        try:
            read()
        except ValueError:
            return False
        return True

    context = np.array([limit])
    decided = accepted(lambda: policy.fit(np.zeros((3, policy.width)))(context, EVERYONE))
    assert decided == accepted(lambda: policy.delta(0.5, context, 1.0))
    assert decided == (steps <= 0)


@each_kind
def test_after_the_farthest_context_it_still_decides(kind: type[LinUCB]) -> None:
    policy = kind(2)
    told = [*events(2), (0, 1.0, np.array([FARTHEST, -FARTHEST])), (1, 0.0, np.array([FARTHEST, FARTHEST]))]
    p = policy.fit(learn(policy, told))
    for context in ([0.1, 0.2], [FARTHEST, FARTHEST], [-FARTHEST, 0.0]):
        assert p(np.array(context), EVERYONE).sum() == pytest.approx(1)


@each_kind
@pytest.mark.parametrize("wrong", [[True] * 3, np.ones(3), np.ones(3, dtype=int), np.ones((1, 3), dtype=bool), None])
def test_what_is_no_mask_is_refused(kind: type[LinUCB], wrong: Any) -> None:
    policy = kind(2)
    with pytest.raises(ValueError, match=r"^allowed: must be bool\[3\]"):
        policy.fit(np.zeros((3, policy.width)))(np.zeros(2), wrong)
