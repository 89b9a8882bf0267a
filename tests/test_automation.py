"""docs/automation.md as it is written: each block run by what it is meant for, night after night. Only the minutes are cut short, by a stand-in."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from charlstm import api
from tests import documents
from tests.conftest import ROOT, VERSES, slow, wait_for
from tests.documents import Block

pytestmark = [pytest.mark.skipif(os.name == "nt", reason="cron, make and systemd")]
BLOCKS = documents.blocks(ROOT / "docs" / "automation.md")


def block(language: str, containing: str) -> Block:
    """The one block of a language with something in it."""
    (found,) = [b for b in BLOCKS if b.language == language and containing in b.code]
    return found


@pytest.fixture
def home(folder: Path) -> Path:
    """A home folder with a text in texts/ and the program in .local/bin/."""
    documents.environment(folder)
    programs = folder / ".local" / "bin"
    programs.mkdir(parents=True)
    (programs / "charlstm").symlink_to(folder / ".programs" / "charlstm")
    (folder / "texts").mkdir()
    (folder / "texts" / "tweets.txt").write_text(VERSES * 20, encoding="utf-8")
    return folder


def environment(home: Path, **more: str) -> dict[str, str]:
    """The stand-ins and tools of the pages, but no settings."""
    return {k: v for k, v in documents.environment(home).items() if not k.startswith("CHARLSTM_")} | more


def sh(code: str, folder: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return documents.run(["sh", "-c", code], folder, variables)


def told(folder: Path, run: str) -> dict[str, Any]:
    """What `info` says of a run."""
    return api.describe(folder / "checkpoints" / f"{run}.npz")


# -- every night


def cron(line: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run a line of a crontab as cron does: its own little environment, in the home folder, and its rule for the percent sign."""
    command, *rest = re.split(r"(?<!\\)%", line.split(None, 5)[5])
    assert not rest, "an unescaped % ends the command: the rest would be its standard input"
    variables = {"HOME": str(home), "LOGNAME": "me", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}
    return sh(command.replace("\\%", "%"), home, variables)


def test_cron_trains_every_night_and_writes_every_morning(home: Path) -> None:
    lines = [line for line in block("crontab", "charlstm").code.splitlines() if not line.startswith("#")]
    night, morning = lines
    for line in lines:
        assert re.match(r"(\d+|\*) (\d+|\*) \* \* \*  ", line)
    steps, texts = [], []
    for _ in range(2):
        for line in (night, morning):
            done = cron(line, home)
            assert done.returncode == 0, (line, done)
            assert done.stdout + done.stderr == "", "cron mails what is written"
        steps.append(told(home / "texts", "tweets")["step"])
        texts.append((home / "texts" / "today.txt").read_text(encoding="utf-8"))
        assert texts[-1].count("\n") == 5
    assert 0 < steps[0] < steps[1], "each night goes on where the last one ended"
    assert len(set(texts)) == 2, "each morning has a text of its own"
    (log,) = (home / "texts").glob("train.[0-9]")
    assert re.fullmatch(r"train\.[1-7]", log.name)
    assert "resumed tweets" in log.read_text()


@slow
def test_a_night_that_was_cut_short_is_gone_on_with(home: Path) -> None:
    (night, _) = [line for line in block("crontab", "charlstm").code.splitlines() if not line.startswith("#")]
    command = night.split(None, 5)[5].replace("\\%", "%")
    process = subprocess.Popen(
        ["sh", "-c", command], cwd=home, env=environment(home, STAND_IN_MINUTES="5", PATH=os.environ["PATH"]), start_new_session=True
    )  # fmt: skip
    run = home / "texts" / "checkpoints" / "tweets.npz"
    wait_for(run.exists)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert cron(night, home).returncode == 0
    assert told(home / "texts", "tweets")["step"] > 0


@slow
def test_a_sample_that_is_killed_leaves_yesterdays(home: Path) -> None:
    texts = home / "texts"
    assert sh("charlstm train tweets.txt", texts, environment(home)).returncode == 0
    (texts / "today.txt").write_text("yesterday's")
    process = subprocess.Popen(
        [sys.executable, "-m", "charlstm", "sample", "tweets", "--length", "100000000", "--output", "today.txt"],
        cwd=texts, env=environment(home, PYTHONPATH=str(ROOT)), stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_for(lambda: any(path.stat().st_size for path in texts.glob(".today*")))
    process.kill()
    process.wait()
    assert (texts / "today.txt").read_text() == "yesterday's"


def units(home: Path) -> Iterator[tuple[Path, list[tuple[str, str]]]]:
    """The systemd units of the page, put where their first line says, with their settings."""
    for found in (b for b in BLOCKS if b.language == "ini"):
        path = home / found.code.splitlines()[0].removeprefix("# ~/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(found.code)
        yield path, [(k, v) for k, _, v in (line.partition("=") for line in found.code.splitlines()) if v]


@slow
def test_the_systemd_service_does_the_same(home: Path) -> None:
    (service, settings), (timer, _) = units(home)
    assert (service.name, timer.name) == ("charlstm.service", "charlstm.timer")
    values = {key: value.replace("%h", str(home)) for key, value in settings}
    steps = []
    for _ in range(2):
        for key, value in settings:
            if key == "ExecStart":
                done = documents.run(value.replace("%h", str(home)).split(), Path(values["WorkingDirectory"]), {"HOME": str(home)})  # fmt: skip
                assert done.returncode == 0, done.stderr
        steps.append(told(home / "texts", "tweets")["step"])
    assert 0 < steps[0] < steps[1]
    assert (home / "texts" / "today.txt").read_text(encoding="utf-8").count("\n") == 5


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd")
def test_systemd_understands_the_units(home: Path) -> None:
    paths = [str(path) for path, _ in units(home)]
    runtime = home / "runtime"
    runtime.mkdir(mode=0o700)
    variables = {"PATH": os.environ["PATH"], "HOME": str(home), "XDG_RUNTIME_DIR": str(runtime)}
    done = documents.run(["systemd-analyze", "--user", "--man=no", "verify", *paths], home, variables)
    complaints = [line for line in done.stderr.splitlines() if "charlstm" in line]
    assert complaints == []
    assert done.returncode == 0, done.stderr
    Path(paths[0]).write_text(Path(paths[0]).read_text().replace("Type=oneshot", "Type=nonsense"))
    broken = documents.run(["systemd-analyze", "--user", "--man=no", "verify", paths[0]], home, variables)
    assert "nonsense" in broken.stderr, "it would tell"


# -- a text that grows


@slow
@pytest.mark.parametrize("name", ["diary", "app"])
def test_a_text_that_grows_is_learned_night_after_night(home: Path, name: str) -> None:
    code, text = block("sh", f"{name}.txt").code, home / f"{name}.txt"
    text.write_text(VERSES * 20, encoding="utf-8")
    facts = []
    for added in ("", "жщ and some lines of today\n" * 30):
        with text.open("a", encoding="utf-8") as file:
            file.write(added)
        done = sh(code, home, environment(home))
        assert done.returncode == 0, done.stderr
        facts.append(told(home, name))
    assert sh(f"charlstm sample {name} --lines 2 --seed 1", home, environment(home)).returncode == 0
    chars = [f["text_chars"] for f in facts]
    assert chars[0] < chars[1]
    assert facts[1]["vocabulary"] > facts[0]["vocabulary"]
    assert facts[1]["hidden"] == facts[0]["hidden"]
    assert facts[1]["best_val_nats"] is not None


@slow
def test_what_was_learned_before_is_there_the_next_night(home: Path) -> None:
    """The second night begins where the first ended, and not at chance."""
    text = home / "diary.txt"
    text.write_text(VERSES * 20, encoding="utf-8")
    code = block("sh", "diary.txt").code
    sh(code, home, environment(home, STAND_IN_MINUTES="0.05"))
    reached = told(home, "diary")["best_val_nats"]
    with text.open("a", encoding="utf-8") as file:
        file.write(VERSES)
    sh(code, home, environment(home, CHARLSTM_EVAL_EVERY="1"))
    first = told(home, "diary")["history"][0]["val_nats"]
    assert first < reached + 0.5


@slow
def test_resume_refuses_a_text_that_has_grown(home: Path) -> None:
    texts = home / "texts"
    command = "charlstm train tweets.txt --minutes 20 --if-exists resume"
    assert sh(command, texts, environment(home)).returncode == 0
    with (texts / "tweets.txt").open("a") as file:
        file.write("one line more\n")
    done = sh(command, texts, environment(home))
    assert done.returncode == 2
    assert "--if-exists update" in done.stderr


# -- each exit status


@pytest.mark.parametrize(
    ("status", "ends", "said"),
    [
        (0, 0, ""),
        (1, 0, "disk"),
        (2, 0, "wrong"),
        (3, 0, "diverged"),
        (130, 130, ""),
        (143, 143, ""),
        (137, 0, "killed"),
    ],
)
def test_the_loop_does_what_each_status_asks_for(home: Path, status: int, ends: int, said: str) -> None:
    (home / "texts" / "two.txt").write_text("")
    program = home / ".programs" / "charlstm"
    variables = environment(home)
    program.write_text(f'#!/bin/sh\necho "$2" >> called\nexit {status}\n')
    done = sh(block("sh", "case $status").code, home, variables)
    assert done.returncode == ends
    assert said in done.stderr
    assert bool(done.stderr) == bool(said)
    called = (home / "called").read_text().split()
    assert called == ["texts/tweets.txt", "texts/two.txt"][: 1 if ends else 2]


@slow
def test_the_loop_gets_past_a_text_that_is_none(home: Path) -> None:
    (home / "texts" / "a.txt").write_bytes(bytes(range(256)) * 20)
    done = sh(block("sh", "case $status").code, home, environment(home))
    assert done.returncode == 0
    assert "texts/a.txt: the text or the command is wrong" in done.stderr
    assert told(home, "tweets")["step"] > 0
    assert "binary" in (home / "train.log").read_text()


def test_the_page_names_every_exit_status_of_the_program() -> None:
    from charlstm import errors
    from charlstm.cli.signals import SIGNALS

    table = (ROOT / "docs" / "automation.md").read_text(encoding="utf-8").split("| exit status |")[1]
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.CharlstmError)
    ]
    for status in {0} | {kind.exit_status for kind in kinds} | set(SIGNALS.values()):
        assert re.search(rf"^\|[\d, ]*\b{status}\b", table, re.MULTILINE), status


# -- two at once


@slow
def test_the_second_one_is_told_who_has_the_run(home: Path) -> None:
    (sentence,) = block("text", "is being trained by").code.splitlines()
    texts, command = home / "texts", "charlstm train tweets.txt --minutes 20 --if-exists resume"
    first = subprocess.Popen(
        ["sh", "-c", f"exec {command}"], cwd=texts, env=environment(home, STAND_IN_MINUTES="5"), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )  # fmt: skip
    try:
        wait_for((texts / "checkpoints" / "tweets.npz").exists)
        second = sh(command, texts, environment(home))
        assert sh("charlstm sample tweets --length 20 --seed 1", texts, environment(home)).returncode == 0
    finally:
        first.send_signal(signal.SIGTERM)
    assert first.wait(timeout=30) == 143
    assert second.returncode == 1
    pattern = re.escape(sentence).replace("4711", r"\d+").replace(r"on\ vm", r"on\ \S+")
    assert re.fullmatch(pattern, second.stderr.strip())


@slow
@pytest.mark.skipif(shutil.which("flock") is None, reason="no flock")
def test_with_flock_before_it_the_second_one_waits(home: Path) -> None:
    import fcntl

    texts = home / "texts"
    with open(texts / "nightly.lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        waiting = subprocess.Popen(
            ["sh", "-c", block("sh", "flock").code], cwd=texts, env=environment(home), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )  # fmt: skip
        time.sleep(0.5)
        assert waiting.poll() is None
        assert not (texts / "checkpoints").exists()
    assert waiting.wait(timeout=60) == 0
    assert told(texts, "tweets")["step"] > 0


# -- make


@slow
@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_make_trains_when_the_text_has_changed_and_only_then(home: Path) -> None:
    texts, variables = home / "texts", environment(home)
    (texts / "Makefile").write_text(block("make", "charlstm").code)
    assert sh("make", texts, variables).returncode == 0
    sample = (texts / "today.txt").read_text(encoding="utf-8")
    assert "up to date" in sh("make", texts, variables).stdout
    with (texts / "tweets.txt").open("a") as file:
        file.write("a line of today\n")
    later = time.time() + 5
    os.utime(texts / "tweets.txt", (later, later))
    done = sh("make", texts, variables)
    assert done.returncode == 0, done.stderr
    assert "--init-from tweets" in done.stdout
    assert (texts / "today.txt").read_text(encoding="utf-8") != sample


@slow
@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_what_was_trained_until_make_was_interrupted_is_kept(home: Path) -> None:
    texts, run = home / "texts", home / "texts" / "checkpoints" / "tweets.npz"
    (texts / "Makefile").write_text(block("make", "charlstm").code)
    process = subprocess.Popen(
        ["make"], cwd=texts, env=environment(home, STAND_IN_MINUTES="5"), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_for(run.exists)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=30) != 0
    wait_for(lambda: told(texts, "tweets")["step"] > 0)
    assert not (texts / "tweets.trained").exists()
    done = sh("make", texts, environment(home))
    assert done.returncode == 0, done.stderr
    assert "--init-from tweets" in done.stdout
    assert (texts / "today.txt").exists()
