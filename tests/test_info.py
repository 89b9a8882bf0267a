"""What `info` tells of a run and of all runs, to people and to programs, and that no file in the folder keeps it from doing so."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from charlstm.display import cells, curve
from charlstm.settings import TrainConfig
from charlstm.storage import checkpoint
from charlstm.storage.lock import Lock
from charlstm.text import corpus
from charlstm.training import state
from tests.conftest import SMALL, Result, spawn, sweep, wait_for

Program = Callable[..., Result]


@pytest.fixture
def runs(copy_run: Callable[..., None], folder: Path) -> Path:
    """Three runs, whose ages are in the order of their names: first is the newest."""
    for name, steps in (("third", 3), ("second", 4), ("first", 30)):
        copy_run(steps, "--eval-every", 5, name=name)
    age(folder / "checkpoints", first=60, second=7200, third=86400 * 3)
    return folder / "checkpoints"


def age(folder: Path, **seconds: float) -> None:
    for name, old in seconds.items():
        for path in folder.glob(f"{name}*"):
            os.utime(path, (time.time() - old, time.time() - old))


def begin(text: Path) -> None:
    """A run on disk that has not taken a step."""
    run, _ = state.begin(corpus.read([str(text)]), TrainConfig(hidden=4, batch=2, seq=5))
    Path("checkpoints").mkdir()
    checkpoint.save_run(Path("checkpoints/new.npz"), run)


def told(result: Result) -> str:
    assert result.status == 0, result.err
    return result.out


def test_one_screen_tells_all_about_a_run(charlstm: Program, runs: Path) -> None:
    out = told(charlstm("info", "first"))
    for word in (
        "1x8 LSTM",
        "verses.txt: 4,",
        "the last 10% held out",
        f"batch 4, window 10, {TrainConfig.optimizer} at 0.0",
        "clip 1, seed 1",
        "step 30 of 30 (100%)",
        "1.2k characters",
        "chance level 3.258",
        "recoveries 0",
        "first.best.npz",
        "resume    yes",
        "step 30\n",
    ):
        assert word in out, word
    for name in ("gradient", "|c|", "weights", "update", "saturated"):
        assert re.search(rf"{re.escape(name)} \S+ \(step \d+\)", out), name
    assert out.count(curve.MARK) > 5
    assert len(out.splitlines()) <= 24
    assert "second" not in out, "the list is for when no run is named"


def test_health_at_its_worst_is_the_largest_of_the_history(charlstm: Program, runs: Path) -> None:
    facts = json.loads(told(charlstm("info", "first", "--json")))
    for name, worst in facts["worst"].items():
        assert worst == max(point[name] for point in facts["history"])
    assert set(facts["worst"]) == {"grad_norm", "cell_max", "weight_norm", "update_ratio", "saturated"}


def test_with_no_run_named_the_newest_is_told_and_below_it_all(charlstm: Program, runs: Path) -> None:
    out = told(charlstm("info"))
    assert out.startswith("first\n")
    table = out[out.index("run ") :].splitlines()
    assert [line.split()[0] for line in table] == ["run", "first", "second", "third"]
    assert re.search(r"first +1x8 +1\.6k +30 of 30 +\d\.\d{3} +1 minute ago$", table[1])
    assert table[2].endswith("2 hours ago")
    assert table[3].endswith("3 days ago")
    listed = json.loads(told(charlstm("info", "--json")))["runs"]
    assert [row["name"] for row in listed] == ["first", "second", "third"]
    assert listed[0] | {"bytes": 0, "age_s": 0, "best_val_nats": 0, "parameters": 0} == {
        "name": "first", "path": "checkpoints/first.npz", "bytes": 0, "age_s": 0, "resumable": True, "trained_by": None,
        "step": 30, "steps": 30, "parameters": 0, "hidden": 8, "layers": 1, "best_val_nats": 0,
    }  # fmt: skip
    run = checkpoint.load_run(runs / "first.npz")
    assert listed[0]["parameters"] == run.parameters
    assert listed[0]["best_val_nats"] == run.best_val_nats


def test_a_run_that_is_in_training_is_told_so_for_as_long_as_it_is(charlstm: Program, runs: Path) -> None:
    me = f"process {os.getpid()} on {socket.gethostname()}"
    lock = Lock(runs / "first.npz")
    for name in ("first", str(runs / "first.best.npz")):
        assert f"characters; in training by {me}\n" in told(charlstm("info", name))
        assert json.loads(told(charlstm("info", name, "--json")))["trained_by"] == me
    assert re.search(r"^first .* in training$", told(charlstm("info")), re.MULTILINE)
    assert [row["trained_by"] for row in json.loads(told(charlstm("info", "--json")))["runs"]] == [me, None, None]
    lock.release()
    assert me not in told(charlstm("info", "first"))
    assert "in training" not in told(charlstm("info"))


@pytest.mark.parametrize("newest", ["broken", "first"])
@pytest.mark.parametrize("damage", ["foreign", "short", "number"])
def test_a_damaged_file_is_told_of_and_hides_no_other(charlstm: Program, runs: Path, newest: str, damage: str) -> None:
    good = (runs / "second.npz").read_bytes()
    bad = {"foreign": b"nonsense", "short": good[: len(good) // 2], "number": good.replace(b"param", b"qaram")}[damage]
    (runs / "broken.npz").write_bytes(bad)
    age(runs, broken=0 if newest == "broken" else 600)
    out = told(charlstm("info"))
    assert out.startswith("first\n")
    for name in ("first", "second", "third"):
        assert re.search(rf"^{name} +1x8 ", out, re.MULTILINE), name
    row = next(r for r in json.loads(told(charlstm("info", "--json")))["runs"] if r["name"] == "broken")
    if newest == "broken" or damage != "number":  # of an older one only what it says of itself is read
        assert "broken.npz" in row["error"]
        assert re.search(r"^broken +checkpoints/broken.npz ", out, re.MULTILINE)


def test_a_file_that_claims_to_be_huge_takes_no_time(charlstm: Program, runs: Path) -> None:
    with np.load(runs / "second.npz") as members:
        arrays = dict(members)
    meta = json.loads(arrays["meta"].tobytes())
    meta["model"]["layers"] = 10**15
    np.savez(runs / "huge.npz", **arrays | {"meta": np.frombuffer(json.dumps(meta).encode(), np.uint8)})
    age(runs, huge=600)
    assert re.search(r"^huge +checkpoints/huge.npz can't be used", told(charlstm("info")), re.MULTILINE)


def test_a_folder_with_nothing_but_damaged_files_is_an_error_in_one_sentence(charlstm: Program, folder: Path) -> None:
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "a.npz").write_bytes(b"")
    result = charlstm("info")
    assert result.status == 1
    assert "a.npz" in result.sentence
    assert result.out == ""


def test_the_shipped_model_is_told_of_on_a_fresh_install(charlstm: Program, folder: Path) -> None:
    out = told(charlstm("info"))
    assert out.startswith("fables\n")
    assert re.search(r"^resume +no\b", out, re.MULTILINE)
    assert curve.MARK in out
    facts = json.loads(told(charlstm("info", "--json")))
    assert facts["runs"] == []
    assert facts["memory_bytes"] is facts["recoveries"] is None
    assert not facts["resumable"]


def test_a_run_without_validation(charlstm: Program, text: Path) -> None:
    assert charlstm("train", text, "--steps", 20, "--eval-every", 5, "--val-fraction", 0, *SMALL).status == 0
    out = told(charlstm("info"))
    assert "nothing was held out" in out
    assert "o: held out" not in out
    assert "line: training" in out


def test_a_run_before_its_first_evaluation(charlstm: Program, text: Path) -> None:
    begin(text)
    assert "before the first evaluation" in told(charlstm("info"))


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_run_in_training_can_be_looked_at(charlstm: Program, text: Path, folder: Path) -> None:
    process = spawn("train", text, "--minutes", 10, "--save-every", 0, *SMALL, cwd=folder)
    try:
        wait_for((folder / "checkpoints/verses.npz").exists)
        steps: set[int] = set()

        def seen() -> int:
            steps.add(json.loads(told(charlstm("info", "--json")))["step"])
            return len(steps)

        wait_for(lambda: seen() == 3)
        assert told(charlstm("info")).startswith("verses\n")
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130


def test_on_a_terminal_it_fits_and_off_one_it_is_plain(
    charlstm: Program, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = told(charlstm("info", "first"))
    assert "\x1b" not in plain
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    for columns in (40, 60, 80, 200):
        monkeypatch.setenv("COLUMNS", str(columns))
        out = told(charlstm("info", "first"))
        assert set(re.findall(r"\x1b\[([\d;]*)m", out)) <= {"0", "1", "2"}
        lines = re.sub(r"\x1b\[[\d;]*m", "", out).splitlines()
        assert max(map(cells.width, lines)) <= columns


def test_the_memory_is_what_training_reckons_with(charlstm: Program, text: Path) -> None:
    result = charlstm("train", text, "--steps", 2, "--display", "json", *SMALL)
    started = json.loads(result.out.splitlines()[0])
    assert json.loads(told(charlstm("info", "--json")))["memory_bytes"] == started["memory_bytes"]


def test_a_run_of_which_only_the_best_is_left_or_with_an_odd_name_is_listed(charlstm: Program, runs: Path) -> None:
    (runs / "third.npz").unlink()
    (runs / "second.npz").rename(runs / "second.npz.npz")
    out = told(charlstm("info"))
    assert re.search(r"^third +1x8 .*can't be resumed$", out, re.MULTILINE)
    assert re.search(r"^second.npz +1x8 ", out, re.MULTILINE)


def test_a_name_can_not_drive_the_terminal(charlstm: Program, runs: Path) -> None:
    (runs / "third.npz").rename(runs / "th\x1b[31mird.npz")
    assert "\x1b" not in told(charlstm("info"))
    assert "\x1b" not in told(charlstm("info", "th\x1b[31mird"))


def test_where_there_is_no_unicode_there_are_no_curves(folder: Path) -> None:
    process = spawn("info", cwd=folder, env={"PYTHONIOENCODING": "ascii"})
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert b"?" not in out


# -- the plot


@pytest.mark.parametrize("kind", sweep(["png", "svg"], "svg"))
def test_a_plot_is_a_picture_and_changes_nothing_else(charlstm: Program, runs: Path, kind: str) -> None:
    pytest.importorskip("matplotlib")
    (runs / "first.npz").rename(runs / "$漢字$_^.npz")
    before = told(charlstm("info", "$漢字$_^"))
    result = charlstm("info", "$漢字$_^", "--plot", f"curves.{kind}")
    assert told(result) == before
    assert f"curves.{kind}" in result.err
    data = Path(f"curves.{kind}").read_bytes()
    if kind == "png":
        assert data.startswith(b"\x89PNG\r\n")
    else:
        assert ElementTree.fromstring(data).tag.endswith("svg")
    assert not list(Path().glob(".*"))


def test_a_plot_has_the_n_gram_and_a_legend_that_covers_no_curve(
    charlstm: Program, runs: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = pytest.importorskip("matplotlib.figure").Figure
    drawn: list[Any] = []
    monkeypatch.setattr(figure, "savefig", lambda self, *_, **__: drawn.append(self))
    assert charlstm("info", "first", "--plot", "curves.png").status == 0
    figure = drawn.pop()
    figure.draw_without_rendering()
    for axes in figure.axes:
        assert axes.get_legend().get_window_extent().x0 >= axes.get_window_extent().x1
    labels = [entry.get_text() for entry in figure.axes[0].get_legend().get_texts()]
    assert labels[:2] == ["training", "held out"]
    assert re.fullmatch(r"\d-gram", labels[2])
    text.unlink()
    assert charlstm("info", "first", "--plot", "curves.png").status == 0
    assert len(drawn.pop().axes[0].get_legend().get_texts()) == 2


def test_a_plot_without_matplotlib_says_what_to_type(
    charlstm: Program, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = charlstm("info", "first", "--plot", "curves.png")
    assert result.status == 2
    assert "pip install 'charlstm[plot]'" in result.sentence
    assert result.out == ""
    assert not Path("curves.png").exists()


def test_a_plot_that_can_not_be_written_leaves_the_old_one(charlstm: Program, runs: Path) -> None:
    assert charlstm("info", "first", "--plot", "curves.pdf").status == 2
    assert charlstm("info", "third", "--plot", "curves.pdf").status == 2
    pytest.importorskip("matplotlib")
    result = charlstm("info", "first", "--plot", "no/where.png")
    assert result.status == 1
    assert "no/where.png" in result.sentence


def test_a_run_without_history_has_nothing_to_plot(charlstm: Program, text: Path) -> None:
    begin(text)
    result = charlstm("info", "--plot", "curves.png")
    assert result.status == 2
    assert "no curves yet" in result.sentence
