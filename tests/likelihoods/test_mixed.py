"""Mixed tables: the same as their members run apart, each on its own columns, number by number."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from strategies import assert_within, eps_of

import tinyvae
from tinyvae import likelihoods, parts
from tinyvae.backend import get_backend
from tinyvae.checking.agreement import usable_kernels
from tinyvae.checking.likelihoods import check_likelihood
from tinyvae.kernels import select
from tinyvae.likelihoods.gaussian import Gaussian
from tinyvae.likelihoods.likelihood import Likelihood
from tinyvae.likelihoods.mixed import Mixed

TEXT = "gaussian:sigma=predicted*2+bernoulli*1+categorical*4+laplace*2+negative-binomial*3+gaussian*1+poisson*1"
MEMBERS: list[tuple[str, int]] = [
    ("gaussian:sigma=predicted", 2), ("bernoulli", 1), ("categorical", 4), ("laplace:scale=columns", 2),
    ("negative-binomial", 3), ("gaussian:sigma=columns", 1), ("poisson", 1),
]  # fmt: skip
DATA = sum(count for _, count in MEMBERS)
OF = Mixed(TEXT)


@pytest.mark.parametrize(
    "columns",
    [
        "gaussian:sigma=predicted*2+bernoulli*1+categorical*4+negative-binomial*3",
        "bernoulli*1+categorical*2+poisson*1",
        "poisson*2+laplace+discretized-logistic:scale=predicted*2",
    ],
)
def test_tables_keep_the_contract(columns: str) -> None:
    check_likelihood(Mixed(columns))


class Apart:
    """The members, each with contiguous copies of its numbers."""

    def __init__(self, dtype: str = "float64", seed: int = 0, K: int = 1) -> None:
        rng = np.random.default_rng(seed)
        self.members = [likelihoods.likelihood(text) for text, _ in MEMBERS]
        counts = [count for _, count in MEMBERS]
        self.columns = [slice(*ends) for ends in pairwise(np.cumsum([0, *counts]))]
        widths = [m.output_width(n) for m, n in zip(self.members, counts, strict=True)]
        self.outputs = [slice(*ends) for ends in pairwise(np.cumsum([0, *widths]))]
        self.p = {
            p.name: (0.3 * rng.standard_normal(p.shape)).astype(dtype) for p in OF.own(DATA)
        }  # by the whole's names
        self.output = rng.standard_normal((6 * K, OF.output_width(DATA))).astype(dtype)
        self.x = OF.draw(self.p, self.output[::K], rng).astype(dtype)
        self.weight = rng.uniform(0.5, 2, (6 * K, 1)).astype(dtype)

    def __iter__(self) -> Any:
        for i, (member, columns, outputs) in enumerate(zip(self.members, self.columns, self.outputs, strict=True)):
            name = f"{MEMBERS[i][0].partition(':')[0]}.{i}."
            own = {key.removeprefix(name): a for key, a in self.p.items() if key.startswith(name)}
            yield member, own, self.output[:, outputs].copy(), self.x[:, columns].copy(), columns, outputs


def agree(of: Likelihood, kernels: str, dtype: str, missing: bool, K: int) -> None:
    """Passes of the whole against passes of the members. Slopes and gradients bit for bit, but where a loop adds in
    lanes: a column sum of contiguous rows and of strided ones may add in another order, within the roundings of a sum.
    """
    apart = Apart(dtype, K=K)
    if missing:
        apart.x[np.random.default_rng(1).random(apart.x.shape) < 0.3] = np.nan
        apart.x[0] = np.nan
    make = select(kernels, get_backend("numpy"), dtype)[1]
    k, other = make(), make()
    k.begin("whole")
    nll, back = of.forward(k, apart.p, apart.output, apart.x, 0.25, missing)
    g = {name: np.full_like(a, np.nan) for name, a in apart.p.items()}
    nll, slopes = np.array(nll), np.array(back(apart.weight, g))
    encoded = np.array(of.encoded(k, apart.x, missing))
    total, scale = np.zeros(len(nll)), np.zeros(len(nll))
    for member, own, output, x, columns, outputs in apart:
        other.begin("member", type(member).__name__, x.shape)
        loss, way_back = member.forward(other, own, output, x, 0.25, missing)
        total, scale = total + loss, scale + np.abs(loss)
        gradients = {name: np.full_like(a, np.nan) for name, a in own.items()}
        assert np.array_equal(slopes[:, outputs], way_back(apart.weight, gradients))
        for name, a in gradients.items():
            (mine,) = (g[key] for key in g if key.endswith(f".{name}") and np.shares_memory(apart.p[key], own[name]))
            assert_within(mine, a, 32 * eps_of(dtype) * (1 + np.abs(a)))
        assert np.array_equal(encoded[:, columns], member.encoded(other, x, missing))
    assert_within(nll, total, 32 * eps_of(dtype) * (1 + scale))


@pytest.mark.parametrize("K", [1, 3])
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kernels", [*usable_kernels()])
def test_a_pass_is_those_of_the_members(kernels: str, dtype: str, missing: bool, K: int) -> None:
    agree(OF, kernels, dtype, missing, K)


def test_what_is_no_pass_is_that_of_the_members_too() -> None:
    apart = Apart()
    holes = apart.x.copy()
    holes[np.random.default_rng(2).random(holes.shape) < 0.3] = np.nan
    mean, information = OF.mean(apart.p, apart.output), OF.information(apart.p, apart.output)
    start, pairs, log_p = OF.start(holes), OF.log_p_of_pairs(apart.p, apart.output, holes), 0.0
    observed, unseen = OF.observed(holes), OF.unseen(holes)
    rng, again = np.random.default_rng(3), np.random.default_rng(3)
    drawn = OF.draw(apart.p, apart.output, rng)
    for member, own, output, _, columns, outputs in apart:
        x = holes[:, columns].copy()
        assert np.array_equal(mean[:, columns], member.mean(own, output))
        assert np.array_equal(drawn[:, columns], member.draw(own, output, again))
        assert np.array_equal(information[:, outputs], member.information(own, output))
        assert np.array_equal(observed[:, columns], member.observed(x))
        assert np.array_equal(unseen[:, outputs], member.unseen(x))
        its_start = member.start(x)
        assert np.array_equal(start[outputs], np.zeros(output.shape[1]) if its_start is None else its_start)
        log_p = log_p + member.log_p_of_pairs(own, output, x)
    assert_within(pairs, log_p, 1e-12 * (1 + np.abs(log_p)))


def test_own_parameters_are_the_members_by_names_that_do_not_clash() -> None:
    found = {p.name: p.shape for p in OF.own(DATA)}
    assert found == {
        "laplace.3.log_scale": (2,), "negative-binomial.4.log_dispersion": (3,), "gaussian.5.logvar": (1,),
    }  # fmt: skip
    two = Mixed("gaussian*1+gaussian*2")
    assert [p.name for p in two.own(3)] == ["gaussian.0.logvar", "gaussian.1.logvar"]


def test_real_columns_have_a_deviation_each_unless_another_is_asked_for() -> None:
    shapes = lambda text: [p.shape for p in Mixed(text).own(3)]
    assert shapes("gaussian*3") == shapes("laplace") == shapes("discretized-logistic*3") == [(3,)]
    assert shapes("gaussian:sigma=learned*3") == [(1,)]
    assert shapes("gaussian:sigma=fixed:0.5*3") == []


def test_the_text_comes_back_and_is_kept_in_a_file(tmp_path: Any) -> None:
    assert likelihoods.likelihood(parts.text_of(OF)) == OF
    model = tinyvae.VAE(DATA, (4,), 2, likelihood=f"mixed:columns={TEXT}", kernels="numpy")
    tinyvae.save(model, tmp_path / "model.safetensors")
    again = tinyvae.load(tmp_path / "model.safetensors")
    assert again.likelihood == OF
    assert np.array_equal(again.params.flat, model.params.flat)


def test_with_predicted_numbers_that_could_be_copied_members_share_theirs() -> None:
    assert OF.shared().columns.startswith("gaussian*2+bernoulli*1")
    kept = "gaussian:sigma=learned*2+poisson"
    assert Mixed(kept).shared() == Mixed(kept)
    assert Mixed("laplace:scale=fixed:2*1+bernoulli").shared().columns == "laplace:scale=fixed:2*1+bernoulli"


def test_it_learns_and_starts_at_its_members_starts() -> None:
    rng = np.random.default_rng(4)
    x = np.stack([rng.normal(170, 10, 200), rng.random(200) < 0.2, *np.eye(2)[rng.integers(0, 2, 200)].T,
                  rng.poisson(500, 200)], axis=1)  # fmt: skip
    model = tinyvae.VAE(5, (6,), 2, likelihood="mixed:columns=gaussian*1+bernoulli*1+categorical*2+poisson*1")
    model.start_at(x)
    bias = model.params["decoder.1.bias"]
    assert_within(bias[4], np.log(x[:, 4].mean()), 0.01)
    assert_within(np.exp(bias[2:4]).sum(), 1, 1e-5)


# ----------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (
            "normal*2",
            r"columns must be KIND\*COUNT with \+ between them, where KIND is one of bernoulli, .*, not 'normal",
        ),
        ("", "columns must be KIND"),
        ("gaussian*2+", "columns must be KIND"),
        ("mixed*2", "columns must be KIND"),
        ("gaussian*0", r"'gaussian\*0' must end in \* and how many columns"),
        ("gaussian*x", "must end in"),
        ("gaussian*2*3", "must end in"),
        ("gaussian+bernoulli", "only one kind can have the columns that are left"),
        ("gaussian:sigma=wide*2", "sigma must be"),
        ("categorical:groups=3*4", "do not make the 4 columns"),
    ],
)
def test_columns_that_cannot_be_are_refused(columns: str, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        Mixed(columns)


@pytest.mark.parametrize("columns", ["gaussian*2", "gaussian*4+bernoulli*1", "gaussian*3+bernoulli*1+poisson"])
def test_columns_that_are_not_the_datas_are_refused(columns: str) -> None:
    with pytest.raises(ValueError, match=f"columns={columns.replace('*', '.').replace('+', '.')} are"):
        tinyvae.VAE(4, likelihood=f"mixed:columns={columns}")


def test_data_that_a_member_cannot_have_made_is_refused_with_its_columns() -> None:
    of = "mixed:columns=gaussian*1+bernoulli*1+categorical*2+poisson*1"
    model, eps = tinyvae.VAE(5, (3,), 1, likelihood=of, kernels="numpy"), np.zeros((2, 1))
    good = np.array([[-5.5, 1, 0, 1, 7], [3e4, 0, 1, 0, np.nan]])
    model.loss(good, eps)
    for column, value, line in [
        (1, 3, r"columns 1 to 1 \(bernoulli\), counted from 1: the data lies in"),
        (4, 2.5, r"columns 4 to 4 \(poisson\), .* whole"),
        (2, 1, r"columns 2 to 3 \(categorical\), counted from 2: columns 0 to 1 of row 0 are 1, 1"),
    ]:  # fmt: skip
        bad = good.copy()
        bad[0, column] = value
        with pytest.raises(ValueError, match=line):
            model.loss(bad, eps)


@pytest.mark.parametrize("options", [{"tied": True}, {"conv": (2,), "image_shape": (4, 4)}])
def test_members_of_two_numbers_do_not_go_with_layers_that_make_one(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="make one number for each of the data"):
        tinyvae.VAE(16, likelihood="mixed:columns=gaussian:sigma=predicted*8+bernoulli*8", **options)


# -------------------------------------------------------------------------------------------------------- planted bugs


@dataclass(frozen=True)
class Exchanged(Mixed):
    """The decoder's numbers from right to left."""

    def places(self, data_dim: int) -> Any:
        found = super().places(data_dim)
        width = found[-1].output.stop
        return [at._replace(output=slice(width - at.output.stop, width - at.output.start)) for at in found]


@dataclass(frozen=True)
class Shifted(Mixed):
    """Each member sees the columns one further to the left."""

    def encoded(self, k: Any, x: Any, missing: bool = False) -> Any:
        return np.roll(super().encoded(k, x, missing), 1, axis=1)


@dataclass(frozen=True)
class FirstLossOnly(Mixed):
    def forward(self, k: Any, p: Any, output: Any, x: Any, each: float, missing: bool = False) -> Any:
        at = self.places(x.shape[1])[0]
        nll = Gaussian("predicted").loss(k, {}, output[:, at.output], x[:, at.columns], missing)
        return nll, super().forward(k, p, output, x, each, missing)[1]


@pytest.mark.parametrize(
    "planted", [Exchanged(TEXT), Shifted(TEXT), FirstLossOnly(TEXT)], ids=lambda p: type(p).__name__
)
def test_numbers_in_other_places_are_found(planted: Mixed) -> None:
    agree(OF, "numpy", "float64", False, 1)
    with pytest.raises(AssertionError):
        agree(planted, "numpy", "float64", False, 1)
