"""Imports only go down, CuPy has one door and no autodiff framework any, and all that is public says what it is.

And nobody asks which part something is: what differs between parts, the parts say themselves.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tinyvae
from tinyvae import layers, likelihoods, objectives, parts
from tinyvae.layers import Layer
from tinyvae.likelihoods.likelihood import Likelihood
from tinyvae.objectives.objective import Objective
from tinyvae.ops.activations import ACTIVATIONS

PACKAGE = Path(tinyvae.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
# From the top. A floor may import itself and what stands below it.
FLOORS = (
    "commands", "sklearn", "recipes", "exercises", "uses", "training", "checking", "export", "model", "objectives",
    "likelihoods", "layers", "kernels", "ops", "loop", "formula", "parts", "backend", "blas", "errors",
)  # fmt: skip
FLOOR_OF_FILE = {"__init__.py": "commands", "__main__.py": "commands", "train.py": "commands"}
FRAMEWORKS = {"torch", "jax", "jaxlib", "flax", "tensorflow", "keras", "autograd", "mxnet", "tinygrad", "theano"}


def name_of(file: Path) -> str:
    return file.relative_to(PACKAGE).as_posix()


def of_folder(folder: Any, base: type) -> dict[str, str]:
    """Every part's name and class -> its file."""
    found = {
        name: f"{folder.__name__.rpartition('.')[2]}/{name.replace('-', '_')}.py" for name in parts.names(folder, base)
    }
    return found | {parts.class_of(folder, base, name).__name__: file for name, file in found.items()}


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


# ------------------------------------------------------------------------------------------ nobody asks what a part is

PARTS = {**{name: "ops/activations.py" for name in ACTIVATIONS}, **of_folder(layers, Layer),
         **of_folder(likelihoods, Likelihood), **of_folder(objectives, Objective)}  # fmt: skip
# The same word for another thing: the words of formulas, and what a row of data is scored by
OTHER_THINGS = {"kernels/": {"tanh", "sigmoid"}, "uses/anomalies.py": {"elbo"}}
ASKING = (ast.Eq, ast.NotEq, ast.In, ast.NotIn, ast.Is, ast.IsNot)


def constants(tree: ast.Module, package: bool = True) -> dict[str, ast.expr]:
    """What each name at the top of a file stands for, also if it is another file's of the package."""
    found: dict[str, ast.expr] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign):
            found |= {target.id: node.value for target in node.targets if isinstance(target, ast.Name)}
        elif package and isinstance(node, ast.ImportFrom) and str(node.module).startswith("tinyvae."):
            file = PACKAGE.parent / f"{str(node.module).replace('.', '/')}.py"
            theirs = constants(ast.parse(file.read_text()), package=False) if file.is_file() else {}
            found |= {a.asname or a.name: theirs[a.name] for a in node.names if a.name in theirs}
    return found


def words(node: ast.AST, known: dict[str, ast.expr]) -> Iterator[str]:
    """Every name and text in an expression; of a text with options ("gaussian:sigma=learned") what stands before.

    Names are looked up, but for tables of which one line is taken.
    """
    taken_from = {id(n.value) for n in ast.walk(node) if isinstance(n, ast.Subscript)}
    for n in ast.walk(node):
        if isinstance(n, ast.Name):
            yield n.id
            yield from words(known[n.id], {}) if n.id in known and id(n) not in taken_from else ()
        elif isinstance(n, ast.Attribute):
            yield n.attr
        elif isinstance(n, ast.Constant) and isinstance(n.value, str):
            yield n.value.partition(":")[0]


def asked(node: ast.AST, known: dict[str, ast.expr]) -> Iterator[str]:
    """The words that a comparison, a match or an isinstance looks for."""
    if isinstance(node, ast.Compare) and any(isinstance(op, ASKING) for op in node.ops):
        yield from words(node, known)
    elif isinstance(node, ast.match_case):
        yield from words(node.pattern, known)
    elif isinstance(node, ast.Call):
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        if name in ("isinstance", "issubclass", "startswith", "endswith"):
            yield from (word for argument in node.args for word in words(argument, known))


def questions(source: str, name: str) -> list[tuple[int, str]]:
    """Where the file `name` asks whether something is a certain part that stands in another file: (line, part)."""
    tree, others = ast.parse(source), {w for at, ws in OTHER_THINGS.items() if name.startswith(at) for w in ws}
    known = constants(tree)
    found = {
        (getattr(node, "lineno", getattr(getattr(node, "pattern", node), "lineno", 0)), word)
        for node in ast.walk(tree)
        for word in asked(node, known)
        if PARTS.get(word, name) != name and word not in others
    }
    return sorted(found)


@EACH_FILE
def test_nobody_asks_which_part_something_is(file: Path) -> None:
    """What differs between parts is said by the parts: else a stranger's gets the wrong answer."""
    assert questions(file.read_text(), name_of(file)) == []


def test_the_parts_are_those_of_the_folders() -> None:
    assert {"bernoulli", "Bernoulli", "iwae", "IWAE", "Dense", "conv-transpose", "relu", "relu_forward"} - set(
        PARTS
    ) == {"relu_forward"}
    assert PARTS["BatchNorm"] == PARTS["batch-norm"] == "layers/batch_norm.py"


PLANTED = {
    "likelihood == 'bernoulli'": ["bernoulli"],
    "if 'gaussian:sigma=learned' != text: pass": ["gaussian"],
    "name in ('relu', 'other')": ["relu"],
    "name not in KNOWN": ["swish"],
    "ACTIVATION_NAMES.index(name) if name in ACTIVATION_NAMES else 0": [],  # they are read off the parts
    "isinstance(layer, (int, Conv))": ["Conv"],
    "issubclass(kind, layers.Dense)": ["Dense"],
    "type(o) is IWAE": ["IWAE"],
    "o.__class__.__name__ == 'BetaTC'": ["BetaTC"],
    "text.startswith('poisson')": ["poisson"],
    "match o:\n    case IWAE(): pass": ["IWAE"],
    "match name:\n    case 'laplace' | 'poisson': pass": ["laplace", "poisson"],
    "f is LINEAR": ["linear"],
    "options = {'conv': ()}; options['tied'] = likelihood.outputs == 2": [],
    "isinstance(named, Likelihood)": [],  # the base of all is no part
}  # fmt: skip


@pytest.mark.parametrize("line", PLANTED)
def test_a_question_for_a_certain_part_would_be_seen(line: str) -> None:
    known = "from tinyvae.kernels.cuda.table import ACTIVATION_NAMES\nfrom tinyvae.ops.activations import LINEAR\n"
    source = f"{known}KNOWN = ['swish', 'x']\n{line}"
    assert [word for _, word in questions(source, "model/vae.py")] == PLANTED[line]


def test_a_part_may_ask_for_itself_and_words_of_formulas_are_no_activations() -> None:
    assert questions("self.estimator == 'iwae'", "objectives/iwae.py") == []
    assert questions("n.op == 'tanh'", "kernels/numba_text.py") == []
    assert questions("n.op == 'relu'", "kernels/numba_text.py") == [(1, "relu")]
