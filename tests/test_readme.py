"""The README's two commands, and the links between the pages; what else they show is run by test_documents."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.conftest import ROOT
from tests.documents import PAGES

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


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 100


def test_python_dash_m_is_the_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "charlstm", "--version"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("charlstm ")
