"""A model's description with numbers: parameters, gradients, layers bound to them, kernels for its passes; copies."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Self

import numpy as np

from tinyvae import kernels as kernel_files
from tinyvae.backend import Array, backend_or_numpy, get_backend, to_host
from tinyvae.kernels.contract import Kernels
from tinyvae.layers.layer import Bound, Layer
from tinyvae.model.description import Description, Named
from tinyvae.model.labels import Label
from tinyvae.model.params import FlatParams
from tinyvae.model.standard import Standard
from tinyvae.model.threads import new_lock
from tinyvae.parts import replayed


class Built:
    """What `VAE` is before it computes anything."""

    @classmethod
    def of(
        cls, described: Description, dtype: str = "float32", backend: str = "numpy", kernels: str | None = None,
        device: int = 0,
    ) -> Self:  # fmt: skip
        """The model of that description, with all its numbers 0: they are read from a file."""
        model = cls.__new__(cls)
        model._set_up(described, get_backend(backend, device), kernels, dtype)
        return model

    def _set_up(self, described: Description, backend: Any, kernels: str | None, dtype: str) -> None:
        """All but the numbers."""
        if dtype not in ("float32", "float64"):
            raise ValueError(f"dtype must be 'float32' or 'float64', not {dtype!r}")
        self.architecture, self.likelihood = described, described.likelihood
        self.data_dim, self.latent_dim, self.classes = described.data_dim, described.latent_dim, described.classes
        self.backend, self.dtype = backend, np.dtype(dtype)
        self.kernels_name, self.make_kernels = kernel_files.select(kernels, backend, dtype)
        shapes = described.shapes()
        self.params = FlatParams(shapes, backend, self.dtype)
        self.grads = FlatParams(shapes, backend, self.dtype)
        self.encoder, self.decoder = self._bound(*described.halves())
        self.replayed = all(map(replayed, (*(b.layer for b in (*self.encoder, *self.decoder)), self.likelihood)))
        self.own_params, self.own_grads = self.params.part("likelihood"), self.grads.part("likelihood")
        self.standard: Standard | Any = None  # where the data's columns lie; None: the model computes with x itself
        self.labels: tuple[Label, ...] | None = None  # those of a conditional model, where they are not 0, 1, 2, ...
        self.free: list[Kernels] = []  # kernels that no call is using, with their memory
        self.lock = new_lock(self)
        self._built = frozenset(vars(self)) | {"_built"}  # what a copy makes anew

    def _bound(self, encoder: list[Named], decoder: list[Named]) -> tuple[list[Bound], list[Bound]]:
        """The layers with their views on parameters and gradients."""
        names = {id(layer): name for name, layer in (*encoder, *decoder)}

        def views(of: FlatParams, name: str, layer: Layer) -> dict[str, Array]:
            found = {p.name: of[f"{name}.{p.name}"] for p in layer.params()}
            for prefix, other in layer.shares().items():
                found.update({f"{prefix}.{key}": view for key, view in of.part(names[id(other)]).items()})
            return found

        bind = lambda n: Bound(n.layer, *(MappingProxyType(views(of, *n)) for of in (self.params, self.grads)))
        return [bind(n) for n in encoder], [bind(n) for n in decoder]

    @property
    def plain(self) -> Self:
        """This very model from within, where data is (x - mean) / std (see `standard`): it shares all its numbers."""
        if self.standard is None:
            return self
        inside = type(self).__new__(type(self))
        vars(inside).update(vars(self))
        inside.standard = None
        return inside

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.architecture.as_arguments()}), {self.params.flat.size:,} parameters, "
            f"{self.dtype.name} on {self.backend.name} with {self.kernels_name} kernels"
        )

    def __getstate__(self) -> dict[str, Any]:
        """For copy and pickle: plain values and arrays on the host, none of which is this model's own."""
        with self.lock:  # not in the middle of another thread's step
            return {
                "architecture": self.architecture,
                "dtype": self.dtype.name,
                "backend": self.backend.name,
                "device": self.backend.device,
                "kernels": self.kernels_name,
                "params": to_host(self.params.flat).copy(),  # (parameters,)
                "grads": to_host(self.grads.flat).copy(),  # (parameters,)
                "standard": self.standard,
                "labels": self.labels,
                "added": {k: v for k, v in vars(self).items() if k not in self._built},
            }

    def __setstate__(self, state: dict[str, Any]) -> None:
        backend = backend_or_numpy(state["backend"], state["device"])
        kernels, dtype = state["kernels"], state["dtype"]
        problem = kernel_files.problem(kernels, backend, dtype)
        if problem:
            if backend.name == state["backend"]:  # else it has been said
                warnings.warn(f"loaded with other kernels than {kernels}: {problem}", UserWarning, stacklevel=2)
            kernels = None
        self._set_up(state["architecture"], backend, kernels, dtype)
        for name in ("params", "grads"):
            getattr(self, name).flat[...] = backend.asarray(state[name])
        self.standard, self.labels = state.get("standard"), state.get("labels")
        vars(self).update(state["added"])

    @contextmanager
    def borrowed(self, *key: Any) -> Iterator[Kernels]:
        """Kernels and their memory for one pass; another call, in another thread say, gets others.

        key: what the pass does and how large it is: passes of one key make the same calls.
        """
        try:
            k = self.free.pop()
        except IndexError:
            k = self.make_kernels()
        try:
            k.begin(*key)
            yield k
        finally:
            k.begin()  # from here on a backward pass that was left over is refused
            self.free.append(k)
