"""Every command, option and example of the pages is run, or where it would take hours its words are checked. Nothing is passed over.

By default one block of the README is run and all commands are parsed; all other blocks are run among the slow tests.
"""

from __future__ import annotations

import ast
import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import documents
from tests.conftest import ROOT, slow, sweep
from tests.documents import PAGES, PROGRAM, Block

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="the pages are written for a POSIX shell"),
]
BLOCKS = [block for page in PAGES for block in documents.blocks(page)]
SHELLS = [block for block in BLOCKS if block.language in ("sh", "bash", "console") and documents.shell(block)]
PYTHON = [block for block in BLOCKS if block.language == "python"]
ELSEWHERE = {"text": "shown, not typed", "json": "shown", "crontab": "test_automation", "ini": "test_automation", "make": "test_automation"}  # fmt: skip
FOREIGN = {
    "--preserve-status": "timeout", "--user": "systemctl", "--now": "systemctl", "--local": "pip", "--no-deps": "pip", "--upgrade": "pip",
    "--nodes": "Slurm", "--ntasks-per-node": "Slurm", "--time": "Slurm", "--signal": "Slurm",
}  # fmt: skip
"""Options that the pages name and that are not ours."""
SCRIPTS = [
    (f"{page.name}: {match[1]}{match[2]}".strip(), match[1], match[2])
    for page in PAGES
    for match in documents.SCRIPT.finditer(page.read_text(encoding="utf-8"))
]


@functools.cache
def help_of(module: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, f"python -m {module} --help: {done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a small run."""
    return documents.template(tmp_path_factory.mktemp("template"))


def test_there_are_pages_and_blocks_to_look_at() -> None:
    assert len(PAGES) >= 8
    assert len(SHELLS) >= 6
    assert len(SCRIPTS) >= 2


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_block_is_of_a_kind_that_is_tested(block: Block) -> None:
    known = {"sh", "bash", "console", "python"} | set(ELSEWHERE)
    assert block.language in known, f"{block} is {block.language!r}: name one of {sorted(known)}, or teach the tests"


@pytest.mark.parametrize("block", SHELLS, ids=str)
def test_every_command_of_the_pages_is_one_that_the_program_understands(block: Block) -> None:
    for words in documents.calls(documents.shell(block)):
        if "$" not in " ".join(words):
            with PROGRAM.commands[words[0]].make_context(words[0], list(words[1:])):
                pass


@slow
@pytest.mark.parametrize("block", SHELLS, ids=str)
def test_every_block_of_shell_runs_as_it_stands(block: Block, runs: Path, folder: Path) -> None:
    code = documents.shell(block)
    environment = documents.furnish(folder, runs, code)
    done = documents.run(["sh", "-euc", code], folder, environment)
    assert done.returncode == 0, f"{block} ended with status {done.returncode}:\n{code}\n{done.stdout}{done.stderr}"
    assert "Traceback" not in done.stderr


@slow
@pytest.mark.parametrize(("name", "module", "words"), SCRIPTS, ids=[script[0] for script in SCRIPTS])
def test_a_measurement_that_is_named_can_be_started_so(name: str, module: str, words: str) -> None:
    told = help_of(module)
    for option in re.findall(r"(?<![\w\"'-])--[a-z][\w-]*", re.sub(r"\"[^\"]*\"", "", words)):
        assert option in told, f"python -m {module} has no {option}"


def starts(block: Block) -> bool:
    """Whether it stands alone, so that it can be run. `test_api` runs the blocks of docs/api.md, each after those before it."""
    return block.page != "docs/api.md" and re.match(r"\s*(import|from) ", block.code) is not None


@pytest.mark.parametrize("block", sweep({str(b): b for b in PYTHON}, *(str(b) for b in PYTHON if not starts(b))))
def test_every_block_of_python_compiles_and_one_that_imports_runs(block: Block, runs: Path, folder: Path) -> None:
    code = block.code.replace("…", "...")
    for other in ("# wrong", "# right"):  # lines so marked stand for one another
        ast.parse(
            re.sub(
                r":( *)$",
                r": ...\1",
                "\n".join(line.split("  #")[0] for line in code.splitlines() if other not in line),
            )
        )
    if "import torch" in code:
        pytest.importorskip("torch", reason="needs PyTorch")
    if starts(block):
        environment = documents.furnish(folder, runs, code) | {"PYTHONPATH": str(ROOT)}
        for name in set(re.findall(r"checkpoints/(\w+)", code)):
            documents.furnish(folder, runs, f"charlstm info {name}\n")
        done = documents.run([sys.executable, "-W", "error", "-c", code], folder, environment)
        assert done.returncode == 0, f"{block}: {done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_option_and_variable_that_is_named_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    everything = [*PROGRAM.commands.values(), PROGRAM]
    options = {name for command in everything for param in command.params for name in param.opts} | {"--help"}
    variables = {param.envvar for command in everything for param in command.params} - {None}
    theirs = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("*/*.py"))
    options |= set(re.findall(r"add_argument\(\s*\"(--[\w-]+)\"", theirs)) | set(FOREIGN)
    for option in set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text)):
        assert option in options, f"{page.name} names {option}, which is no option of anything here"
    for variable in set(re.findall(r"\bCHARLSTM_[A-Z_]+\b", text)):
        assert variable in variables, f"{page.name} names {variable}, which nothing reads"


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("charlstm sample --temprature 1\n", "has no option"),
        pytest.param("charlstm trian\n", "there is no command", marks=slow),
        pytest.param("frobnicate\n", "not found", marks=slow),
        pytest.param("git push\n", "stand-in", marks=slow),
        pytest.param("pip install '.[no-such-extra]'\n", "no-such-extra", marks=slow),
    ],
)
def test_a_command_that_is_wrong_or_that_nobody_knows_fails(code: str, why: str, runs: Path, folder: Path) -> None:
    done = documents.run(["sh", "-euc", code], folder, documents.furnish(folder, runs, code))
    assert done.returncode != 0
    assert why in done.stderr
