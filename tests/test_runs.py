"""Runs as files: listed, renamed and removed together, never confused with texts, and nothing is chosen without a word."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from charlstm.storage.lock import Lock
from tests.conftest import ROOT, SMALL, Result, spawn

Program = Callable[..., Result]
PLACE = Path("checkpoints")


def files() -> set[str]:
    return {path.name for path in PLACE.iterdir() if not path.name.startswith(".")}


# -- charlstm runs


def test_runs_lists_all(charlstm: Program, copy_run: Callable[..., None]) -> None:
    assert charlstm("runs").out == ""
    copy_run(5)
    copy_run(5, name="other")
    assert {line.split()[0] for line in charlstm("runs").out.splitlines()[1:]} == {"verses", "other"}
    assert {entry["name"] for entry in json.loads(charlstm("runs", "--json").out)["runs"]} == {"verses", "other"}


def test_a_run_is_renamed_with_all_its_files(charlstm: Program, copy_run: Callable[..., None]) -> None:
    copy_run(5)
    assert charlstm("resume", "verses", "--steps", 6).status == 0
    before = {path.suffixes[0]: path.read_bytes() for path in PLACE.glob("*.npz")}
    told = charlstm("runs", "verses", "--rename", "poems")
    assert told.status == 0
    assert files() == {"poems.npz", "poems.best.npz"} == {Path(line).name for line in told.out.splitlines()}
    assert {path.suffixes[0]: path.read_bytes() for path in PLACE.glob("*.npz")} == before
    assert not (PLACE / ".verses.lock").exists()
    assert charlstm("resume", "poems", "--steps", 7).status == 0
    copy_run(5)
    assert "exists already" in charlstm("runs", "poems", "--rename", "verses").sentence
    assert charlstm("runs", "poems", "--rename", "../up").status == 2
    assert charlstm("runs", "no", "--rename", "yes").status == 2
    assert charlstm("runs", "fables", "--rename", "yes").status == 2
    assert charlstm("runs", "poems.best", "--rename", "yes").status == 2
    assert "has that name already" in charlstm("runs", "poems", "--rename", "poems").sentence


def test_runs_that_are_all_damaged_are_listed(charlstm: Program, folder: Path) -> None:
    PLACE.mkdir()
    for name in ("one", "two"):
        (PLACE / f"{name}.npz").write_bytes(b"PK")
    told = charlstm("runs")
    assert told.status == 0
    assert {line.split()[0] for line in told.out.splitlines()[1:]} == {"one", "two"}
    assert all(entry["error"] for entry in json.loads(charlstm("runs", "--json").out)["runs"])


def test_runs_are_removed_with_all_their_files(charlstm: Program, copy_run: Callable[..., None]) -> None:
    copy_run(5)
    copy_run(5, name="other")
    copy_run(5, name="third")
    (PLACE / ".verses.npz.77.tmp").write_bytes(b"half")
    assert charlstm("runs", "verses", "other", "--remove").status == 0
    assert files() == {"third.npz", "third.best.npz"}
    assert not list(PLACE.glob(".verses*"))
    assert "no run 'nosuch'" in charlstm("runs", "third", "nosuch", "--remove").sentence
    assert files() == {"third.npz", "third.best.npz"}
    for words in (("--remove",), ("verses", "--remove"), ("third",), ("rm", "third"), ("fables", "--remove")):
        assert charlstm("runs", *words).status == 2, words
    assert files() == {"third.npz", "third.best.npz"}


def test_a_run_in_training_is_neither_renamed_nor_removed(charlstm: Program, copy_run: Callable[..., None]) -> None:
    copy_run(5)
    lock = Lock(PLACE / "verses.npz")
    for words in (("--rename", "poems"), ("--remove",)):
        told = charlstm("runs", "verses", *words)
        assert told.status == 1
        assert f"is being trained by process {os.getpid()}" in told.sentence
    lock.release()
    assert files() == {"verses.npz", "verses.best.npz"}


# -- which run, and from where


def test_sample_says_which_run_it_samples(charlstm: Program, copy_run: Callable[..., None]) -> None:
    copy_run(60)
    told = charlstm("sample", "--length", 5, "--seed", 7)
    assert told.err == "from verses, step 60, seed 7\n"
    assert charlstm("sample", "--length", 5, "--seed", 7, "-q").err == ""
    facts = json.loads(charlstm("sample", "-l", 5, "--json", "-q").out)
    assert (facts["run"], facts["step"]) == ("verses", 60)


@pytest.mark.parametrize("words", ["sample", "info", "resume", "eval fables verses.txt", "runs", "sample fables"])
def test_a_folder_that_was_named_must_exist(charlstm: Program, text: Path, words: str) -> None:
    told = charlstm(*words.split(), "--checkpoints", "/nope")
    assert (told.status, told.out) == (2, "")
    assert "there is no folder /nope" in told.sentence


def test_the_options_that_users_expect_are_short_for_ours(charlstm: Program, copy_run: Callable[..., None]) -> None:
    copy_run(60)
    long = charlstm("sample", "--temp", 0.5, "--length", 20, "--prompt", "the ", "--seed", 3, "--output", "long.txt")
    short = charlstm("sample", "-t", 0.5, "-l", 20, "-p", "the ", "--seed", 3, "-o", "short.txt", "-q")
    assert (long.status, short.status) == (0, 0)
    assert Path("long.txt").read_text() == Path("short.txt").read_text()


def test_quiet_training_tells_only_the_path(charlstm: Program, text: Path) -> None:
    for words in (("train", text, "--steps", 2, *SMALL), ("resume", "--steps", 3)):
        told = charlstm(*words, "-q")
        assert (told.status, told.err) == (0, "")
        assert told.out.endswith(".npz\n")


def test_quiet_and_another_display_contradict_each_other(
    charlstm: Program, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("train", text, "--steps", 2, *SMALL, "-q")
    told = charlstm(*words, "--display", "json")
    assert (told.status, told.out) == (2, "")
    assert told.sentence == "charlstm: --quiet is short for --display none, so leave out --quiet, or --display json"
    assert not Path("checkpoints").exists()
    assert charlstm(*words, "--display", "none").status == 0
    monkeypatch.setenv("CHARLSTM_DISPLAY", "json")
    assert charlstm("resume", "--steps", 3, "-q").out.endswith(".npz\n"), "the command line overrides the environment"


# -- confused arguments


@pytest.mark.parametrize(
    "words", ["sample verses.txt", "sample ./verses.txt", "resume verses.txt", "info ./verses.txt"]
)
def test_a_text_in_the_place_of_a_run_is_recognised(charlstm: Program, text: Path, words: str) -> None:
    told = charlstm(*words.split())
    assert told.status == 2
    assert "verses.txt is not a run" in told.sentence
    assert "verses.txt', and then 'charlstm sample verses'" in told.sentence


@pytest.mark.parametrize("name", ["fables", "english"])
def test_a_bundled_model_is_not_resumed(charlstm: Program, folder: Path, name: str) -> None:
    assert f"'charlstm train TEXT --init-from {name}'" in charlstm("resume", name).sentence


@pytest.mark.parametrize("put", [shutil.copy, os.symlink])
def test_in_a_clone_the_bundled_models_are_no_runs_of_its_user(
    charlstm: Program, copy_run: Callable[..., None], put: Callable[[Path, Path], None]
) -> None:
    PLACE.mkdir(exist_ok=True)
    for name in ("fables.npz", "english.npz"):
        put(ROOT / "checkpoints" / name, PLACE / name)
    assert "from fables," in charlstm("sample", "-l", 5).err
    assert "there is no run in checkpoints yet" in charlstm("resume").sentence
    assert "'charlstm train TEXT --init-from english'" in charlstm("resume", "english").sentence
    assert "is bundled" in charlstm("runs", "fables", "--remove").sentence
    copy_run(5)
    for path in PLACE.glob("verses*"):
        os.utime(path, (0, 0))  # older than they are
    assert "from verses," in charlstm("sample", "-l", 5).err
    assert charlstm("resume", "--steps", 6).status == 0
    assert [line.split()[0] for line in charlstm("runs").out.splitlines()[1:]] == ["verses", "fables", "english"]


def test_a_damaged_run_names_its_file_that_is_whole(charlstm: Program, copy_run: Callable[..., None]) -> None:
    copy_run(60)
    whole = (PLACE / "verses.npz").read_bytes()
    (PLACE / "verses.npz").write_bytes(whole[: len(whole) // 2])
    told = charlstm("resume", "verses")
    assert told.status == 1
    assert "verses.best.npz is whole: sample from it with 'charlstm sample verses'" in told.sentence
    assert charlstm("sample", "verses", "-l", 5).status == 0
    (PLACE / "verses.npz").write_bytes(whole)
    (PLACE / "verses.best.npz").write_bytes(b"PK")
    assert "checkpoints/verses.npz is whole" in charlstm("sample", "verses").sentence
    (PLACE / "verses.npz").write_bytes(b"PK")
    assert "whole" not in charlstm("sample", "verses").sentence


# -- standard input that nobody asked for


def train(**streams: object) -> subprocess.Popen[bytes]:
    return spawn("train", "--steps", 1, "-q", "--hidden", 8, **streams)


@pytest.mark.skipif(os.name == "nt", reason="no FIONREAD")
def test_text_on_standard_input_is_not_ignored(folder: Path) -> None:
    (folder / "text").write_text("some text")
    with open(folder / "text") as file:
        out, err = (process := train(stdin=file)).communicate()
    assert (process.returncode, out) == (2, b"")
    assert b"write '-' to read standard input" in err
    read, write = os.pipe()
    os.write(write, b"some text")
    _, err = (process := train(stdin=read)).communicate()
    assert process.returncode == 2
    os.close(read)
    os.close(write)
    assert not (folder / "checkpoints").exists()


@pytest.mark.skipif(os.name == "nt", reason="no FIONREAD")
def test_standard_input_without_text_is_never_waited_for(folder: Path) -> None:
    """As cron, systemd, ssh and nohup have it."""
    from charlstm.cli.train import _has_input

    read, write = os.pipe()
    with open(read) as pipe, open(os.devnull) as nothing, open(folder / "empty", "w+") as empty:
        assert not _has_input(pipe), "open and silent"
        assert not _has_input(nothing)
        assert not _has_input(empty)
        os.write(write, b"x")
        assert _has_input(pipe)
        os.read(read, 1)
        os.close(write)
        assert not _has_input(pipe), "ended"
    assert not _has_input(pipe), "closed"
    assert not _has_input(None)
    script = f'exec "{sys.executable}" -m charlstm train --steps 1 -q --hidden 8 <&-'
    done = subprocess.run(
        ["sh", "-c", script], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
