"""Plain values of the command line are converted as Typer does it, but without Pydantic."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from charlstm.cli import conversion
from charlstm.cli.app import app
from tests.conftest import ROOT

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
PARAMS = {f"{command.name} {param.name}": param for command in COMMANDS.values() for param in command.params}
KINDS: dict[str, Any] = {str(param.type_descriptor.annotation): param for param in PARAMS.values()}
"""A parameter of each type that the commands have."""
WORDS = [
    "", " ", "0", "1", "-1", "+1", "007", "1.0", "1.5", "1.", ".5", "-.5", "1_000", "1e3", "1E-3", "-0", "0x10", " 7", "7 ",
    "9" * 17, "9" * 18, "9" * 30, "0.1234567890123456", "0." + "3" * 30, "٣", "nan", "inf", "-inf", "true", "True", "TRUE", "t",
    "yes", "y", "on", "off", "no", "n", "false", "f", "None", "auto", "AUTO", "live", "skip", "error", "muon", "-", ".", "~", "a/b",
    "no such file", "pyproject.toml", "\udcff", "ä", "\x00", "a\n", "--", "-5", "5-",
]  # fmt: skip


def converted(param: Any, value: Any, *, quick: bool) -> tuple[str, Any]:
    """What a parameter makes of a value: a type and the value, or an error and its message."""
    context = typer.Context(COMMANDS["sample"])
    try:
        if quick:
            try:
                result = conversion.plain(param.type_descriptor.annotation, value, param.type_descriptor.parameter_info)
            except ValueError:
                return "left to Typer", None
        else:
            result = type(param).get_runtime_param(param).coerce(value, param=param, ctx=context)
    except typer.BadParameter as error:
        return "error", error.message
    return type(result).__name__, str(result)


def agree(param: Any, value: Any) -> bool:
    """Whether a value is converted directly, which must then give what Typer gives."""
    mine = converted(param, value, quick=True)
    assert mine in (("left to Typer", None), converted(param, value, quick=False)), (param.name, value)
    return mine[0] != "left to Typer"


def test_there_is_a_parameter_of_each_type() -> None:
    assert {int, float, str, bool, Path} < {param.type_descriptor.annotation for param in KINDS.values()}
    assert any("list" in kind for kind in KINDS)
    assert any("Literal" in kind for kind in KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_is_converted_as_typer_does_it_or_left_to_typer(kind: str) -> None:
    values = WORDS if "list" not in kind else [[], (), *([word] for word in WORDS), ("a", "b"), "text"]
    direct = [agree(KINDS[kind], value) for value in (*values, None)]  # all of them are compared
    assert any(direct)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "list" not in kind])
@settings(max_examples=30)
@given(
    st.one_of(
        st.text(max_size=8),
        st.text("0123456789.eE+-_ ", max_size=12),
        st.integers().map(str),
        st.floats().map(str),
        st.integers(),
        st.floats(allow_nan=False),
        st.booleans(),
    )
)
def test_anything_is_converted_as_typer_does_it_or_left_to_typer(kind: str, value: object) -> None:
    agree(KINDS[kind], value)


@pytest.mark.parametrize("name", PARAMS)
def test_every_default_is_converted_directly(name: str) -> None:
    param = PARAMS[name]
    assert agree(param, param.default) or (param.type_descriptor.annotation is bool and param.default is None)


def test_a_path_that_can_t_be_read_is_left_to_typer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").touch()
    monkeypatch.setattr("os.access", lambda path, mode: mode == 0)  # as for another user
    assert not agree(PARAMS["sample prompt_file"], str(tmp_path / "secret"))
    assert agree(PARAMS["sample output"], str(tmp_path / "secret"))  # it is only written to


def test_limits_and_parsers_are_left_to_typer() -> None:
    for limited in (typer.Option(min=1), typer.Option(max=9), typer.Option(parser=int)):
        with pytest.raises(ValueError):  # noqa: PT011
            conversion.plain(int, "5", limited)
    for checked in (typer.Option(exists=True), typer.Option(dir_okay=False), typer.Option(resolve_path=True)):
        with pytest.raises(ValueError):  # noqa: PT011
            conversion.plain(Path, "file", checked)


def test_another_typer_converts_by_itself() -> None:
    class Param:
        name = "of another version"

    param = Param()
    conversion.quicken([param])
    assert vars(param) == {}


def modules_of(*words: str) -> set[str]:
    """The modules that a command has loaded when it ends."""
    code = (
        "import json, sys; from charlstm.__main__ import main; sys.argv[1:] = json.loads(sys.argv[1]); status = main();"
        "print(json.dumps([status, *sys.modules]), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(words)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    status, *modules = json.loads(done.stderr.splitlines()[-1])
    assert status == 0
    return set(modules)


def test_sample_loads_nothing_that_it_does_not_need() -> None:
    loaded = modules_of(
        "sample", "fables", "-l", "1", "-t", "0.7", "--seed", "1", "-o", "-", "-p", "The ", "--lines", "0"
    )
    assert {"numpy", "charlstm.inference.sampling"} < loaded
    slow = {
        "pydantic",
        "rich",
        "tqdm",
        "numpy.typing",
        "gzip",
        "socket",
        "concurrent.futures",
        "multiprocessing",
        "statistics",
    }
    assert loaded & slow == set()
    own = {"text.corpus", "text.files", "inference.novelty", "inference.scoring", "training.state", "nn.optim"}
    own |= {"events", "session", "launch", "cli.help", "cli.info", "storage.lock", "export.files"}
    assert loaded & {f"charlstm.{name}" for name in own} == set()


@pytest.mark.parametrize("words", [("--help",), ("train", "--help"), ("runs", "--help")])
def test_help_loads_neither_numpy_nor_pydantic(words: tuple[str, ...]) -> None:
    assert modules_of(*words) & {"numpy", "pydantic", "rich", "tqdm"} == set()
