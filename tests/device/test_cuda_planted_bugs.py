"""Proof of teeth: bugs planted in the captured step's kernels one by one, each with the check that must fail under it.

A bug is a replacement in the text that fits exactly once. What only reads out of bounds is for test_cuda_sanitizer.py.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from cuda_on_cpu import checks
from cuda_on_cpu.running import Kernels, compiled, compiled_from
from cuda_on_cpu.shim import SOURCE
from strategies import sampled


@dataclass(frozen=True)
class Bug:
    name: str
    old: str
    new: str
    check: Callable[[Kernels], None]
    macros: tuple[str, ...] = ()


def of(check: checks.Check, *arguments: object, **named: object) -> Callable[[Kernels], None]:
    return lambda k: check(k, np.random.default_rng(0), *arguments, **named)


forward = of(checks.check_layer_forward, 33, 70, 35)
transposed = of(checks.check_layer_forward, 33, 70, 35, "tanh", 1, 3)
backward = of(checks.check_layer_backward, 33, 35, 70, "tanh", 0, 3)
head = of(checks.check_head_forward, 33, 40, 17, 2)
bernoulli = of(checks.check_output_bernoulli, 33, 40, 35)
gaussian = of(checks.check_output_gaussian, 33, 40, 35)
predicted = of(checks.check_output_gaussian_predicted, 33, 40, 35)
latent = of(checks.check_latent_backward, 33, 35, 40, batch=1)
free_bits = of(checks.check_latent_backward, 33, 35, 40, free_bits=0.5)
ties = of(checks.check_latent_backward, 2, 40, 33, free_bits=0.5)
weights = of(checks.check_weights_and_adam, 35, [(33, 40, 1, 0), (0, 33, 1, 0), (31, 35, 1, 7)], batch=1)
finish = of(checks.check_finish_step, 70, 35, 9, 0.9, learned=True, batch=2)
binarized = of(checks.check_gather, "bytes", 5, 300, dynamic=1, batch=2)

BUGS = [
    Bug("no barrier before a chunk is read", "__syncthreads();\n        if (first_k + TILE < depth)",
        "if (first_k + TILE < depth)", forward),
    Bug("no barrier before a chunk is overwritten",
        "__syncthreads();  // everybody has read the chunk: the next one may overwrite it", "", forward),
    Bug("no barrier before the groups are added", "= sums[n];\n    __syncthreads();", "= sums[n];", forward),
    Bug("no barrier before the tile is read", "= sum;\n    }\n    __syncthreads();", "= sum;\n    }", head),
    Bug("no barrier before the tile is read, tf32", "= sums[3];\n    __syncthreads();", "= sums[3];", forward,
        ("TF32",)),
    Bug("no barrier in the sum of a block", "parts[threadIdx.x / WARP] = a;\n    __syncthreads();",
        "parts[threadIdx.x / WARP] = a;", finish),
    Bug("no barrier after the sum of a block", "__syncthreads();  // everybody has read the parts", "//", finish),
    Bug("a barrier for the first half of the block", "    for (int warp = 0; warp < THREADS / WARP; warp++)",
        "    if (threadIdx.x < 128) __syncthreads();\n    for (int warp = 0; warp < THREADS / WARP; warp++)", finish),
    Bug("the prefetch is one chunk late", "left_fetcher.fetch(first_k + TILE);", "left_fetcher.fetch(first_k);",
        forward),
    Bug("the last group of k is left out", "for (int g = 0; g < GROUPS; g++)", "for (int g = 0; g < GROUPS - 1; g++)",
        forward),
    Bug("a group takes seven k", "k < 8; k++", "k < 7; k++", forward),
    Bug("two rows are swapped", "b[4] = {r.x, r.y, r.z, r.w}", "b[4] = {r.x, r.z, r.y, r.w}", forward),
    Bug("the tail is not zero", "bool holds(int i, int k) const { return i < n && k < depth; }",
        "bool holds(int i, int) const { return i < n; }", of(checks.check_layer_forward, 33, 70, 35, "linear", 0, 1)),
    Bug("the last column is not written", "row < rows && column < outputs)\n            y[",
        "row < rows && column < outputs - 1)\n            y[", forward),
    Bug("rows beyond the last are written", "if (row < rows && column < outputs)\n            y[",
        "if (column < outputs)\n            y[", forward),
    Bug("a tied weight is read as if it were not", "return transposed ? rows_of(W, ldw, outputs, inputs)",
        "return transposed ? rows_of(W, inputs, outputs, inputs)", transposed),
    Bug("the backward takes W for its transpose", "return transposed ? columns_of(W, ldw, inputs, outputs)",
        "return !transposed ? columns_of(W, ldw, inputs, outputs)", backward),
    Bug("tf32: two registers of a are swapped", "mma_m16n8k8_tf32(sums, a, b);",
        "unsigned c[4] = {a[0], a[2], a[1], a[3]};\n        mma_m16n8k8_tf32(sums, c, b);", forward,
        ("TF32",)),
    Bug("tf32: a piece is in the wrong place", "j = warp % 4 * 8 + 2 * member;", "j = warp % 4 * 8 + member;", forward,
        ("TF32",)),
    Bug("the pair's second half is the first", "line + (i < PAIR ? 0 : distance)", "line", head),
    Bug("the noise is the same in every batch", "element / 4, state[0], stream, 0", "element / 4, 0, stream, 0", head),
    Bug("nine rounds", "round < 10", "round < 9", binarized),
    Bug("the streams are one", "EPS_STREAM = 0, UNIFORM_STREAM = 1", "EPS_STREAM = 0, UNIFORM_STREAM = 0", binarized),
    Bug("the two of a pair of normal numbers are swapped", "element % 2 == 0 ? cospif", "element % 2 == 1 ? cospif",
        head),
    Bug("the noise is scaled by the variance", "mu + expf(0.5f * logvar) * eps", "mu + expf(logvar) * eps", head),
    Bug("the batch's place is forgotten", "order[(long long)state[0] * capacity + row]", "order[row]", binarized),
    Bug("the gradient is not divided by the rows", "bernoulli_dlogit(logit, target[element]) / rows",
        "bernoulli_dlogit(logit, target[element])", bernoulli),
    Bug("a row's loss is the first lane's", "nll = lanes_sum(nll);\n        if (row < rows && n % TILE == 0) nll_parts",
        "lanes_sum(nll);\n        if (row < rows && n % TILE == 0) nll_parts", bernoulli),
    Bug("the wrong sign of dmean", "return (mean - x) * expf(-logvar)", "return (x - mean) * expf(-logvar)", gaussian),
    Bug("log 2 pi is forgotten", "expf(-logvar) + logvar + LOG_2PI", "expf(-logvar) + logvar", predicted),
    Bug("two rows of pairs are added up", "lanes_sum(nll, PAIR)", "lanes_sum(nll)", predicted),
    Bug("beta is forgotten", "schedule[0] * schedule[3]", "schedule[3]", free_bits),
    Bug("free bits are charged at the allowance", "/ rows > free_bits", "/ rows >= free_bits", ties),
    Bug("the schedule's first line, always", "float* dhead, int rows, int latent, int outputs, float free_bits) {\n"
        "    __shared__ Workspace work;\n    __shared__ float dkl[TILE];  // of each of the tile's dimensions\n"
        "    int first_row = blockIdx.y * TILE, first_column = blockIdx.x * TILE;\n"
        "    schedule += state[0] * SCHEDULE_COLUMNS;",
        "float* dhead, int rows, int latent, int outputs, float free_bits) {\n"
        "    __shared__ Workspace work;\n    __shared__ float dkl[TILE];  // of each of the tile's dimensions\n"
        "    int first_row = blockIdx.y * TILE, first_column = blockIdx.x * TILE;", latent),
    Bug("the bias row is dropped", "return k < matrix.depth ? 1 : 0;", "return 0;", weights),
    Bug("a tied bias counts twice", "lines(x2, first_row)", "lines(x2, first_row, has_bias)",
        weights),
    Bug("a tied share in all columns", "group[LDDY2], group[COLUMNS2], rows)", "group[LDDY2], outputs, rows)", weights),
    Bug("a block takes the next group", "<= blockIdx.x);", "<= blockIdx.x + 1);", weights),
    Bug("Adam: 1 - beta2 in float32", "float(1 - BETA2) * (g * g - v)", "(1 - float(BETA2)) * (g * g - v)", weights),
    Bug("Adam: epsilon within the root", "(sqrtf(v) + epsilon)", "sqrtf(v + epsilon)", weights),
    Bug("the next batch's number is not written", "state[0] = batch + 1;", "", finish),
    Bug("the largest of KL and allowance, reversed", "mean < free_bits ? free_bits : mean", "mean < free_bits ? mean : "
        "free_bits", finish),
]  # fmt: skip


def test_the_table_names_each_bug_once() -> None:
    assert len({bug.name for bug in BUGS}) == len(BUGS)


@pytest.mark.parametrize("bug", sampled(BUGS, 3), ids=lambda bug: bug.name)
def test_the_check_fails_under_the_bug_and_passes_without(bug: Bug) -> None:
    assert SOURCE.count(bug.old) == 1
    bug.check(compiled(*bug.macros))
    wrong = compiled_from(SOURCE.replace(bug.old, bug.new), *bug.macros)
    with pytest.raises((AssertionError, RuntimeError)) as failure:
        bug.check(wrong)
    assert isinstance(failure.value, AssertionError) or "divergent barrier" in str(failure.value)
