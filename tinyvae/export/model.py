"""The two halves of a model as ONNX graphs.

    encoder    x (rows, data) [, y (rows,)] -> mu, logvar (rows, latent)
    decoder    z (rows, latent) [, y (rows,)] -> mean of p(x|z) (rows, data), output (rows, outputs data)

x that is NaN was not observed, and the encoder sees 0 in its place, as in `VAE.encode`. `output` is what the decoder
says: the numbers that the likelihood calls by its `outputs`, one block of columns for each.

Everything is in the model's dtype, y in int64. Where the model's columns are standardized (`VAE.standard`), x and mean
are in the data's units and in float64, as 1e7 and a little has no digits in float32; `output` says the mean of
(x - mean) / std, and stays in the model's dtype.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinyvae.backend import to_host
from tinyvae.errors import ExportError
from tinyvae.export.arrays import Tensor
from tinyvae.export.graph import LABELS, Graph
from tinyvae.export.kernels import Nodes
from tinyvae.export.shapes import ROWS
from tinyvae.kernels.contract import Rows
from tinyvae.layers.layer import Bound, Context, Layer, Views
from tinyvae.model.description import Named
from tinyvae.model.vae import VAE
from tinyvae.ops.activations import LINEAR


def graphs(model: VAE) -> dict[str, Graph]:
    """The halves "encoder" and "decoder", with the model's numbers of this moment.

    Raises ExportError, with the part's name, where a part computes what is neither a formula nor a method of the
    kernels' contract.
    """
    encoder, decoder = model.architecture.halves()
    with model.lock:
        return {
            "encoder": _encoder(model, _Half(model, encoder, model.encoder)),
            "decoder": _decoder(model, _Half(model, decoder, model.decoder)),
        }


class _Half:
    """A half of a model while it is written: its graph, its layers by name with their parameters on the host."""

    def __init__(self, model: VAE, named: Sequence[Named], bound: Sequence[Bound]) -> None:
        host = [{key: to_host(a).copy() for key, a in b.p.items()} for b in bound]
        self.own = {name: to_host(a).copy() for name, a in model.own_params.items()}
        names = {f"{n.name}.{key}": a for n, p in zip(named, host, strict=True) for key, a in p.items()}
        names |= {f"likelihood.{name}": a for name, a in self.own.items()}
        self.standard = model.standard
        if self.standard is not None:
            names |= {"standard.mean": self.standard.mean, "standard.std": self.standard.std}
        self.graph = Graph(model.dtype, names)
        self.k: Any = Nodes(self.graph)
        self.layers = [(n, p) for n, p in zip(named, host, strict=True)]

    def through(self, x: Rows, labels: Any) -> Any:
        """x through the layers."""
        for (name, layer), p in self.layers:
            x = self.written(name, layer, lambda x=x, layer=layer, p=p: self._one(layer, p, x, labels))
            if x.y.shape != (ROWS, layer.width):
                raise ExportError(f"{name} ({type(layer).__name__}) makes the shape {x.y.shape}")
        return x.y

    def _one(self, layer: Layer, p: Views, x: Rows, labels: Any) -> Rows:
        """x through a layer. What it makes is asked for its name here: an array that was not written has none."""
        made, _ = layer.forward(self.k, p, x, Context(labels=labels))
        assert made.y.name
        return made

    def written(self, name: str, part: Any, write: Callable[[], Any]) -> Any:
        """What `write` makes, its nodes under the part's name. Raises ExportError with that name."""
        self.graph.scope = f"{name}/"
        try:
            return write()
        except Exception as error:  # whatever the part's own code raises where it meets no numbers
            raise ExportError(
                f"{name} ({type(part).__name__}) cannot be written as ONNX: {error}; what is made of formulas and of "
                "the kernels' methods can"
            ) from error

    @property
    def units(self) -> np.dtype:
        """The dtype of what is in the units of the data."""
        return self.graph.dtype if self.standard is None else np.dtype("float64")

    def inward(self, x: Tensor) -> Tensor:
        """Data as the model computes with it: as `VAE.checked_data`."""
        if self.standard is None:
            return x
        self.graph.scope = "standard/"
        return self.standard.inward(x).astype(self.graph.dtype)

    def outward(self, u: Any) -> Any:
        """In the units of the data: as `VAE.decode`."""
        if self.standard is None:
            return u
        self.graph.scope = "standard/"
        return self.standard.outward(self.graph.tensor(u, self.graph.dtype))

    def labels(self, model: VAE) -> Any:
        """The input y, if the model is conditional."""
        return self.graph.input("y", (ROWS,), LABELS) if model.classes else None


def _encoder(model: VAE, half: _Half) -> Graph:
    likelihood = model.likelihood
    x = half.graph.input("x", (ROWS, model.data_dim), half.units)
    labels = half.labels(model)
    x = half.inward(x)
    seen = half.written("likelihood", likelihood, lambda: likelihood.encoded(half.k, x, missing=True))
    head = half.through(Rows(seen, None), labels)
    for name, a in zip(("mu", "logvar"), half.k.halves(head), strict=True):
        half.graph.output(name, a, (ROWS, model.latent_dim))
    return half.graph


def _decoder(model: VAE, half: _Half) -> Graph:
    likelihood = model.likelihood
    z = half.graph.input("z", (ROWS, model.latent_dim))
    output = half.through(Rows(z, LINEAR), half.labels(model))
    mean = half.written("likelihood", likelihood, lambda: likelihood.mean(half.own, output))
    half.graph.output("mean", half.outward(mean), (ROWS, model.data_dim), half.units)
    half.graph.output("output", output, output.shape)
    return half.graph


def digest(model: VAE) -> str:
    """Tells two models' files apart: of all parameters, and of where their columns lie, in 16 hexadecimal digits."""
    standard = () if model.standard is None else (model.standard.mean, model.standard.std)
    numbers = (to_host(model.params.flat), *standard)
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in numbers)).hexdigest()[:16]
