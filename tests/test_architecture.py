"""The lines that the architecture draws between modules, read off the imports."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "charlstm"
MODULES = sorted(".".join(p.relative_to(PACKAGE.parent).with_suffix("").parts) for p in PACKAGE.rglob("*.py"))
RUNTIME = {"numpy", "typer", "rich", "tqdm"}
LADDER = ("nn", "text", "inference", "training", "storage", "export", "session", "launch", "api", "cli")
"""Folders and modules from the lowest rung to the highest. An import goes down, or stays in its folder."""
GROUND = {"errors", "events", "settings", "blas", "launcher", "processes"}
"""What every rung may import. It needs no NumPy, and imports nothing but itself and the numbers that define a model."""
FREE = {"display", "__init__"}
"""What the command line imports beside the ladder."""
DOORS = {
    "charlstm.cli.completion": {"charlstm.storage.runs", "charlstm.text.sources"},  # Tab must not wait for NumPy
    "charlstm.cli.options": {"charlstm.text.sources"},
    "charlstm.cli.info": {"charlstm.storage.describe", "charlstm.text.sources"},  # a list needs no run that can be used
    "charlstm.cli.train": {"charlstm.training.control", "charlstm.training.rank_parallel"},
    "charlstm.cli.signals": {"charlstm.training.control"},
    "charlstm.cli.sample": {
        "charlstm.storage.atomic",
        "charlstm.inference.novelty",
        "charlstm.text.lines",
        "charlstm.text.prompt",
        "charlstm.storage.runs",
    },
    "charlstm.cli.runs": {"charlstm.storage.manage", "charlstm.storage.runs"},
    "charlstm.cli.plot": {"charlstm.storage.atomic", "charlstm.storage.describe"},
}
"""What the command line reaches past the API, and from where."""
LONG: set[object] = {("charlstm.nn.lstm", "forward"), ("charlstm.nn.lstm", "backward")}
"""What may be long: it is read beside its equations."""


@functools.cache
def source(module: str) -> ast.Module:
    return ast.parse((PACKAGE.parent / Path(*module.split("."))).with_suffix(".py").read_text(encoding="utf-8"))


@functools.cache
def imports(module: str, *, at_import: bool = False) -> set[str]:
    """What a module imports; with at_import only what is imported as soon as it is."""
    tree, found = source(module), set()
    nodes = tree.body if at_import else list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {
                f"{node.module}.{a.name}" if f"{node.module}.{a.name}" in MODULES else node.module for a in node.names
            }
    return found - {"__future__"}


@functools.cache
def own(module: str) -> set[str]:
    return {name for name in imports(module) if name.split(".")[0] == "charlstm"}


def reach(module: str) -> set[str]:
    """Everything of ours that a module leads to."""
    seen: set[str] = set()
    todo = [module]
    while todo:
        for name in own(todo.pop()) & set(MODULES):
            if name not in seen:
                seen.add(name)
                todo.append(name)
    return seen


def within(prefix: str) -> list[str]:
    return [m for m in MODULES if m.startswith(prefix)]


def rung(module: str) -> str:
    """The folder of a module, or its own name at the top."""
    return (module + ".__init__").split(".")[1]


def test_there_are_modules_to_look_at() -> None:
    assert len(MODULES) > 60
    assert own("charlstm.session") > {"charlstm.training.loop", "charlstm.storage.saver"}
    assert {rung(m) for m in MODULES} == {*LADDER, *GROUND, "display", "__init__", "__main__"}


@pytest.mark.parametrize("module", within("charlstm.nn"))
def test_nn_imports_numpy_the_standard_library_and_itself(module: str) -> None:
    allowed = set(sys.stdlib_module_names) - {"time", "datetime", "os", "pathlib", "io", "random", "sys"}
    for name in imports(module):
        assert name.startswith("charlstm.nn") or name.split(".")[0] in allowed | {"numpy"}, f"{module} imports {name}"


@pytest.mark.parametrize("module", [m for m in MODULES if rung(m) in LADDER])
def test_imports_go_down_the_ladder(module: str) -> None:
    below = LADDER[: LADDER.index(rung(module)) + 1]
    for name in own(module):
        assert rung(name) in {*below, *GROUND, *(FREE if rung(module) == "cli" else ())}, f"{module} imports {name}"


@pytest.mark.parametrize("module", within("charlstm.display"))
def test_displays_know_events_and_nothing_of_models(module: str) -> None:
    assert all(rung(name) in {"display", "events", "settings"} for name in own(module)), own(module)
    assert "numpy" not in imports(module)


@pytest.mark.parametrize("module", [f"charlstm.{name}" for name in sorted(GROUND)])
def test_the_ground_floor_needs_no_numpy(module: str) -> None:
    assert own(module) <= {f"charlstm.{name}" for name in GROUND} | {"charlstm.nn.config"}
    assert not any("numpy" in imports(needed) for needed in {module} | reach(module))


def test_the_command_line_gets_at_everything_through_the_api() -> None:
    past = {m: {n for n in own(m) if rung(n) in LADDER[:-2]} - {"charlstm.nn.config"} for m in within("charlstm.cli")}
    assert {module: names for module, names in past.items() if names} == DOORS


def test_only_the_command_line_exits_and_knows_typer() -> None:
    for module in MODULES:
        assert rung(module) == "cli" or "typer" not in {name.split(".")[0] for name in imports(module)}, module
        ending = {"exit"} if module == "charlstm.processes" else {"exit", "_exit"}  # a fork must end by itself
        calls = [n for n in ast.walk(source(module)) if isinstance(n, ast.Attribute) and n.attr in ending]
        assert not calls or module == "charlstm.__main__", module


def test_a_folder_s_init_holds_a_docstring_and_nothing_else() -> None:
    for path in PACKAGE.glob("[a-z]*/__init__.py"):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        assert len(body) == 1, path
        assert ast.get_docstring(ast.Module(body, [])), path


def test_no_module_is_longer_than_a_reader_can_hold_in_mind() -> None:
    commands = {"train", "resume", "sample", "info", "evaluate"}
    for module in MODULES:
        path = PACKAGE.parent / Path(*module.split(".")).with_suffix(".py")
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 330 or module in LONG, module
        for node in ast.walk(source(module)):
            if isinstance(node, ast.FunctionDef) and not (rung(module) == "cli" and node.name in commands):
                assert (node.end_lineno or 0) - node.lineno < 60 or (module, node.name) in LONG, f"{module}.{node.name}"


def test_there_are_no_cycles() -> None:
    assert [m for m in MODULES if m in reach(m)] == []


def test_nothing_but_the_four_packages_is_imported_at_run_time() -> None:
    used = {name.split(".")[0] for m in MODULES for name in imports(m)} - set(sys.stdlib_module_names) - {"charlstm"}
    assert used == RUNTIME | {"matplotlib", "safetensors", "mpi4py"}


def test_only_a_plot_needs_matplotlib_and_only_once_it_is_drawn() -> None:
    users = {m for m in MODULES if any(name.split(".")[0] == "matplotlib" for name in imports(m))}
    assert users == {"charlstm.cli.plot"}
    assert not any(name.split(".")[0] == "matplotlib" for name in imports("charlstm.cli.plot", at_import=True))
    assert not any("charlstm.cli.plot" in imports(m, at_import=True) for m in MODULES)


def test_only_ranks_need_mpi4py_and_only_under_a_launcher() -> None:
    users = {m for m in MODULES if any(name.split(".")[0] == "mpi4py" for name in imports(m))}
    assert users == {"charlstm.training.ranks"}
    assert not any(name.split(".")[0] == "mpi4py" for name in imports("charlstm.training.ranks", at_import=True))


def test_no_module_draws_from_global_randomness() -> None:
    for module in MODULES:
        for node in ast.walk(source(module)):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Attribute)
                and node.value.attr == "random"
            ):
                assert node.attr in {"Generator", "default_rng", "SeedSequence", "PCG64"}, (
                    f"{module}: np.random.{node.attr}"
                )


def test_sampling_does_not_import_rich_or_tqdm() -> None:
    code = (
        "import sys; from charlstm.cli.app import main; status = main(['sample', 'no-such-run']);"
        "assert 'numpy' in sys.modules and status == 2; sys.exit('rich.live' in sys.modules or 'tqdm' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, check=False).returncode
        == 0
    )


def test_the_page_names_every_folder_and_every_module_at_the_top() -> None:
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    for name in {rung(m) for m in MODULES} - {"__init__", "__main__"}:
        assert f"`{name}/`" in page or f"`{name}.py`" in page, name


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_in_its_first_line_why_it_exists(module: str) -> None:
    assert ast.get_docstring(source(module)), module
