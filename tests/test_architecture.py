"""The lines that the architecture draws between modules, read off the imports."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "charlstm"
MODULES = sorted(".".join(p.relative_to(PACKAGE.parent).with_suffix("").parts) for p in PACKAGE.rglob("*.py"))
RUNTIME = {"numpy", "typer", "rich", "tqdm"}
SHARED = {
    "charlstm.settings",
    "charlstm.errors",
    "charlstm.events",
    "charlstm.blas",
    "charlstm.training.control",
    "charlstm.text.sources",
}
"""What may be imported on either side of the api; it needs no NumPy."""
NAMES = {"charlstm.cli.completion": {"charlstm.storage.runs"}}
"""Exceptions: Tab offers names before NumPy, and so the api, is imported."""


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


def test_there_are_modules_to_look_at() -> None:
    assert len(MODULES) > 20
    assert own("charlstm.session") > {"charlstm.training.loop", "charlstm.storage.checkpoint"}


@pytest.mark.parametrize("module", within("charlstm.nn"))
def test_nn_imports_numpy_the_standard_library_and_itself(module: str) -> None:
    allowed = set(sys.stdlib_module_names) - {"time", "datetime", "os", "pathlib", "io", "random", "sys"}
    for name in imports(module):
        assert name.startswith("charlstm.nn") or name.split(".")[0] in allowed | {"numpy"}, f"{module} imports {name}"


@pytest.mark.parametrize("module", [m for m in MODULES if m != "charlstm.cli.app"])
def test_only_the_command_line_exits_and_knows_typer(module: str) -> None:
    assert not any(name.split(".")[0] == "typer" for name in imports(module))
    ending = (
        {"exit"} if module == "charlstm.training.data_parallel" else {"exit", "_exit"}
    )  # a worker is a process of its own
    if module != "charlstm.__main__":
        calls = [n for n in ast.walk(source(module)) if isinstance(n, ast.Attribute) and n.attr in ending]
        assert not calls


def test_training_never_learns_of_files_or_terminals() -> None:
    assert not reach("charlstm.training.loop") & {"charlstm.storage.checkpoint", "charlstm.session", "charlstm.cli.app"}
    assert not any("display" in name for name in reach("charlstm.training.loop"))


@pytest.mark.parametrize("module", within("charlstm.display"))
def test_displays_know_events_and_nothing_of_models(module: str) -> None:
    allowed = ("charlstm.display", "charlstm.events", "charlstm.settings")
    assert all(name.startswith(allowed) for name in own(module)), own(module)
    assert "numpy" not in imports(module)


def test_only_the_command_line_knows_the_displays() -> None:
    users = {m for m in MODULES if "charlstm.display.select" in own(m) and not m.startswith("charlstm.display")}
    assert users == {"charlstm.cli.signals"}


def before_the_api() -> list[str]:
    behind = reach("charlstm.api") | {"charlstm.api"}
    return [m for m in MODULES if m not in behind and m != "charlstm.__init__"]


def test_the_command_line_gets_at_everything_through_the_api() -> None:
    behind = reach("charlstm.api") - SHARED
    assert behind > {
        "charlstm.session",
        "charlstm.inference.sampling",
        "charlstm.inference.evaluation",
        "charlstm.storage.checkpoint",
    }
    assert {"charlstm.cli.app", "charlstm.cli.sample", "charlstm.cli.interactive"} < set(before_the_api())
    for module in before_the_api():
        assert not own(module) & behind - NAMES.get(module, set()), f"{module}: {own(module) & behind}"


def test_what_both_sides_of_the_api_import_needs_no_numpy() -> None:
    assert not [m for m in SHARED if any("numpy" in imports(needed) for needed in {m} | reach(m))]


def test_there_are_no_cycles() -> None:
    assert [m for m in MODULES if m in reach(m)] == []


def test_nothing_but_the_four_packages_is_imported_at_run_time() -> None:
    used = {name.split(".")[0] for m in MODULES for name in imports(m)} - set(sys.stdlib_module_names) - {"charlstm"}
    assert used == RUNTIME | {"matplotlib"}


def test_only_a_plot_needs_matplotlib_and_only_once_it_is_drawn() -> None:
    users = {m for m in MODULES if any(name.split(".")[0] == "matplotlib" for name in imports(m))}
    assert users == {"charlstm.cli.plot"}
    assert not any(name.split(".")[0] == "matplotlib" for name in imports("charlstm.cli.plot", at_import=True))
    assert not any("charlstm.cli.plot" in imports(m, at_import=True) for m in MODULES)


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


def test_help_is_shown_before_numpy_is_imported() -> None:
    code = "import sys; from charlstm.cli.app import main; main(['train', '--help']); sys.exit('numpy' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, check=False).returncode
        == 0
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


def test_the_page_lists_every_module_and_no_other() -> None:
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    listed = re.findall(r"^ {6,}(\w+)\.py ", page, re.MULTILINE)
    assert sorted(listed) == sorted(m.split(".")[-1] for m in MODULES if not m.endswith("__"))


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_in_its_first_line_why_it_exists(module: str) -> None:
    assert ast.get_docstring(source(module)), module
