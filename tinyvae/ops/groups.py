"""Groups of neighbouring columns: each number is replaced by the largest, or by the sum, of its group.

    groups = (3, 4, 2): of 9 columns the first three, the next four, the last two

A softmax over each group, and the logarithm of its sum, without overflow: with M the largest of a group,

    logsumexp(a) = M + log sum_j e^(a_j - M)
    d logsumexp / da_i = softmax(a)_i = e^(a_i - M) / sum_j e^(a_j - M)

The sum of a group is its own adjoint: each of its numbers is in each of the sums.
"""

from itertools import accumulate, pairwise
from typing import Any

from tinyvae.backend import Array, array_module

Groups = tuple[int, ...]


def starts(groups: Groups) -> list[int]:
    """The first column of each group, and the number of columns."""
    return [0, *accumulate(groups)]


def group_max(a: Array, groups: Groups) -> Array:
    """The largest of each number's group: (rows, columns) -> (rows, columns)."""
    return _each(a, groups, lambda part: part.max(axis=1, keepdims=True))


def group_sum(a: Array, groups: Groups) -> Array:
    """The sum of each number's group: (rows, columns) -> (rows, columns)."""
    return _each(a, groups, lambda part: part.sum(axis=1, keepdims=True))


def group_sum_backward(dy: Array, groups: Groups) -> Array:
    """da = the sum of dy's group."""
    return group_sum(dy, groups)


def log_sum_exp_forward(a: Array, groups: Groups) -> Array:
    """logsumexp of each number's group: (rows, columns) -> (rows, columns)."""
    largest = group_max(a, groups)
    return largest + array_module(a).log(group_sum(array_module(a).exp(a - largest), groups))


def log_sum_exp_backward(dy: Array, a: Array, groups: Groups) -> Array:
    """da = the sum of dy's group, times softmax(a)."""
    return group_sum(dy, groups) * softmax(a, groups)


def softmax(a: Array, groups: Groups) -> Array:
    """e^a over its sum, of each group: (rows, columns) -> (rows, columns)."""
    e = array_module(a).exp(a - group_max(a, groups))
    return e / group_sum(e, groups)


def _each(a: Array, groups: Groups, of: Any) -> Array:
    xp = array_module(a)
    parts = [a[:, first:end] for first, end in pairwise(starts(groups))]
    return xp.concatenate([xp.broadcast_to(of(part), part.shape) for part in parts], axis=1)
