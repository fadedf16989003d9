"""What a pass through a model is made of: one contract for all kernels. `reference.py` is the oracle of the others.

    product, back, gradient       a dense layer: y = f(x W + b), da_below = (da W^T) f'(below), dW = x^T da
    convolve, spread, ...         a convolution and its adjoint, with the same ends
    map                           formulas over a matrix, with sums along rows and over columns: see `tinyvae.loop`
    row_max, group_sum, ...       what is no formula

Matrices are (rows, columns). What flows between layers are `Rows`: numbers y, and the activation that made them. A
layer is handed the gradient before its own activation and makes that of the layer below; so the slope below goes into
the end of its product, and no layer asks what its neighbour is.

Results are the kernels' arrays (or CuPy's, in the reference). They are good until `begin` is called again: whoever
keeps one copies it.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from tinyvae.backend import Array
from tinyvae.loop import Loop
from tinyvae.ops.activations import Activation
from tinyvae.ops.convolution import output_size


class Rows(NamedTuple):
    """y = f(a), (rows, columns). f None: data, whose gradient nobody asks for. `a` where the slope of f reads it."""

    y: Array
    f: Activation | None
    a: Array | None = None

    def reshape(self, *shape: int) -> "Rows":
        """The same numbers in another shape."""
        return Rows(self.y.reshape(*shape), self.f, None if self.a is None else self.a.reshape(*shape))


class Lookup(NamedTuple):
    """A matrix whose row i is table[labels[i // K]], where K rows in a row share a label."""

    table: Array  # (classes, columns)
    labels: Array  # (rows / K,)


class Window(NamedTuple):
    """A convolution's geometry: images (height, width, channels), and the square window that slides over them."""

    height: int
    width: int
    channels: int
    kernel: int
    stride: int
    pad: int

    @property
    def down(self) -> int:
        """Places of the window from top to bottom."""
        return output_size(self.height, self.kernel, self.stride, self.pad)

    @property
    def across(self) -> int:
        """Places of the window from left to right."""
        return output_size(self.width, self.kernel, self.stride, self.pad)

    @property
    def image(self) -> int:
        """Numbers in an image."""
        return self.height * self.width * self.channels

    @property
    def patch(self) -> int:
        """Numbers under the window."""
        return self.kernel * self.kernel * self.channels


def kept(k: "Kernels", a: Array) -> Array:
    """A copy in the kernels' own memory: in each pass the same array, so that what reads it is prepared once."""
    copy = k.new(*a.shape)
    copy[...] = a
    return copy


class Kernels(Protocol):
    """The contract. Arrays are of the kernels' dtype; labels are whole numbers, rows of their table (nobody looks).

    What forward has read stays as it is until backward has read it.
    """

    name: str
    xp: Any  # the array module, for array code
    dtype: Any

    def begin(self, *key: Any) -> None:
        """A pass begins; arrays of the one before are free. Passes of one key make the same calls on like shapes."""

    @property
    def generation(self) -> int:
        """How often `begin` was called."""
        ...

    def replayed(self, given: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        """make(), or the very calls that it made before with the same objects `given`, without asking it again.

        It stands once in a pass, before it at most `new`. `make` computes by these kernels alone, and which calls it
        makes depends on nothing but what is given, whose arrays may hold other numbers each time.
        """

    def zeros(self, *shape: int) -> Array:
        """An array of zeros, to add into."""
        ...

    def new(self, *shape: int) -> Array:
        """An array for array code to write into."""
        ...

    def halves(self, a: Array) -> tuple[Array, Array]:
        """The left and the right half of the columns: views."""
        ...

    def map(
        self, loop: Loop, /, *, out: Sequence[Array] | None = None, into: Sequence[Array] | None = None,
        sums: Sequence[Array] | None = None, columns: Sequence[Array] | None = None, **given: Any,
    ) -> Any:  # fmt: skip
        """Run the loop over (rows, columns) -> its outputs (rows, columns), row sums (rows,), column sums (columns,).

        An input is a matrix (rows, columns), a `Lookup`, a row (columns,) for all, a number for each row (rows, 1), or
        one number: a float, or (1,). A matrix of rows / K rows serves K rows each. Results go into new arrays, or into
        those given; `out` may be the inputs themselves, the others may not. `into`: outputs are added there, those of K
        rows to one where it has rows / K rows. One result comes back as it is, several as a tuple.
        Raises ValueError for shapes that do not fit together, TypeError for another dtype.
        """

    def product(self, x: Array, W: Array, b: Array | None, f: Activation, label: Lookup | None = None) -> Rows:
        """y = f(x W + b + label's row).  x (rows, in), W (in, out), b (out,) -> y (rows, out)."""
        ...

    def back(self, da: Array, W: Array, below: Rows) -> Array | None:
        """The gradient before the activation below: (da W^T) f'(below), or None if below is data.

        da (rows, out), W (in, out) -> (rows, in).
        """
        ...

    def end(self, dy: Array, below: Rows) -> Array | None:
        """The gradient before the activation below, in place of dy (as below.y): for layers that end in no product."""
        ...

    def gradient(self, x: Array, da: Array, dW: Array, db: Array | None = None, add: bool = False) -> None:
        """dW = x^T da, db = column sums of da.  x (rows, in), da (rows, out).

        add: dW gains x^T da once the pass is over, and its owner has written its own part: for shared weights.
        """

    def column_sums(self, da: Array, db: Array) -> None:
        """db = column sums of da."""

    def scatter(self, labels: Array, da: Array, table: Array) -> None:
        """table[c] = sum of da's rows with label c, (classes, out): the gradient of a `Lookup`."""

    def convolve(self, x: Array, W: Array, b: Array | None, f: Activation, window: Window) -> Rows:
        """y = f(patches(x) W + b).  x (rows, image), W (patch, out) -> (rows, places out)."""
        ...

    def convolve_back(self, da: Array, W: Array, below: Rows, window: Window) -> Array | None:
        """fold(da W^T) f'(below): da (rows, places out) -> (rows, image); None if below is data."""
        ...

    def spread(self, x: Array, W: Array, b: Array | None, f: Activation, window: Window) -> Rows:
        """y = f(fold(x W^T) + b), the adjoint.  x (rows, places in), W (patch, in), b (channels,) -> (rows, image)."""
        ...

    def spread_back(self, da: Array, W: Array, below: Rows, window: Window) -> Array | None:
        """(patches(da) W) f'(below): da (rows, image) -> (rows, places in); None if below is data."""
        ...

    def convolve_gradient(self, image: Array, places: Array, dW: Array, window: Window) -> None:
        """dW = sum of patches(image)^T places.  image (rows, image), places (rows, places out), dW (patch, out)."""

    def row_max(self, a: Array) -> Array:
        """The largest of each row: (rows, columns) -> (rows, 1)."""
        ...

    def group_max(self, a: Array, groups: tuple[int, ...]) -> Array:
        """The largest of each number's group of neighbouring columns: (rows, columns) -> (rows, columns).

        groups: how many columns each has, together all of them.
        """
        ...

    def group_sum(self, a: Array, groups: tuple[int, ...]) -> Array:
        """The sum of each number's group: (rows, columns) -> (rows, columns)."""
        ...

    def total(self, a: Array) -> Array:
        """The sum of all numbers: (1,)."""
        ...

    def gather(self, data: Array, rows: Array, scale: float, x: Array) -> None:
        """x = data[rows] scale, in x's precision: a batch of pixels kept as bytes, as real numbers.

        data (all rows, columns), rows (n,) -> x (n, columns).
        """

    def squared_norm(self, g: Array) -> Array:
        """The sum of squares of a flat array: (1,)."""
        ...

    def finish(self) -> None:
        """The end of a backward pass: what `gradient` was told to add is added."""
