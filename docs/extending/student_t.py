"""A likelihood of one's own: Student's t, for real data with outliers (Lange, Little & Taylor 1989).

With the location m that the decoder says, freedom v, scale 1, and r = x - m:

    nll     = (v + 1) / 2 log(1 + r^2 / v) + c,     c = lgamma(v / 2) - lgamma((v + 1) / 2) + log(v pi) / 2
    dnll/dm = -(v + 1) r / (v + r^2)

Far out it pulls with 1 / r and not with r. The mean is m (for v > 1), Fisher's information of m is (v + 1) / (v + 3).
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tinyvae.backend import to_host
from tinyvae.checking.contracts import check_likelihood
from tinyvae.formula import backward_of, double, formula, lgamma, log
from tinyvae.likelihoods.likelihood import Likelihood


@formula
def student_nll(location, freedom, x):
    """-log t(x), in nats."""
    r = x - location
    c = lgamma(freedom / 2) - lgamma((freedom + 1) / 2) + 0.5 * log(3.141592653589793 * freedom)
    return 0.5 * (freedom + 1) * log(1 + double(r) * r / freedom) + c


@backward_of(student_nll, "location")
def student_dlocation(dnll, location, freedom, x):
    """dlocation = -dnll (v + 1) r / (v + r^2), divided by r twice where r is large, so that nothing overflows."""
    r = double(x - location)
    return -dnll * (freedom + 1) * r / (freedom + r * r)


@dataclass(frozen=True)
class StudentT(Likelihood):
    """Real x. freedom: the smaller, the heavier the tails; above 1, or there is no mean."""

    freedom: float = 4.0

    outputs: ClassVar = ("location",)
    nll: ClassVar = student_nll
    slopes: ClassVar = student_dlocation
    scale_matters: ClassVar = True

    def __post_init__(self) -> None:
        """Raises ValueError for a freedom that leaves no mean."""
        if not self.freedom > 1:
            raise ValueError(f"freedom must be above 1, not {self.freedom}")

    def fixed(self):
        """What the formulas read beside the decoder's numbers and x."""
        return {"freedom": self.freedom}

    def mean(self, p, output):
        """The location."""
        return output

    def draw(self, p, output, rng):
        """The location and noise."""
        location = to_host(output)
        return location + rng.standard_t(self.freedom, location.shape).astype(location.dtype)

    def information(self, p, output):
        """(v + 1) / (v + 3), everywhere."""
        return 0 * output + (self.freedom + 1) / (self.freedom + 3)


if __name__ == "__main__":
    import tinyvae

    check_likelihood(StudentT())
    model = tinyvae.VAE(6, hidden=(16,), latent_dim=2, likelihood=StudentT(freedom=3))
    rng = np.random.default_rng(0)
    print(model.loss_and_grad(rng.standard_t(3, (10, 6)), rng.standard_normal((10, 2))))
