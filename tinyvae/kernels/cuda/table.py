"""Every kernel of the captured step (`kernels.cu`): its arguments and its blocks. The one place that says so.

The launcher on a GPU, the shim that runs the same kernels on a CPU, and the test that compares signatures all read it.

What the arguments are called, everywhere:
- `rows` is the number of rows of the batch at hand; matrices are row-major, (rows, columns), float32.
- A layer's weight W is (inputs, outputs). Stored as it is, W[k][c] = W[k * ldw + c]; with `transposed` (a tied decoder,
  whose W is V^T) W[k][c] = W[c * ldw + k], V being (outputs, inputs) with rows `ldw` long.
- `activation` is an index into ACTIVATION_NAMES.
- `state` holds three words on the device: the number of the batch in the epoch, and the two words of the epoch's key.
- `schedule` (updates of the epoch, 4) holds beta, Adam's step size, Adam's epsilon, 1 / rows, for each batch:
  the step size and epsilon with the bias corrections folded in (`adam.step_and_epsilon`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tinyvae.ops.activations import ACTIVATIONS

CAPTURED = {a.captured: a.name for a in ACTIVATIONS.values() if a.captured is not None}
ACTIVATION_NAMES = tuple(name for _, name in sorted(CAPTURED.items()))  # the order in kernels.cu

THREADS = 256  # in every block
TILE = 32  # a block makes TILE x TILE numbers of a matrix product
PAIR = TILE // 2  # or TILE x PAIR pairs of numbers (mu and logvar, mean and logvar)
STATE_WORDS = 3  # batch, key[0], key[1]
SCHEDULE_COLUMNS = 4  # beta, step size, epsilon, 1 / rows
EPS_STREAM, UNIFORM_STREAM = 0, 1  # which noise: a word of Philox's counter

Args = Mapping[str, object]
Grid = Callable[[Mapping[str, int]], tuple[int, int]]  # (x, y) blocks, from the whole-number arguments


def tiles(n: int, width: int = TILE) -> int:
    """How many tiles cover n."""
    return -(-n // width)


@dataclass(frozen=True)
class Kernel:
    """`signature` is the text between the parentheses in kernels.cu, `grid` the number of blocks."""

    signature: str
    grid: Grid

    @property
    def arguments(self) -> list[tuple[str, str]]:
        """(type, name) of each argument, as in ("const float*", "x")."""
        pairs = [argument.strip().rpartition(" ") for argument in self.signature.split(",")]
        return [(kind, name) for kind, _, name in pairs]


def _product(columns: str, width: int = TILE) -> Grid:
    """One block for each tile of a (rows, columns) result."""
    return lambda a: (tiles(a[columns], width), tiles(a["rows"]))


def _each_row(a: Mapping[str, int]) -> tuple[int, int]:
    return (a["rows"], 1)


_WEIGHT = "const float* W, int ldw, int transposed"

KERNELS: dict[str, Kernel] = {
    # ------------------------------------------------------------------------------------- the captured training step
    # x = data[order[batch * capacity + i]] * scale; with dynamic, 1 or 0 drawn with x as the probability
    "gather_bytes": Kernel(
        "const unsigned char* data, const int* order, const unsigned* state, float* x, "
        "int rows, int capacity, int columns, float scale, int dynamic",
        _each_row,
    ),
    "gather_floats": Kernel(
        "const float* data, const int* order, const unsigned* state, float* x, "
        "int rows, int capacity, int columns, float scale, int dynamic",
        _each_row,
    ),
    # y = f(x W + b)
    "layer_forward": Kernel(
        f"const float* x, {_WEIGHT}, const float* b, float* y, int rows, int inputs, int outputs, int activation",
        _product("outputs"),
    ),
    # head = x W + b, (rows, 2 latent): mu, logvar; eps ~ N(0, 1); z = mu + e^(logvar / 2) eps; kl of each number
    "head_forward": Kernel(
        "const float* x, const float* W, const float* b, const unsigned* state, "
        "float* head, float* eps, float* z, float* kl, int rows, int inputs, int latent",
        _product("latent", PAIR),
    ),
    # logits = x W + b; dlogits = (sigmoid(logits) - target) / rows; nll_parts[row][tile] = the tile's part of the nll
    "output_bernoulli": Kernel(
        f"const float* x, {_WEIGHT}, const float* b, const float* target, "
        "float* doutput, float* nll_parts, int rows, int inputs, int outputs",
        _product("outputs"),
    ),
    # mean = x W + b, one logvar for all outputs; doutput = dmean; dlogvar_parts[row][tile] = the tile's part of dlogvar
    "output_gaussian": Kernel(
        f"const float* x, {_WEIGHT}, const float* b, const float* target, const float* logvar, "
        "float* doutput, float* nll_parts, float* dlogvar_parts, int rows, int inputs, int outputs",
        _product("outputs"),
    ),
    # (mean, logvar) = x W + b, (rows, 2 outputs); doutput (rows, 2 outputs) = dmean, dlogvar; W is never transposed
    "output_gaussian_predicted": Kernel(
        "const float* x, const float* W, const float* b, const float* target, "
        "float* doutput, float* nll_parts, int rows, int inputs, int outputs",
        _product("outputs", PAIR),
    ),
    # dx = (dy W^T) f'(a) of the layer below, from its output y (rows, inputs); W (inputs, outputs), dy (rows, outputs)
    "layer_backward": Kernel(
        f"const float* dy, {_WEIGHT}, const float* y, float* dx, int rows, int inputs, int outputs, int activation",
        _product("inputs"),
    ),
    # dz = dy W^T, then dhead (rows, 2 latent) from z and from the KL, with free bits; beta and 1 / rows from schedule
    "latent_backward": Kernel(
        f"const float* dy, {_WEIGHT}, const float* head, const float* eps, const float* kl, const unsigned* state, "
        "const float* schedule, float* dhead, int rows, int latent, int outputs, float free_bits",
        _product("latent"),
    ),
    # for every layer in `groups` (see GROUP): dW = x^T dy, db = column sums, then Adam; g, unless null, gets them too
    "weights_and_adam": Kernel(
        "const long long* groups, int group_count, int block_count, float* p, float* m, float* v, float* g, "
        "const unsigned* state, const float* schedule, int rows",
        lambda a: (a["block_count"], 1),
    ),
    # ring[batch] = (loss, nll, kl), means over the rows; Adam on the shared logvar unless it is null; then batch += 1
    "finish_step": Kernel(
        "const float* nll_parts, int part_count, const float* kl, const float* schedule, float free_bits, float* ring, "
        "unsigned* state, const float* dlogvar_parts, float* logvar, float* logvar_m, float* logvar_v, "
        "float* logvar_g, int rows, int latent",
        lambda a: (1, 1),
    ),
}

# A row of `groups`: what one tensor (or a weight and the bias behind it) is made of. Pointers as whole numbers.
#   dW[k][c] = sum_i x[i][k] dy[i][c]  +  sum_i x2[i][k] dy2[i][c]  (the second only where c < columns2; x2 may be 0)
#   the row k = inputs is the bias: its x is 1 (only if has_bias); a bias alone has inputs = 0
GROUP = (
    "offset",  # of W in the flat buffer; W is (inputs, outputs), the bias follows it at once
    "inputs", "outputs", "has_bias",
    "x", "ldx", "dy", "lddy",  # x (rows, inputs), dy (rows, outputs), with the lengths of their rows
    "x2", "ldx2", "dy2", "lddy2", "columns2",  # a tied decoder's: x2 is its dy, dy2 its x (rows, columns2)
    "first_block",  # of this group in the grid; a block makes a tile of TILE x TILE, tiles row by row
)  # fmt: skip


def group_blocks(inputs: int, outputs: int, has_bias: int) -> int:
    """How many blocks a group takes."""
    return tiles(inputs + has_bias) * tiles(outputs)
