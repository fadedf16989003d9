"""Imports only go down, CuPy has one door and no autodiff framework any, and all that is public says what it is."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import tinyvae

PACKAGE = Path(tinyvae.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
# From the top. A floor may import itself and what stands below it.
FLOORS = (
    "commands", "sklearn", "recipes", "exercises", "uses", "training", "checking", "model", "kernels", "ops", "backend",
    "blas", "errors",
)  # fmt: skip
FLOOR_OF_FILE = {"__init__.py": "commands", "__main__.py": "commands", "train.py": "commands"}
FRAMEWORKS = {"torch", "jax", "jaxlib", "flax", "tensorflow", "keras", "autograd", "mxnet", "tinygrad", "theano"}


def name_of(file: Path) -> str:
    return file.relative_to(PACKAGE).as_posix()


EACH_FILE = pytest.mark.parametrize("file", FILES, ids=name_of)


def floor_of(module: str) -> str | None:
    """The floor of "tinyvae.model.vae" is "model"; of the package itself, which re-exports from all floors, the top."""
    parts = module.split(".")
    if parts[0] != "tinyvae":
        return None
    if len(parts) == 1 or parts[1] in ("__main__", "train"):
        return FLOORS[0]
    return parts[1]


def imported_modules(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Every module that the file imports, anywhere in it, with the line. A name after `from` may be a module too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative imports hide the floor"
            module = str(node.module)
            for alias in node.names:
                if module == "tinyvae" and alias.name in FLOORS:
                    yield f"tinyvae.{alias.name}", node.lineno
                elif (module, alias.name) != ("tinyvae", "__version__"):  # a word, of no floor
                    yield module, node.lineno
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("import_module", "__import__"):
            yield from ((a.value, node.lineno) for a in node.args if isinstance(a, ast.Constant))  # pyright: ignore


def imports(file: Path) -> list[tuple[str, int]]:
    return list(imported_modules(ast.parse(file.read_text())))


def test_every_folder_is_a_floor() -> None:
    found = {name_of(file).split("/")[0].removesuffix(".py") for file in FILES if name_of(file) not in FLOOR_OF_FILE}
    assert found <= set(FLOORS)
    assert {"model", "kernels", "ops", "backend"} <= found


@EACH_FILE
def test_imports_only_go_down(file: Path) -> None:
    parts = name_of(file).split("/")
    here = FLOORS.index(FLOOR_OF_FILE.get(name_of(file), parts[0].removesuffix(".py")))
    for module, line in imports(file):
        floor = floor_of(module)
        if floor is not None:
            assert FLOORS.index(floor) >= here, f"{name_of(file)}:{line} imports {module}, which stands above it"


def test_an_import_that_goes_up_would_be_seen() -> None:
    lines = ["from tinyvae import VAE, __version__, ops", "from tinyvae.training import t", "import tinyvae.model.v"]
    source = "\n".join(lines)
    seen = [(floor_of(module), line) for module, line in imported_modules(ast.parse(source))]
    assert seen == [("commands", 1), ("ops", 1), ("training", 2), ("model", 3)]
    later = "def f():\n    importlib.import_module('cupy')\n"
    assert list(imported_modules(ast.parse(later))) == [("cupy", 2)]


def test_cupy_is_imported_by_the_backend_and_by_nobody_else() -> None:
    importers = {name_of(file) for file in FILES if any(m.split(".")[0] == "cupy" for m, _ in imports(file))}
    assert importers == {"backend.py"}


@EACH_FILE
def test_no_autodiff_framework_is_imported(file: Path) -> None:
    assert {module.split(".")[0] for module, _ in imports(file)} & FRAMEWORKS == set()


@pytest.mark.parametrize("floor", ["ops", "kernels"])
def test_the_mathematics_draws_no_random_numbers(floor: str) -> None:
    for file in (PACKAGE / floor).glob("*.py"):
        names = {node.attr for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Attribute)}
        assert names & {"random", "default_rng", "standard_normal", "Generator"} == set(), name_of(file)


@EACH_FILE
def test_everything_public_has_a_docstring(file: Path) -> None:
    def missing(node: ast.Module | ast.ClassDef, path: str) -> Iterator[str]:
        for child in node.body:
            if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or child.name[0] == "_":
                continue
            setter = any(isinstance(d, ast.Attribute) and d.attr == "setter" for d in child.decorator_list)
            if ast.get_docstring(child) is None and not setter:  # a property's docstring stands at its getter
                yield f"{path}.{child.name}"
            if isinstance(child, ast.ClassDef):
                yield from missing(child, f"{path}.{child.name}")

    tree = ast.parse(file.read_text())
    assert ast.get_docstring(tree) is not None, "the module"
    assert list(missing(tree, name_of(file))) == []


def test_importing_the_package_does_not_import_cupy_or_the_drawing_library() -> None:
    for file in FILES:
        top = ast.Module(ast.parse(file.read_text()).body, [])
        eager = {m.split(".")[0] for node in top.body if isinstance(node, ast.Import | ast.ImportFrom)
                 for m, _ in imported_modules(ast.Module([node], []))}  # fmt: skip
        assert "cupy" not in eager, name_of(file)
        if name_of(file).split("/")[0] in ("model", "kernels", "ops", "checking", "backend.py", "errors.py"):
            assert eager & {"matplotlib", "rich", "pooch"} == set(), name_of(file)
