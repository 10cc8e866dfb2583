"""The order of the house: which file may name which, by an import or by a dotted name in quotes."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = {"dnnlib": 0, "torch_utils": 1, "training": 2, "metrics": 2, "semantic": 3}
SCRIPTS = 4
REGISTRY = "training.registry"
CLASSES_IN_FILES = "torch_utils.network_files.classes"  # its quoted names are data: what network files hold
LOOP = "training.training_loop"
LONGEST = 400
DEEPEST = 4
PAGE = ROOT / "semantic" / "browser" / "static"
BLOCKS = (ast.For, ast.While, ast.If, ast.With, ast.Try)


def find_files() -> dict[str, Path]:
    """Module name -> file, for the scripts and all packages but the tests."""
    files = [path for folder in LAYERS for path in (ROOT / folder).rglob("*.py")]
    names = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in [*files, *ROOT.glob("*.py")]}
    return {name.removesuffix(".__init__"): path for path, name in names.items()}


FILES = find_files()
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}


def layer(module: str) -> int:
    return LAYERS.get(module.partition(".")[0], SCRIPTS)


def module_of(name: str) -> str | None:
    """The module of ours that a dotted name leads to."""
    parts = name.strip(".").split(".")
    return next((found for i in range(len(parts), 0, -1) if (found := ".".join(parts[:i])) in FILES), None)


def imports_in(tree: ast.AST) -> Iterator[str]:
    """Dotted names that a file imports, also within functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def quotes_in(tree: ast.AST) -> Iterator[str]:
    """Dotted names in quotes that begin with a module of ours, also beginnings of them in f-strings."""
    texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
    for text in texts:
        module = module_of(text) if re.fullmatch(r"[a-z_]\w*(\.\w+)+\.?", text) else None
        rest = "" if module is None else text.removeprefix(module).strip(".").partition(".")[0]
        # A file name such as edit.mp4 is no name in edit.py.
        if module is not None and re.search(rf"(?<![.\w]){rest}\b", FILES[module].read_text(encoding="utf-8")):
            yield text


def find_arrows() -> dict[str, set[str]]:
    """Module -> other modules that it names."""
    arrows = {}
    for module, tree in TREES.items():
        names = [*imports_in(tree), *(() if module == CLASSES_IN_FILES else quotes_in(tree))]
        arrows[module] = {module_of(name) for name in names} - {None, module}
    return arrows


ARROWS = find_arrows()


def find_circle(arrows: dict[str, set[str]]) -> list[str]:
    """Modules that name each other in a circle; none where there is no circle."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return path[path.index(module) :]
        if module in done:
            return []
        found = next((circle for target in arrows[module] if (circle := visit(target, [*path, module]))), [])
        done.add(module)
        return found

    return next((circle for module in arrows if (circle := visit(module, []))), [])


def depth(node: ast.AST) -> int:
    """How many blocks lie within each other below a node; `elif` counts as one block with its `if`."""
    deepest = 0
    for child in ast.iter_child_nodes(node):
        is_elif = isinstance(node, ast.If) and isinstance(child, ast.If) and node.orelse == [child]
        deepest = max(deepest, depth(child) + (isinstance(child, BLOCKS) and not is_elif))
    return deepest


def test_names_are_found_in_imports_and_in_quotes():
    tree = ast.parse(
        "import legacy\nfrom training import loss\ndef f():\n    from metrics.curves import plot_runs\n"
        "    return 'semantic.loss.SemanticLoss', f'training.networks.{f}', 'legacy.pkl', 'training'"
    )
    assert [module_of(name) for name in imports_in(tree)] == ["legacy", "training.loss", "metrics.curves"]
    assert sorted(map(module_of, quotes_in(tree))) == ["semantic.loss", "training.networks"]


def test_no_circle_is_overlooked():
    assert set(find_circle({"a": {"b"}, "b": {"c"}, "c": {"b"}})) == {"b", "c"}
    assert not find_circle({"a": {"b", "c"}, "b": {"c"}, "c": set()})


def test_no_circle_between_files():
    assert not find_circle(ARROWS)


def test_arrows_run_downwards_only():
    upwards = [
        f"{FILES[module].relative_to(ROOT)} names {target}"
        for module, targets in ARROWS.items()
        for target in targets
        if layer(target) > layer(module) and not (module == REGISTRY and target.startswith("semantic."))
    ]
    assert not upwards


def test_only_the_registry_below_names_the_plugin():
    """Also not in a text that is built up, a comment or a docstring."""
    below = {module: path for module, path in FILES.items() if layer(module) < LAYERS["semantic"]}
    named = [m for m, path in below.items() if re.search(r"\bsemantic[./]\w", path.read_text(encoding="utf-8"))]
    assert named == [REGISTRY]


def test_the_loop_knows_nothing_of_the_plugin_and_can_be_read():
    assert "semantic" not in FILES[LOOP].read_text(encoding="utf-8")
    (loop,) = (node for node in TREES[LOOP].body if isinstance(node, ast.FunctionDef))
    assert depth(loop) <= DEEPEST


@pytest.mark.parametrize("folder", [*LAYERS, "scripts"])
def test_no_module_is_longer_than_a_few_screens(folder):
    mine = {m: p for m, p in FILES.items() if (m.partition(".")[0] if layer(m) < SCRIPTS else "scripts") == folder}
    lengths = {module: len(path.read_text(encoding="utf-8").splitlines()) for module, path in mine.items()}
    assert mine
    assert not {module: length for module, length in lengths.items() if length > LONGEST}


def test_scripts_of_the_page_are_short_reach_each_other_and_form_no_circle():
    texts = {path.name: path.read_text(encoding="utf-8") for path in PAGE.glob("*.js")}
    assert not {name: n for name, text in texts.items() if (n := len(text.splitlines())) > LONGEST}
    named = {name: re.findall(r"""(?:\bfrom|\bimport)\s*\(?\s*["'`]([^"'`]+)""", text) for name, text in texts.items()}
    arrows = {name: {target.removeprefix("/static/") for target in targets} for name, targets in named.items()}
    assert all(arrows[name] <= texts.keys() for name in arrows), "a script is imported that the page does not have"
    assert not find_circle(arrows)
    reached, ahead = set(), {"app.js"}
    while ahead:
        reached |= ahead
        ahead = set().union(*(arrows[name] for name in ahead)) - reached
    assert reached == texts.keys() - {"report.js"}  # the report of a run holds that script


def test_every_script_is_installed_and_sorted_among_our_imports():
    tomllib = pytest.importorskip("tomllib", reason="Python reads TOML from 3.11 on")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    scripts = sorted(path.stem for path in ROOT.glob("*.py"))
    assert sorted(settings["setuptools"]["py-modules"]) == scripts
    assert sorted(settings["ruff"]["lint"]["isort"]["known-first-party"]) == sorted([*LAYERS, *scripts, "tests"])
