"""The README's two commands, and the links between the pages; what else they show is run by test_documents."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.conftest import ROOT
from tests.documents import PAGES
from tests.experiments import records

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_two_commands_are_one_line_each() -> None:
    for name in ("train", "test"):
        (block,) = re.findall(rf"<!-- {name} -->\n```sh\n(.*?)```", README, re.DOTALL)
        assert len(block.splitlines()) == 1
        assert block.startswith("python3 -m venv .venv && .venv/bin/pip install")


def test_every_page_that_is_linked_is_there() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)#]+)", text):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page} links to {link}"


def test_no_line_of_markdown_is_longer_than_120_characters() -> None:
    done = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=False)
    names = set(done.stdout.splitlines()) or {str(path.relative_to(ROOT)) for path in PAGES}  # an sdist has no git
    long = [
        f"{name}:{number}"
        for name in sorted(names)
        for number, line in enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > 120
    ]
    assert long == []


def test_the_tables_of_figures_are_those_of_the_records_with_their_commands() -> None:
    for path, text in records.pages().items():
        assert path.read_text(encoding="utf-8") == text, "python -m tests.experiments.records --write"


def test_every_record_has_a_protocol_and_commands_that_exist() -> None:
    assert len({record.key for record in records.RECORDS}) == len(records.RECORDS)
    for record in records.RECORDS:
        assert record.protocol.split()[0] in {"tail", "windowed-256", "folds", "adapted"}
        assert ("--context 256" in record.evaluate, "--adapt" in record.evaluate) == (
            record.protocol.startswith("windowed-256"),
            record.protocol.startswith("adapted"),
        )


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 100


def test_python_dash_m_is_the_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "charlstm", "--version"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("charlstm ")
