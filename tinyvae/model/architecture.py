"""What makes one VAE another: widths, activation, likelihood, tying. Checked here, saved with the weights."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from numbers import Integral
from typing import Any

from tinyvae.model.params import Shapes
from tinyvae.ops.activations import ACTIVATIONS

ACTIVATION_NAMES = tuple(name for name in ACTIVATIONS if name != "linear")
LIKELIHOODS = ("bernoulli", "gaussian")


@dataclass(frozen=True)
class Architecture:
    """See `tinyvae.VAE` for what the fields mean."""

    data_dim: int
    hidden: tuple[int, ...]
    latent_dim: int
    decoder_hidden: tuple[int, ...]
    activation: str
    likelihood: str
    sigma: str | None  # None for a Bernoulli
    tied: bool

    @classmethod
    def checked(
        cls, data_dim: int, hidden: Sequence[int], latent_dim: int, decoder_hidden: Sequence[int] | None,
        activation: str, likelihood: str, sigma: str | None, tied: bool,
    ) -> "Architecture":  # fmt: skip
        """The architecture, or ValueError saying which part is impossible."""
        data_dim, latent_dim = _checked_width("data_dim", data_dim), _checked_width("latent_dim", latent_dim)
        hidden = _checked_widths("hidden", hidden)
        mirrored = hidden[::-1]
        decoder_hidden = mirrored if decoder_hidden is None else _checked_widths("decoder_hidden", decoder_hidden)
        if activation not in ACTIVATION_NAMES:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATION_NAMES)}, not {activation!r}")
        if likelihood not in LIKELIHOODS:
            raise ValueError(f"likelihood must be 'bernoulli' or 'gaussian', not {likelihood!r}")
        if likelihood == "gaussian":
            parse_sigma(sigma)
        else:
            sigma = None
        if tied and decoder_hidden != mirrored:
            raise ValueError(f"tied weights need a decoder that mirrors the encoder: decoder_hidden must be {mirrored}")
        if tied and sigma == "predicted":
            raise ValueError("tied weights have no output for a predicted sigma: use sigma 'learned' or 'fixed:VALUE'")
        return cls(data_dim, hidden, latent_dim, decoder_hidden, activation, likelihood, sigma, tied)

    @property
    def sigma_value(self) -> float | None:
        """The number after "fixed:", else None."""
        return None if self.sigma is None else parse_sigma(self.sigma)

    @property
    def encoder_widths(self) -> tuple[int, ...]:
        """From the data to the head, which holds mu and logvar."""
        return (self.data_dim, *self.hidden, 2 * self.latent_dim)

    @property
    def decoder_widths(self) -> tuple[int, ...]:
        """From z to the logits or the mean (and logvar, where it is predicted)."""
        return (self.latent_dim, *self.decoder_hidden, self.data_dim * (2 if self.sigma == "predicted" else 1))

    def shapes(self) -> Shapes:
        """The name and shape of every parameter, in the order of the flat buffer."""
        shapes: Shapes = {}
        for part, widths in [("encoder", self.encoder_widths), ("decoder", self.decoder_widths)]:
            for i in range(len(widths) - 1):
                if not (self.tied and part == "decoder"):
                    shapes[f"{part}.{i}.weight"] = (widths[i], widths[i + 1])
                shapes[f"{part}.{i}.bias"] = (widths[i + 1],)
        if self.sigma == "learned":
            shapes["likelihood.logvar"] = (1,)
        return shapes

    def check_support(self, smallest: float, largest: float) -> None:
        """Raises ValueError if data between these two numbers is impossible under the likelihood (NaN always is)."""
        if not (abs(smallest) < float("inf") and abs(largest) < float("inf")):
            raise ValueError("the data holds NaN or infinite values")
        if self.likelihood == "bernoulli" and not (smallest >= 0 and largest <= 1):
            hint = "; pixels in 0..255 must be divided by 255 first" if smallest >= 0 and 1 < largest <= 255 else ""
            raise ValueError(
                f"the data lies in [{smallest:g}, {largest:g}], but a Bernoulli likelihood needs [0, 1]{hint}; "
                "for real values use the gaussian likelihood"
            )

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values, ready for `VAE(**d)`."""
        d = asdict(self)
        if self.sigma is None:
            del d["sigma"]
        return d


def parse_sigma(sigma: str | None) -> float | None:
    """The number of "fixed:NUMBER", None for "learned" and "predicted". Raises ValueError for anything else."""
    if sigma in ("learned", "predicted"):
        return None
    kind, _, text = str(sigma).partition(":")
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if kind != "fixed" or not 0 < value < float("inf"):
        raise ValueError(f"sigma must be 'learned', 'predicted' or 'fixed:VALUE' with VALUE > 0, not {sigma!r}")
    return value


def _checked_widths(name: str, widths: Sequence[int]) -> tuple[int, ...]:
    if not isinstance(widths, Sequence) or isinstance(widths, str):
        raise ValueError(f"{name} must be a list of widths, such as [400], not {widths!r}")
    return tuple(_checked_width(name, width) for width in widths)


def _checked_width(name: str, width: int) -> int:
    if isinstance(width, bool) or not isinstance(width, Integral) or width < 1:
        raise ValueError(f"{name} must be a whole number, at least 1, not {width!r}")
    return int(width)
