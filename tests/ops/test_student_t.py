"""Mixtures of Student-t's, by SciPy's multivariate distribution."""

from typing import Any

import numpy as np
import pytest
from mixtures import mixture
from scipy import stats
from strategies import assert_within, eps_of

from tinyvae.ops import student_t

EPS = eps_of("float64")


@pytest.mark.parametrize("d", [1, 2, 7])
def test_the_density_of_a_mixture_is_that_of_scipys_multivariate_t(d: int) -> None:
    (mix, precision), z = mixture(d), np.random.default_rng(0).standard_normal((2, 11, d))
    assert_within(mix.share.sum(axis=1), np.ones(2), 4 * EPS)
    each = student_t.log_densities(mix, z)
    student: Any = stats.multivariate_t  # its stubs know no density
    for row in range(2):
        for c in range(3):
            t = student(mix.location[row, c], np.linalg.inv(precision[row, c]), df=max(5, d))
            assert_within(each[row, c], t.logpdf(z[row]), 1e-9)
        whole = np.log((np.exp(each[row]) * mix.share[row][:, None]).sum(axis=0))
        assert_within(student_t.log_mixture(mix.share, each)[row], whole, 1e-12)
