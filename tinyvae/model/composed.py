"""Models of layers that were given one by one, named by position: encoder.0, encoder.1, ..., decoder.0, ..."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tinyvae import layers, parts
from tinyvae.layers.layer import Layer
from tinyvae.likelihoods.likelihood import Likelihood
from tinyvae.model.description import Description, Named, check_widths


@dataclass(frozen=True)
class Composed(Description):
    """A model of these layers."""

    encoder: tuple[Layer, ...]
    decoder: tuple[Layer, ...]

    @classmethod
    def checked(cls, encoder: Sequence[Layer], decoder: Sequence[Layer], likelihood: Likelihood) -> "Composed":
        """The model, or ValueError saying which layer does not fit."""
        every = [*encoder, *decoder]
        if len({id(layer) for layer in every}) < len(every):
            raise ValueError("a layer stands in two places: to share its weights take Tied")
        here = {id(layer) for layer in every}
        for layer in every:
            if any(id(other) not in here for other in layer.shares().values()):
                raise ValueError(f"a {type(layer).__name__} shares the weights of a layer that is not in the model")
        classes = {layer.classes() for layer in every} - {0}
        if len(classes) > 1:
            raise ValueError(f"the layers tell different numbers of labels apart: {sorted(classes)}")
        named = _named("encoder", encoder), _named("decoder", decoder)
        data_dim, latent_dim = check_widths(*named, likelihood)
        return cls(data_dim, latent_dim, likelihood, max(classes, default=0), tuple(encoder), tuple(decoder))

    def halves(self) -> tuple[list[Named], list[Named]]:
        """By position."""
        return _named("encoder", self.encoder), _named("decoder", self.decoder)

    def to_dict(self) -> dict[str, Any]:
        """Each layer as text; a layer among another's options is its name."""
        names = {id(layer): name for half in self.halves() for name, layer in half}
        as_text = lambda layer: parts.text_of(layer, names)
        return {
            "encoder": [as_text(layer) for layer in self.encoder],
            "decoder": [as_text(layer) for layer in self.decoder],
            "likelihood": parts.text_of(self.likelihood),
        }

    @classmethod
    def from_dict(cls, d: dict[str, Any], likelihood: Likelihood, known: Sequence[type]) -> "Composed":
        """The inverse. `known`: classes that are not the package's own. Raises ValueError for anything else."""
        built: dict[str, Layer] = {}
        for half in ("encoder", "decoder"):
            if not isinstance(d[half], list):
                raise ValueError(f"{half} must be a list of layers, not {d[half]!r}")
            for i, text in enumerate(d[half]):
                if not isinstance(text, str):
                    raise ValueError(f"{half}.{i} must be text, not {text!r}")
                built[f"{half}.{i}"] = parts.part(layers, Layer, text, known, built)
        of = lambda half: [layer for name, layer in built.items() if name.startswith(half)]
        return cls.checked(of("encoder"), of("decoder"), likelihood)

    def as_arguments(self) -> str:
        """The layers, and the likelihood."""
        d = self.to_dict()
        return f"encoder={d['encoder']}, decoder={d['decoder']}, likelihood={d['likelihood']!r}"


def _named(half: str, of: Sequence[Layer]) -> list[Named]:
    return [Named(f"{half}.{i}", layer) for i, layer in enumerate(of)]
