"""The readable kernels: formulas on whole arrays, NumPy's or CuPy's, in any precision. The oracle of all others.

`--kernels reference` trains with these.
"""

from collections.abc import Callable, Sequence
from typing import Any

from tinyvae.backend import Array
from tinyvae.kernels.contract import Lookup, Rows, Window
from tinyvae.kernels.domain import check_dtypes, checked_groups, domain
from tinyvae.kernels.ends import backward_end, forward_end
from tinyvae.loop import Loop
from tinyvae.ops import convolution
from tinyvae.ops import groups as _groups
from tinyvae.ops.activations import LINEAR, Activation


class Reference:
    """See `Kernels` for what each method computes."""

    name = "reference"

    def __init__(self, xp: Any, dtype: Any) -> None:
        self.xp, self.dtype = xp, xp.dtype(dtype)
        self.generation = 0
        self.later: list[tuple[Array, Array, Array]] = []  # what `finish` adds

    def begin(self, *key: Any) -> None:
        """Nothing is used again: arrays of the pass before stay what they are."""
        self.generation += 1
        self.later.clear()

    def replayed(self, given: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        """make()."""
        return make()

    def zeros(self, *shape: int) -> Array:
        """A new array."""
        return self.xp.zeros(shape, dtype=self.dtype)

    def new(self, *shape: int) -> Array:
        """An empty array."""
        return self.xp.empty(shape, dtype=self.dtype)

    def halves(self, a: Array) -> tuple[Array, Array]:
        """Two views."""
        width = a.shape[1] // 2
        return a[:, :width], a[:, width:]

    # ------------------------------------------------------------------------------------------------------- formulas

    def map(
        self, loop: Loop, /, *, out: Sequence[Array] | None = None, into: Sequence[Array] | None = None,
        sums: Sequence[Array] | None = None, columns: Sequence[Array] | None = None, **given: Any,
    ) -> Any:  # fmt: skip
        """The formulas on arrays that broadcast, all computed before anything is written: `out` may be the inputs."""
        if into is not None and out is not None:
            raise TypeError("outputs are written (out) or added (into), not both")
        rows, cols, _ = domain(given.values(), out or (), into or (), sums or (), columns or ())
        check_dtypes((*given.values(), *(out or ()), *(into or ()), *(sums or ()), *(columns or ())), self.dtype)
        each, along_rows, over_columns = loop.on_arrays({name: self._as_rows(a, rows) for name, a in given.items()})
        whole = lambda a: self.xp.broadcast_to(self.xp.asarray(a, dtype=self.dtype), (rows, cols))
        summed = [whole(a).sum(axis=1) for a in along_rows], [whole(a).sum(axis=0) for a in over_columns]
        if into is None:
            outputs = self._put([whole(a).copy() for a in each], out)
        else:
            outputs = into
            for target, value in zip(into, each, strict=True):
                target += whole(value).reshape(target.shape[0], -1, cols).sum(axis=1)
        results = [*outputs, *self._put(summed[0], sums), *self._put(summed[1], columns)]
        return results[0] if len(results) == 1 else tuple(results)

    def _as_rows(self, a: Any, rows: int) -> Any:
        if isinstance(a, Lookup):
            a = a.table[a.labels]
        if getattr(a, "ndim", 0) == 2 and 1 < a.shape[0] < rows:
            return self.xp.repeat(a, rows // a.shape[0], axis=0)
        return a

    def _put(self, values: list[Array], targets: Sequence[Array] | None) -> Sequence[Array]:
        if targets is None:
            return values
        for target, value in zip(targets, values, strict=True):
            target[...] = value.reshape(target.shape)
        return targets

    # -------------------------------------------------------------------------------------------------------- products

    def product(self, x: Array, W: Array, b: Array | None, f: Activation, label: Lookup | None = None) -> Rows:
        """The product, then its end."""
        return self._forward_end(x @ W, b, f, label)

    def back(self, da: Array, W: Array, below: Rows) -> Array | None:
        """The product, then the slope below."""
        return None if below.f is None else self.end(da @ W.T, below)

    def end(self, dy: Array, below: Rows) -> Array | None:
        """The slope below."""
        if below.f is None:
            return None
        loop = backward_end(below.f)
        return dy if loop is None else self.map(loop, out=[dy], **_named(loop, dy=dy, y=below.y, a=below.a))

    def _forward_end(self, a: Array, b: Array | None, f: Activation, label: Lookup | None = None) -> Rows:
        loop = forward_end(f, b is not None, label is not None)
        if loop is None:
            return Rows(a, f)
        made = self.map(loop, **_named(loop, a=a, b=b, v=label))
        return Rows(made[1], f, made[0]) if f.reads_a else Rows(made, f)

    def gradient(self, x: Array, da: Array, dW: Array, db: Array | None = None, add: bool = False) -> None:
        """The product, and the sums."""
        if add:
            self.later.append((x, da, dW))
        else:
            dW[...] = x.T @ da
        if db is not None:
            self.column_sums(da, db)

    def column_sums(self, da: Array, db: Array) -> None:
        """Over all rows."""
        db[...] = da.sum(axis=0)

    def scatter(self, labels: Array, da: Array, table: Array) -> None:
        """One-hot rows, transposed, times da."""
        onehot = labels[:, None] == self.xp.arange(table.shape[0])  # (rows / K, classes)
        table[...] = onehot.astype(self.dtype).T @ da.reshape(len(labels), -1, da.shape[1]).sum(axis=1)

    def finish(self) -> None:
        """Add what was put off."""
        for x, da, dW in self.later:
            dW += x.T @ da
        self.later.clear()

    # ---------------------------------------------------------------------------------------------------- convolutions

    def _patches(self, x: Array, w: Window) -> Array:
        images = x.reshape(-1, w.height, w.width, w.channels)
        return convolution.patches(images, w.kernel, w.stride, w.pad).reshape(-1, w.patch)  # (rows places, patch)

    def _fold(self, rows: Array, w: Window) -> Array:
        patches = rows.reshape(-1, w.down, w.across, w.kernel, w.kernel, w.channels)
        return convolution.fold(patches, (w.height, w.width), w.stride, w.pad).reshape(-1, w.image)  # (rows, image)

    def convolve(self, x: Array, W: Array, b: Array | None, f: Activation, window: Window) -> Rows:
        """Patches as the rows of a dense layer."""
        return self.product(self._patches(x, window), W, b, f).reshape(x.shape[0], -1)

    def convolve_back(self, da: Array, W: Array, below: Rows, window: Window) -> Array | None:
        """The patches' gradient, folded."""
        if below.f is None:
            return None
        return self.end(self._fold(da.reshape(-1, W.shape[1]) @ W.T, window), below)

    def spread(self, x: Array, W: Array, b: Array | None, f: Activation, window: Window) -> Rows:
        """Rows of patches, folded."""
        images = self._fold(x.reshape(-1, W.shape[1]) @ W.T, window)  # (rows, image)
        return self._forward_end(images.reshape(-1, window.channels), b, f).reshape(x.shape[0], -1)

    def spread_back(self, da: Array, W: Array, below: Rows, window: Window) -> Array | None:
        """A convolution of da."""
        if below.f is None:
            return None
        dx = self.product(self._patches(da, window), W, None, LINEAR).y  # (rows places, in)
        return self.end(dx.reshape(da.shape[0], -1), below)

    def convolve_gradient(self, image: Array, places: Array, dW: Array, window: Window) -> None:
        """As a dense layer's."""
        dW[...] = self._patches(image, window).T @ places.reshape(-1, dW.shape[1])

    # ---------------------------------------------------------------------------------------------------------- others

    def row_max(self, a: Array) -> Array:
        """(rows, 1)."""
        return a.max(axis=1, keepdims=True)

    def group_max(self, a: Array, groups: tuple[int, ...]) -> Array:
        """(rows, columns)."""
        return _groups.group_max(a, checked_groups(a, groups))

    def group_sum(self, a: Array, groups: tuple[int, ...]) -> Array:
        """(rows, columns)."""
        return _groups.group_sum(a, checked_groups(a, groups))

    def total(self, a: Array) -> Array:
        """(1,)."""
        return a.sum(keepdims=True).reshape(1)

    def gather(self, data: Array, rows: Array, scale: float, x: Array) -> None:
        """Converted on the way."""
        x[...] = self.xp.multiply(data[rows], scale, dtype=x.dtype)

    def squared_norm(self, g: Array) -> Array:
        """(1,)."""
        return self.xp.dot(g, g).reshape(1)


def _named(loop: Loop, **all_of: Any) -> dict[str, Any]:
    return {name: all_of[name] for name in loop.inputs}
