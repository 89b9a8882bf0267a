"""What the README tells people to type is what the program understands."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.conftest import ROOT, Result

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
COMMANDS = sorted(
    {
        part.split("#")[0].strip()
        for block in BLOCKS
        for line in block.splitlines()
        for part in re.split(r"&&|\|\|?|2>>|>", line)
        if part.strip().startswith("charlstm ")
    }
)


def test_the_two_commands_are_one_line_each() -> None:
    for name in ("train", "test"):
        (block,) = re.findall(rf"<!-- {name} -->\n```sh\n(.*?)```", README, re.DOTALL)
        assert len(block.splitlines()) == 1
        assert block.startswith("python3 -m venv .venv && .venv/bin/pip install")


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) >= 4


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_in_the_readme_exists(command: str, charlstm: Callable[..., Result]) -> None:
    words = shlex.split(command)[1:]
    told = charlstm(words[0], "--help")
    assert told.status == 0
    for word in words[1:]:
        if word.startswith("--"):
            assert word in told.out, f"{command}: {word}"


def test_every_page_that_is_linked_is_there() -> None:
    for page in ("README.md", "CONTRIBUTING.md", *(str(p.relative_to(ROOT)) for p in (ROOT / "docs").glob("*.md"))):
        text = (ROOT / page).read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)#]+)", text):
            if "://" not in link:
                assert ((ROOT / page).parent / link).exists(), f"{page} links to {link}"


def test_python_dash_m_is_the_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "charlstm", "--version"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("charlstm ")
