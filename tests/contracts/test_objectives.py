"""Every objective in the folder keeps the contract, and one that does not is found, with what it breaks."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from strategies import sampled

from tinyvae import objectives, parts
from tinyvae.checking.contracts import check_objective
from tinyvae.checking.examples import all_objectives, text
from tinyvae.formula import formula
from tinyvae.loop import Loop
from tinyvae.objectives.elbo import ELBO
from tinyvae.objectives.iwae import IWAE
from tinyvae.objectives.objective import Objective, Partials, Posterior, Terms
from tinyvae.ops.gaussian import kl_backward, kl_forward

EXAMPLES = list(all_objectives())


@pytest.mark.parametrize("objective", EXAMPLES, ids=text)
def test_the_objective_keeps_the_contract(objective: Objective) -> None:
    check_objective(objective)


def test_every_objective_of_the_folder_has_examples_with_each_of_its_choices() -> None:
    assert {parts.name_of(type(o)) for o in EXAMPLES} == set(objectives.names())
    assert {o.estimator for o in EXAMPLES if isinstance(o, IWAE)} == {"iwae", "stl", "dreg"}
    assert any(not o.is_derivative for o in EXAMPLES)


@dataclass(frozen=True)
class Plain(Objective):
    """The ELBO in five lines of array code: what a stranger would write."""

    beta: float = 2.0

    def forward(self, k: Any, nll: Any, q: Posterior) -> tuple[Terms, Callable[[], Partials]]:
        kl = kl_forward(q.mu, q.logvar).sum(axis=1).mean()
        of = lambda a: np.full(1, a, dtype=k.dtype)
        terms = Terms(of(nll.mean() + self.beta * kl), of(nll.mean()), of(kl))
        return self.changed(k, nll, q, terms, Partials(*kl_backward(self.beta / len(q.mu), q.mu, q.logvar)))

    def changed(self, k: Any, nll: Any, q: Posterior, terms: Terms, d: Partials) -> Any:
        return terms, lambda: d


def test_an_objective_of_ones_own_keeps_the_contract() -> None:
    check_objective(Plain())


class NotDividedByRows(Plain):
    def changed(self, k: Any, nll: Any, q: Posterior, terms: Terms, d: Partials) -> Any:
        return terms, lambda: Partials(d.mu * len(q.mu), d.logvar)  # pyright: ignore[reportOptionalOperand]


class WeightsOfTheWrongShape(Plain):
    def changed(self, k: Any, nll: Any, q: Posterior, terms: Terms, d: Partials) -> Any:
        return terms, lambda: d._replace(nll=np.full(len(nll), 1 / len(nll)))


class ANumberForTheLoss(Plain):
    def changed(self, k: Any, nll: Any, q: Posterior, terms: Terms, d: Partials) -> Any:
        return Terms(float(terms.loss[0]), terms.nll, terms.kl), lambda: d  # pyright: ignore[reportArgumentType]


class AnotherNll(Plain):
    def changed(self, k: Any, nll: Any, q: Posterior, terms: Terms, d: Partials) -> Any:
        return terms._replace(nll=terms.nll * len(nll)), lambda: d


class SpoilsNll(Plain):
    def changed(self, k: Any, nll: Any, q: Posterior, terms: Terms, d: Partials) -> Any:
        nll -= nll.mean()
        return terms, lambda: d


class GoesBackTwice(Plain):
    def changed(self, k: Any, nll: Any, q: Posterior, terms: Terms, d: Partials) -> Any:
        def backward() -> Partials:
            d.mu[...] *= 2  # pyright: ignore[reportOptionalSubscript]
            return d._replace(mu=d.mu / 2)  # pyright: ignore[reportOptionalOperand]

        return terms, backward


KEPT: dict[Any, Any] = {}


class HoldsResults(Plain):
    def changed(self, k: Any, nll: Any, q: Posterior, terms: Terms, d: Partials) -> Any:
        KEPT["d"] = d
        return terms, lambda: KEPT["d"]


class ScalesSecretly(Plain):
    def changed(self, k: Any, nll: Any, q: Posterior, terms: Terms, d: Partials) -> Any:
        return terms, lambda: d._replace(z_scale=np.full((len(nll), 1), 0.5))


class FreezesANumber(Plain):
    """beta as it was when the kernels saw it first."""

    def at(self, epochs: float) -> Plain:
        return replace(self, beta=self.beta * min(1, epochs))

    def changed(self, k: Any, nll: Any, q: Posterior, terms: Terms, d: Partials) -> Any:
        if k.name == "reference":
            return terms, lambda: d
        beta = KEPT.setdefault(k, self.beta)
        return terms._replace(loss=terms.nll + k.map(Loop([formula(lambda kl: beta * kl)]), kl=terms.kl)[0]), lambda: d


class DrawsChange(Plain):
    def at(self, epochs: float) -> Objective:
        return ELBO(draws=2)


WRONG = {
    NotDividedByRows: "gradient by mu is wrong: off by",
    WeightsOfTheWrongShape: r"the partial by nll has shape \(6,\), not \(6, 1\)",
    ANumberForTheLoss: r"loss must be an array \(1,\), not",
    AnotherNll: "nll is .*, not the mean",
    SpoilsNll: "changes nll, which it is given",
    GoesBackTwice: "a second way back is not refused, and gives another dmu",
    HoldsResults: "holds results between calls: dmu is another",
    ScalesSecretly: r"z_scale changes what comes from the decoder: that is no derivative \(see is_derivative\)",
    FreezesANumber: "while its numbers change: on the .* kernels in float32, at the second pass .* loss is off by",
    DrawsChange: r"at\(\) and on\(\) must give an objective of as many draws",
}


@pytest.mark.parametrize("wrong", sampled(WRONG, 3), ids=lambda cls: cls.__name__)
def test_an_objective_that_breaks_the_contract_is_found_in_one_line(wrong: type[Plain]) -> None:
    KEPT.clear()
    with pytest.raises((AssertionError, ValueError), match=WRONG[wrong]) as error:
        check_objective(dataclass(frozen=True)(wrong)())
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(wrong.__name__)


# ------------------------------------------------------------------------------- estimators that are right in the mean


@dataclass(frozen=True)
class Biased(IWAE):
    """STL of several draws, which Tucker et al. 2019 show to be biased."""

    def __post_init__(self) -> None:
        pass

    def __hash__(self) -> int:
        return id(self)


def unscaled(terms: Terms, back: Callable[[], Partials]) -> Any:
    return terms, lambda: back()._replace(z_scale=None)


@pytest.mark.parametrize("draws", [2, 5])
def test_a_biased_estimator_is_found(draws: int) -> None:
    with pytest.raises(AssertionError, match=r"gradient by (mu|logvar), in the mean is wrong: off by"):
        check_objective(Biased(draws, "stl"))


def test_dreg_without_its_second_factor_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = IWAE.forward
    monkeypatch.setattr(IWAE, "forward", lambda self, k, nll, q: unscaled(*forward(self, k, nll, q)))
    with pytest.raises(AssertionError, match="in the mean is wrong"):
        check_objective(IWAE(5, "dreg"))


def test_what_is_no_objective_is_refused() -> None:
    with pytest.raises(ValueError, match=r"float must be a dataclass and a subclass of .*\.Objective"):
        check_objective(math.pi)  # pyright: ignore[reportArgumentType]
