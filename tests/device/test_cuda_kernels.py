"""Every kernel of the captured training step, on the CPU, against float64 NumPy: odd shapes, two orders of the threads.

The checks are in cuda_on_cpu/checks.py; here they meet their shapes. Products in float32 and, emulated, in TF32.
"""

import numpy as np
import pytest
from cuda_on_cpu import checks, philox
from cuda_on_cpu.running import compiled
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import SEEDS

from tinyvae.kernels.cuda.table import ACTIVATION_NAMES, EPS_STREAM, UNIFORM_STREAM

SIZE = st.sampled_from((1, 2, 7, 16, 17, 31, 32, 33, 64, 65))
DEEP = st.one_of(SIZE, st.sampled_from((127, 128, 129, 255, 256, 257)))  # what is summed over
ACTIVATION = st.sampled_from(ACTIVATION_NAMES)
FLAG = st.integers(0, 1)
PADDING = st.sampled_from((0, 1, 5))
BATCH = st.integers(0, checks.UPDATES - 1)
both_precisions = pytest.mark.parametrize("macros", [(), ("TF32",)], ids=["float32", "tf32"])


def rng_of(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@both_precisions
@given(SEEDS, SIZE, DEEP, SIZE)
@example(0, 1, 1, 1)
@example(1, 65, 257, 33)
def test_products_round_as_often_as_they_have_terms(
    macros: tuple[str, ...], seed: int, rows: int, inputs: int, outputs: int
) -> None:
    checks.check_rounding(compiled(*macros), rng_of(seed), rows, inputs, outputs)


@both_precisions
@given(SEEDS, SIZE, DEEP, SIZE, ACTIVATION, FLAG, PADDING)
@example(0, 33, 257, 65, "linear", 0, 0)
@example(0, 33, 257, 65, "linear", 1, 3)
def test_layer_forward(
    macros: tuple[str, ...], seed: int, rows: int, inputs: int, outputs: int, activation: str, transposed: int,
    padding: int,
) -> None:  # fmt: skip
    checks.check_layer_forward(compiled(*macros), rng_of(seed), rows, inputs, outputs, activation, transposed, padding)


@both_precisions
@given(SEEDS, SIZE, SIZE, DEEP, ACTIVATION, FLAG, PADDING)
@example(0, 33, 65, 257, "linear", 0, 0)
@example(0, 33, 65, 257, "linear", 1, 3)
def test_layer_backward(
    macros: tuple[str, ...], seed: int, rows: int, inputs: int, outputs: int, activation: str, transposed: int,
    padding: int,
) -> None:  # fmt: skip
    checks.check_layer_backward(compiled(*macros), rng_of(seed), rows, inputs, outputs, activation, transposed, padding)


@both_precisions
@given(SEEDS, SIZE, SIZE, SIZE, BATCH)
@example(0, 33, 40, 17, 0)
def test_head_forward(macros: tuple[str, ...], seed: int, rows: int, inputs: int, latent: int, batch: int) -> None:
    checks.check_head_forward(compiled(*macros), rng_of(seed), rows, inputs, latent, batch)


@both_precisions
@pytest.mark.parametrize("check", [checks.check_output_bernoulli, checks.check_output_gaussian])
@given(SEEDS, SIZE, SIZE, SIZE, FLAG, PADDING)
@example(0, 33, 40, 65, 1, 1)
def test_outputs(
    check: "checks.Check", macros: tuple[str, ...], seed: int, rows: int, inputs: int, outputs: int, transposed: int,
    padding: int,
) -> None:  # fmt: skip
    check(compiled(*macros), rng_of(seed), rows, inputs, outputs, transposed, padding)


@both_precisions
@given(SEEDS, SIZE, SIZE, SIZE)
@example(0, 33, 40, 33)
def test_output_gaussian_predicted(macros: tuple[str, ...], seed: int, rows: int, inputs: int, outputs: int) -> None:
    checks.check_output_gaussian_predicted(compiled(*macros), rng_of(seed), rows, inputs, outputs)


@both_precisions
@given(SEEDS, SIZE, SIZE, SIZE, st.sampled_from((0.0, 0.25, 0.5)), FLAG, PADDING, BATCH)
@example(0, 33, 33, 40, 0.5, 0, 0, 1)
@example(0, 2, 40, 33, 0.5, 1, 2, 0)  # with two rows, some means are exactly the allowance
def test_latent_backward(
    macros: tuple[str, ...], seed: int, rows: int, latent: int, outputs: int, free_bits: float, transposed: int,
    padding: int, batch: int,
) -> None:  # fmt: skip
    checks.check_latent_backward(
        compiled(*macros), rng_of(seed), rows, latent, outputs, free_bits, transposed, padding, batch
    )


@st.composite
def layers(draw: st.DrawFn) -> list[checks.Layer]:
    """Up to four groups: weights with and without their bias, biases alone, tied weights."""
    result = []
    for _ in range(draw(st.integers(1, 4))):
        kind, outputs = draw(st.sampled_from(("dense", "dense", "bias", "tied"))), draw(SIZE)
        inputs = 0 if kind == "bias" else draw(SIZE)
        columns2 = draw(st.integers(1, outputs)) if kind == "tied" else 0
        result.append((inputs, outputs, 1 if kind == "bias" else draw(FLAG), columns2))
    return result


@both_precisions
@given(SEEDS, DEEP, layers(), st.booleans(), BATCH)
@example(0, 65, [(32, 33, 1, 0), (0, 65, 1, 0), (31, 32, 1, 7), (33, 40, 1, 40)], True, 1)
@example(0, 1, [(1, 1, 1, 0)] * 5, True, 0)
@example(0, 1, [(0, 1, 1, 0)] * 300, False, 0)  # more groups than a block has threads
def test_weights_and_adam(
    macros: tuple[str, ...], seed: int, rows: int, groups: list[checks.Layer], with_g: bool, batch: int
) -> None:
    checks.check_weights_and_adam(compiled(*macros), rng_of(seed), rows, groups, with_g, batch)


@given(SEEDS, DEEP, SIZE, st.integers(1, 9), st.sampled_from((0.0, 0.5, 0.9)), st.booleans(), st.booleans(), BATCH)
def test_finish_step(
    seed: int, rows: int, latent: int, part_count: int, free_bits: float, learned: bool, with_g: bool, batch: int
) -> None:
    checks.check_finish_step(compiled(), rng_of(seed), rows, latent, part_count, free_bits, learned, with_g, batch)


@pytest.mark.parametrize("kind", ["bytes", "floats"])
@given(SEEDS, SIZE, DEEP, FLAG, BATCH)
@example(0, 3, 600, 1, 2)
def test_gather(kind: str, seed: int, rows: int, columns: int, dynamic: int, batch: int) -> None:
    checks.check_gather(compiled(), rng_of(seed), kind, rows, columns, dynamic, batch)


def test_every_kernel_of_the_step_has_a_check() -> None:
    kernels = list(checks.KERNELS)
    assert {"gather_bytes", "gather_floats"} | checks.ALL_CHECKED >= set(kernels[: kernels.index("finish_step") + 1])


# ---------------------------------------------------------------------------------------------------------------- noise


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_gives_the_published_words(counter: str, key: str, words: str) -> None:
    """kat_vectors of Random123. The kernels are compared with this NumPy version, word by word (test_gather)."""
    numbers, key_numbers = ([int(word, 16) for word in text.split()] for text in (counter, key))
    result = philox.philox(np.array([numbers], np.uint32), (key_numbers[0], key_numbers[1]))
    assert " ".join(f"{word:08x}" for word in result[0]) == words


def drawn(state: list[int], rows: int = 250, latent: int = 40) -> np.ndarray:
    """The noise of head_forward."""
    zeros, shape = np.zeros((latent, 2 * latent), np.float32), (rows, latent)
    arguments = {"x": np.zeros(shape, np.float32), "W": zeros, "b": zeros[0], "state": np.array(state, np.uint32)}
    outputs = {"head": (rows, 2 * latent), "eps": shape, "z": shape, "kl": shape}
    return compiled().run(
        "head_forward", {**arguments, "rows": rows, "inputs": latent, "latent": latent}, outputs
    )["eps"].ravel()  # fmt: skip


def test_noise_is_new_in_another_batch_and_with_another_key() -> None:
    """10,000 numbers: the correlation of independent ones has the standard deviation 0.01."""
    noises = [drawn(state) for state in ([0, 1, 2], [1, 1, 2], [0, 2, 2], [0, 1, 3])]
    correlations = np.corrcoef(noises) - np.eye(4)
    assert np.abs(correlations).max() < 0.05
    assert np.array_equal(drawn([0, 1, 2]), noises[0])


def test_the_two_streams_differ() -> None:
    state = np.array([5, 6, 7], np.uint32)
    assert np.mean(philox.words(state, EPS_STREAM, 4000) == philox.words(state, UNIFORM_STREAM, 4000)) < 0.01


def test_the_noise_is_normal() -> None:
    """Each moment within 5 of its standard deviations over 10,000 numbers."""
    eps = drawn([3, 123456789, 987654321]).astype(np.float64)
    deviation = 5 / np.sqrt(eps.size)
    assert abs(eps.mean()) < deviation  # variance 1
    assert abs((eps**2).mean() - 1) < np.sqrt(2) * deviation
    assert abs((eps**3).mean()) < np.sqrt(15) * deviation
    assert abs((eps**4).mean() - 3) < np.sqrt(96) * deviation
    assert abs((eps[0::2] * eps[1::2]).mean()) < np.sqrt(2) * deviation  # the two of a pair


def test_the_extreme_words_make_finite_noise() -> None:
    """above_zero(word) in float32, at the ends and around 2^24, where whole numbers stop being exact."""
    word = np.array([0, 1, 2**24 - 1, 2**24, 2**24 + 1, 2**32 - 129, 2**32 - 128, 2**32 - 1], np.uint32)
    u = (word.astype(np.float32) + np.float32(0.5)) * np.float32(2.3283064365386963e-10)
    assert u[0] == 2.0**-33
    assert u[-1] == 1
    assert np.all(np.diff(u) >= 0)
    assert np.all(np.isfinite(np.sqrt(-2 * np.log(u))))
