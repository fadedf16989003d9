"""Loops, moves and whole models, for AddressSanitizer (test_cuda_sanitizer.py runs this).

    python -m cuda_on_cpu.sanitized_loops FORM,... OLD NEW

of loops of these forms, or of everything with FORM "all"; with NEW in the place of OLD in each source. The library is
there already, made by `build_all` outside of the sanitizer.
"""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import fake_cuda
from cuda_on_cpu import loops, models, shim
from fake_cupy import FakeCupy, installed

from tinyvae.kernels.contract import Window

MODELS = ("conv, batch norm, labels", "iwae 3, gaussian, sigma predicted", "tied, deep, gaussian")
SHAPES = ((1, 1, 1), (3, 31, 3), (33, 33, 1), (12, 257, 3))


@contextlib.contextmanager
def stand_in(old: str, new: str) -> Iterator[FakeCupy]:
    """CuPy's, which replaces a part of each source."""
    with installed() as fake:
        fake.RawModule = lambda *, code, options: fake_cuda.RawModule(code=code.replace(old, new), options=options)
        yield fake


def every_check(fake: FakeCupy, forms: tuple[str, ...], tell: bool = True) -> None:
    """Arrays are of exactly the size that the kernels may touch: without guards. tell: results are compared."""
    loops.GUARD = 0
    k, all_forms = loops.Guarded(fake), forms == ("all",)
    wrong = contextlib.nullcontext() if tell else contextlib.suppress(AssertionError)
    for form, kinds in loops.CASES:
        for rows, cols, K in SHAPES if all_forms or form in forms else ():
            with wrong:
                loops.check_loop(k, form, kinds, rows, cols, K, seed=0)
    if not all_forms:
        return
    with wrong:
        loops.check_window(k, Window(9, 8, 2, 4, 2, 1), 2, seed=0)
    for rows, cols in ((1, 1), (33, 31)):
        with wrong:
            loops.check_scatter(k, rows, 3, 4, "i8", seed=0)
        with wrong:
            loops.check_sums(k, rows, cols, seed=0)
        for stored in ("u1", "f4"):
            with wrong:
                loops.check_gather(k, rows, cols, stored, seed=0)
    for name in MODELS:
        case = models.cases()[name]
        model = models.built(case, backend="cupy")
        models.step(model, case, models.moved(model, models.inputs(model, case, 5, seed=0)))


def build_all(forms: tuple[str, ...], old: str, new: str) -> Path:
    """The library of all kernels that the checks launch."""
    with stand_in(old, new) as fake, fake_cuda.noting() as codes:
        every_check(fake, forms, tell=False)
    return shim.build(*dict.fromkeys(codes), sanitize=True, optimize="-O0")


if __name__ == "__main__":
    forms, old, new = tuple(sys.argv[1].split(",")), *sys.argv[2:]
    with stand_in(old, new) as fake:
        with fake_cuda.noting() as codes:
            every_check(fake, forms, tell=False)
        fake_cuda.compile_together(codes, sanitize=True, optimize="-O0")
        every_check(fake, forms)
    print("checked")
