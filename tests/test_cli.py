"""The program as a shell sees it: what goes to stdout, what to stderr, and with which status it ends."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from charlstm.storage import checkpoint
from tests.conftest import SMALL, Result, slow, spawn, sweep, wait_for

Program = Callable[..., Result]


@pytest.fixture
def trained(copy_run: Callable[..., None]) -> None:
    """A small run called verses."""
    copy_run(30)


# -- train, resume, sample, info


def test_train_writes_the_run_and_its_best_prints_where_and_logs_plain_lines(
    charlstm: Program, text: Path, folder: Path
) -> None:
    trained = charlstm("train", text, "--steps", 30, *SMALL)
    assert (trained.status, trained.out) == (0, "checkpoints/verses.best.npz\n")
    assert {p.name for p in (folder / "checkpoints").glob("[!.]*")} == {"verses.npz", "verses.best.npz"}
    assert checkpoint.load_run(folder / "checkpoints/verses.npz").step == 30

    assert "\x1b" not in trained.err
    assert "\r" not in trained.err
    assert "held-out loss" in trained.err
    assert all(line[:2] == "20" for line in trained.err.splitlines()), "each line begins with the time"


def test_sample_puts_the_text_and_nothing_else_on_stdout(trained: None, charlstm: Program) -> None:
    result = charlstm("sample", "--temp", 0.8, "--length", 200, "--seed", 5)
    assert result.status == 0
    assert len(result.out) == 200
    assert result.err.startswith("from verses, step ")
    assert result.err.endswith(", seed 5\n")
    assert charlstm("sample", "verses", "--temp", 0.8, "--length", 200, "--seed", 5).out == result.out
    assert charlstm("sample", "--temp", 0.8, "--length", 200, "--seed", 6).out != result.out


def test_a_seed_that_was_drawn_is_told_and_gives_the_same_text(trained: None, charlstm: Program) -> None:
    first = charlstm("sample", "--length", 50)
    seed = first.err.rpartition(" seed ")[2].strip()
    assert charlstm("sample", "--length", 50, "--seed", seed).out == first.out


def test_a_prompt_comes_first_and_length_counts_new_characters(trained: None, charlstm: Program) -> None:
    out = charlstm("sample", "--prompt", "the cat", "--length", 30, "--seed", 1).out
    assert out.startswith("the cat")
    assert len(out) == 7 + 30


def test_lines_stop_and_count(trained: None, charlstm: Program) -> None:
    lines = charlstm("sample", "--lines", 3, "--seed", 1).out
    assert lines.count("\n") == 3
    assert lines.endswith("\n")
    stopped = charlstm("sample", "--stop", "e", "--length", 0, "--seed", 1).out
    assert "e" not in stopped
    several = charlstm("sample", "-n", 3, "--length", 20, "--seed", 7, "--json").out.splitlines()
    assert [json.loads(line)["seed"] for line in several] == [7, 8, 9]
    alone = charlstm("sample", "--length", 20, "--seed", 8).out
    assert json.loads(several[1])["text"] == alone, "a text of a batch is the one that its seed gives alone"
    assert charlstm("sample", "-n", 2, "--length", 20, "--seed", 7).out.splitlines()


def test_sample_json_tells_text_seed_and_surprise(trained: None, charlstm: Program) -> None:
    told = json.loads(charlstm("sample", "--json", "--length", 40, "--seed", 3).out)
    assert told["seed"] == 3
    assert told["text"] == charlstm("sample", "--length", 40, "--seed", 3).out
    assert 0 < told["nats_per_char"] < 10


def test_greedy_sampling_is_the_same_whatever_the_seed(trained: None, charlstm: Program) -> None:
    first, second = (charlstm("sample", "--temp", 0, "--length", 60, "--seed", s).out for s in (1, 2))
    assert first == second


def test_resume_goes_on_and_ends_as_if_it_had_never_stopped(trained: None, charlstm: Program, folder: Path) -> None:
    assert charlstm("resume", "--steps", 60, "--preview-every", 0).status == 0
    there = folder / "there"
    for steps in (30, 60):
        result = charlstm(
            "train", "verses.txt", "--steps", steps, "--if-exists", "resume", "--checkpoints", there, *SMALL
        )
        assert result.status == 0
    assert (there / "verses.npz").read_bytes() == (folder / "checkpoints/verses.npz").read_bytes()


def test_resume_of_a_finished_run_says_so_and_changes_nothing(trained: None, charlstm: Program, folder: Path) -> None:
    path = folder / "checkpoints/verses.npz"
    before = path.read_bytes()
    result = charlstm("resume")
    assert result.status == 0
    assert "finished" in result.err
    assert "--minutes" in result.err
    assert path.read_bytes() == before


def test_the_same_command_again_has_nothing_left_to_do(charlstm: Program, text: Path, folder: Path) -> None:
    command = ("train", text, "--steps", 12, "--if-exists", "resume", *SMALL)
    files = []
    for _ in range(3):
        assert charlstm(*command).status == 0
        files.append((folder / "checkpoints/verses.npz").read_bytes())
    assert files[0] == files[1] == files[2]


def test_settings_that_a_run_does_not_have_are_left_out_when_it_goes_on_and_that_is_said(
    charlstm: Callable[..., Result], text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = ("train", text, "--steps", 5, "--if-exists", "resume", "--optimizer", "adam", *SMALL)
    assert "ignored" not in charlstm(*train).err
    assert "ignored" not in charlstm(*train).err, "it has all of them"
    monkeypatch.setenv("CHARLSTM_CLIP", "7")
    result = charlstm("train", text, "--steps", 6, "--if-exists", "resume", "--hidden", 512, "--seed", 1)
    assert result.status == 0
    (note,) = [line for line in result.err.splitlines() if "ignored" in line]
    assert " note: " in note
    assert note.endswith("--hidden 512 (the run has 8), --clip 7.0 (the run has 1.0)")


def test_the_newest_run_is_the_one_that_is_meant(charlstm: Program, text: Path, folder: Path) -> None:
    for number, name in enumerate(("old", "new")):
        charlstm("train", text, "--steps", 2, "--name", name, *SMALL)
        for path in (folder / "checkpoints").glob(f"{name}*"):
            os.utime(path, (1000 + number, 1000 + number))
    assert json.loads(charlstm("info", "--json").out)["name"] == "new"
    os.utime(folder / "checkpoints/old.npz", (5000, 5000))
    assert json.loads(charlstm("info", "--json").out)["name"] == "old"


def test_info_names_what_programs_rely_on(trained: None, charlstm: Program) -> None:
    told = json.loads(charlstm("info", "verses", "--json").out)
    for name in [
        "name",
        "path",
        "format",
        "step",
        "steps",
        "chars_trained",
        "parameters",
        "hidden",
        "layers",
        "vocabulary",
        "val_nats",
        "best_val_nats",
        "history",
    ]:
        assert name in told
    assert (told["name"], told["step"], told["hidden"]) == ("verses", 30, 8)
    assert told["chars_trained"] == 30 * 4 * 10
    plain = charlstm("info", "verses").out
    assert "parameters" in plain
    assert "\x1b" not in plain


def test_the_built_in_text_is_trained_on_when_none_is_named(charlstm: Program, folder: Path) -> None:
    assert charlstm("train", "--steps", 2, *SMALL).status == 0
    told = json.loads(charlstm("info", "my-fables", "--json").out)
    assert told["text"] == ["fables"]
    assert charlstm("resume", "--steps", 4, "--preview-every", 0).status == 0


def test_a_fresh_install_can_sample_at_once(charlstm: Program, folder: Path) -> None:
    result = charlstm("sample", "--temp", 0.8, "--length", 100, "--seed", 1)
    assert result.status == 0
    assert len(result.out) == 100


def test_a_text_from_standard_input(charlstm: Program, folder: Path) -> None:
    process = spawn("train", "-", "--steps", 5, *SMALL, stdin=subprocess.PIPE, cwd=folder)
    _, err = process.communicate(b"some text that is piped into the program\n" * 20)
    assert process.returncode == 0, err
    again = charlstm("resume", "--steps", 9)
    assert again.status == 2
    assert "standard input" in again.sentence


# -- settings


def test_the_environment_sets_options_and_the_command_line_stands_above_it(
    charlstm: Program, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHARLSTM_STEPS", "7")
    monkeypatch.setenv("CHARLSTM_HIDDEN", "5")
    monkeypatch.setenv("CHARLSTM_CHECKPOINTS", "elsewhere")
    assert charlstm("train", text, "--preview-every", 0).status == 0
    told = json.loads(charlstm("info", "--json").out)
    assert (told["step"], told["hidden"], told["path"]) == (7, 5, "elsewhere/verses.npz")
    assert charlstm("train", text, "--epochs", 0.02, "--hidden", 4, "--if-exists", "overwrite").status == 0
    told = json.loads(charlstm("info", "--json").out)
    assert told["hidden"] == 4
    assert told["step"] != 7


def test_json_display_speaks_json_and_nothing_else(charlstm: Program, text: Path) -> None:
    result = charlstm("train", text, "--steps", 30, "--display", "json", *SMALL[:-2], "--preview-every", 0.01)
    told = [json.loads(line) for line in result.out.splitlines()]
    assert result.err == ""
    assert {"started", "progress", "evaluated", "sampled", "saved", "finished"} == {line["event"] for line in told}
    assert (told[0]["event"], told[-1]["event"]) == ("started", "finished")
    progress = next(line for line in told if line["event"] == "progress")
    for name in [
        "step",
        "steps",
        "epoch",
        "elapsed_s",
        "loss_nats",
        "lr",
        "grad_norm",
        "cell_max",
        "weight_norm",
        "chars_per_s",
    ]:
        assert isinstance(progress[name], (int, float)), name


def test_the_silent_display_is_silent(charlstm: Program, text: Path) -> None:
    result = charlstm("train", text, "--steps", 3, "--display", "none", *SMALL)
    assert (result.out, result.err) == ("checkpoints/verses.best.npz\n", "")


def test_the_bar_is_drawn_on_stderr(charlstm: Program, text: Path) -> None:
    result = charlstm("train", text, "--steps", 30, "--display", "bar", *SMALL)
    assert result.status == 0
    assert "100%|" in result.err
    assert result.out == "checkpoints/verses.best.npz\n"


def test_a_time_budget_is_kept(charlstm: Program, text: Path) -> None:
    began = time.monotonic()
    assert charlstm("train", text, "--minutes", 0.04, *SMALL).status == 0
    assert 1.0 < time.monotonic() - began < 8
    told = json.loads(charlstm("info", "--json").out)
    assert told["step"] == told["steps"] > 20


def test_overwriting_begins_anew(trained: None, charlstm: Program, text: Path) -> None:
    assert charlstm("train", text, "--steps", 3, "--if-exists", "overwrite", *SMALL).status == 0
    assert json.loads(charlstm("info", "--json").out)["step"] == 3


# -- bad input: one sentence, the right status, nothing lost


@pytest.mark.parametrize(
    ("words", "status", "expected"),
    [
        (["train", "nowhere.txt"], 2, "nowhere.txt"),
        (["train", "empty.txt"], 2, "is empty"),
        (["train", "one.txt"], 2, "one character"),
        (["train", "binary.txt"], 2, "binary"),
        (["train", "bad.txt"], 2, "line 1, offset 3"),
        (["train", "verses.txt", "--encoding", "klingon"], 2, "klingon"),
        (["train", "verses.txt", "--name", "../up"], 2, "name of a run"),
        (["train", "verses.txt", "--hidden", "0"], 2, "--hidden 0"),
        (["train", "verses.txt", "--lr", "nan"], 2, "--lr nan"),
        (["train", "verses.txt", "--lr", "-1"], 2, "--lr -1"),
        (["train", "verses.txt", "--dropout", "1"], 2, "--dropout 1"),
        (["train", "verses.txt", "--minutes", "0"], 2, "--minutes 0"),
        (["train", "verses.txt", "--minutes", "1", "--steps", "5"], 2, "--minutes and --steps"),
        (["train", "verses.txt", "--optimizer", "magic"], 2, "magic"),
        (["train", "verses.txt", "--threads", "-1"], 2, "--threads -1"),
        (["train", "verses.txt", "--save-every", "-1"], 2, "--save-every -1"),
        (["train", "verses.txt", "--no-such-option"], 2, "--no-such-option"),
        (["train", "verses.txt", "--checkpoints", "verses.txt/folder"], 1, "verses.txt/folder"),
        (["resume", "nobody"], 2, "no run 'nobody'"),
        (["resume"], 2, "charlstm train"),
        (["sample", "nobody"], 2, "no run 'nobody'"),
        (["sample", "verses.txt.npz"], 2, "no file"),
        (["sample", "fake.npz"], 1, "not a checkpoint"),
        (["sample", "--temp", "-1"], 2, "--temp -1"),
        (["sample", "--temp", "hot"], 2, "valid number"),
        (["sample", "--top-p", "0"], 2, "--top-p 0"),
        (["sample", "--length", "-5"], 2, "--length -5"),
        (["sample", "-n", "0"], 2, "-n 0"),
        (["sample", "--prompt", "naïve"], 2, "'ï' (U+00EF)"),
        (["info", "nobody"], 2, "no run 'nobody'"),
        (["nonsense"], 2, "nonsense"),
    ],
)
def test_bad_input_is_one_sentence_and_the_right_status(
    charlstm: Program, text: Path, folder: Path, words: list[str], status: int, expected: str
) -> None:
    for name, data in (("empty.txt", b""), ("one.txt", b"x"), ("bad.txt", b"abc\xff\xfe def"), ("fake.npz", b"PK??")):
        (folder / name).write_bytes(data)
    (folder / "binary.txt").write_bytes(bytes(range(256)) * 20)
    before = sorted(p.name for p in folder.iterdir())
    result = charlstm(*words)
    assert result.status == status, result.err
    assert expected in result.sentence
    assert result.out == ""
    assert sorted(p.name for p in folder.iterdir()) == before


def test_a_run_that_exists_is_refused_and_kept(trained: None, charlstm: Program, text: Path, folder: Path) -> None:
    before = (folder / "checkpoints/verses.npz").read_bytes()
    result = charlstm("train", text, *SMALL)
    assert result.status == 2
    assert "--if-exists" in result.sentence
    assert (folder / "checkpoints/verses.npz").read_bytes() == before


def test_a_changed_text_is_refused(trained: None, charlstm: Program, text: Path) -> None:
    before = text.read_text()
    for changed, what in (
        (before + "and one line more\n", "18 characters were appended"),
        ("and one line more\n" + before, f"{len(before):,} characters then, {len(before) + 18:,} now"),
        (before.replace("cat", "c\u00e1t", 1), "it now contains 'á' (U+00E1)"),
        (before.replace("cat", "act", 1), f"it still has {len(before):,} characters"),
    ):
        text.write_text(changed, encoding="utf-8")
        result = charlstm("resume", "--steps", 50)
        assert result.status == 2
        assert f"has changed ({what}" in result.sentence
        assert "--name verses --if-exists update" in result.sentence


def test_a_suggested_command_names_the_folder_of_the_run(trained: None, charlstm: Program, text: Path) -> None:
    Path("checkpoints").rename("my runs")
    text.write_text(text.read_text() + "and more", encoding="utf-8")
    changed = charlstm("resume", "verses", "--checkpoints", "my runs").sentence
    assert changed.endswith("verses.txt --name verses --checkpoints 'my runs' --if-exists update'")
    exists = charlstm("train", text, "--checkpoints", "my runs").sentence
    assert "'charlstm resume verses --checkpoints 'my runs''" in exists


def test_a_near_miss_is_suggested(trained: None, charlstm: Program) -> None:
    assert "did you mean verses" in charlstm("sample", "verse").sentence


def test_unknown_characters_of_a_prompt_can_be_skipped(trained: None, charlstm: Program) -> None:
    out = charlstm("sample", "--prompt", "caté", "--unknown", "skip", "--length", 5, "--seed", 1).out
    assert out.startswith("cat")
    assert len(out) == 3 + 5


def test_a_short_text_is_made_to_fit_and_said_so(charlstm: Program, folder: Path) -> None:
    for chars in (2, 3, 17, 200):
        (folder / f"short{chars}.txt").write_text("ab" * (chars // 2) + "c" * (chars % 2))
        result = charlstm("train", f"short{chars}.txt", "--steps", 3, "--preview-every", 0)
        assert result.status == 0, result.err
        assert "text is short" in result.err
        assert charlstm("sample", f"short{chars}", "--length", 5).status == 0


def test_a_text_without_space_or_line_end_can_be_sampled_without_a_prompt(charlstm: Program, folder: Path) -> None:
    (folder / "dense.txt").write_text("abcdefgh" * 100)
    assert charlstm("train", "dense.txt", "--steps", 3, *SMALL).status == 0
    assert len(charlstm("sample", "--length", 9, "--seed", 1).out) == 9
    assert "line ends" in charlstm("sample", "--lines", 2).sentence


@pytest.mark.skipif(os.name == "nt", reason="folders of other systems")
def test_a_folder_that_cannot_be_written_to_is_said_at_once(charlstm: Program, text: Path, folder: Path) -> None:
    (folder / "file").write_text("")
    result = charlstm("train", text, "--checkpoints", "file", *SMALL)
    assert result.status == 1
    assert "--checkpoints" in result.sentence


def test_version_and_help(charlstm: Program) -> None:
    assert charlstm("--version").out.startswith("charlstm ")
    assert "train" in charlstm("--help").out
    assert (charlstm().status, charlstm().out) == (2, "")


# -- signals, pipes, terminals


@pytest.mark.parametrize("name", sweep(["SIGINT", "SIGTERM", "SIGHUP"], "SIGTERM"))
def test_a_signal_stops_after_saving_and_resume_goes_on(charlstm: Program, text: Path, folder: Path, name: str) -> None:
    status = 130 if name == "SIGINT" else 143
    process = spawn("train", text, "--steps", 100000, "--save-every", 0.05, *SMALL, cwd=folder)
    path = folder / "checkpoints/verses.npz"
    wait_for(lambda: path.exists() and checkpoint.load_run(path).step > 0)
    process.send_signal(getattr(signal, name))
    out, err = process.communicate(timeout=20)
    assert process.returncode == status, err
    assert b"Traceback" not in err
    assert out.strip().endswith(b".npz")
    stopped_at = checkpoint.load_run(path).step
    assert stopped_at > 0
    assert charlstm("resume", "--steps", stopped_at + 5).status == 0
    assert checkpoint.load_run(path).step == stopped_at + 5


def test_a_run_that_was_killed_leaves_a_whole_file(text: Path, folder: Path) -> None:
    process = spawn("train", text, "--steps", 100000, "--save-every", 0.05, *SMALL, cwd=folder)
    path = folder / "checkpoints/verses.npz"
    wait_for(lambda: path.exists() and checkpoint.load_run(path).step > 0)
    process.kill()
    process.communicate()
    assert checkpoint.load_run(path).step > 0


@slow
def test_a_closed_pipe_ends_quietly(folder: Path) -> None:
    process = spawn("sample", "-q", "--length", 0, "--seed", 1, cwd=folder)
    assert process.stdout is not None
    assert len(process.stdout.read(100)) == 100
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr:
        assert process.stderr.read() == b""
    assert process.wait(timeout=20) == 0


@slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_under_stdout_is_one_sentence(folder: Path) -> None:
    with open("/dev/full", "w") as full:
        process = spawn("sample", "--length", 50, "--seed", 1, cwd=folder, stdout=full)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert b"No space left" in err
    assert b"Traceback" not in err


@slow
def test_an_ascii_terminal_gets_what_it_can_show(folder: Path, charlstm: Program) -> None:
    (folder / "é.txt").write_text("ééé naïve\n" * 60, encoding="utf-8")
    assert charlstm("train", "é.txt", "--steps", 2, "--name", "e", *SMALL).status == 0
    process = spawn(
        "sample", "--length", 50, "--seed", 1, cwd=folder, env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    )
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert len(out) == 50


def test_standard_input_is_left_alone(text: Path, folder: Path) -> None:
    """It runs to its end with a standard input that is open and never says anything."""
    process = spawn("train", text, "--steps", 3, *SMALL, cwd=folder, stdin=subprocess.PIPE)
    assert process.wait(timeout=30) == 0
    process.communicate()


@slow
def test_a_closed_standard_input_does_not_matter(text: Path, folder: Path) -> None:
    command = f"exec {sys.executable} -m charlstm train verses.txt --steps 3 {' '.join(SMALL)} <&-"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    done = subprocess.run(["sh", "-c", command], cwd=folder, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_sample_goes_into_a_file_that_is_never_half_written(
    charlstm: Callable[..., Result], trained: None, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--length", 60, "--seed", 4)
    expected = charlstm("sample", *options).out
    into = folder / "today.txt"
    into.write_text("yesterday's", encoding="utf-8")
    result = charlstm("sample", *options, "--output", into)
    assert (result.status, result.out) == (0, "")
    assert into.read_text(encoding="utf-8") == expected
    told = charlstm("sample", *options, "--json", "--output", into)
    assert told.status == 0
    assert json.loads(into.read_text(encoding="utf-8"))["text"] == expected

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    failed = charlstm("sample", *options, "--output", into)
    assert failed.status == 1
    assert "--output" in failed.err
    assert json.loads(into.read_text(encoding="utf-8"))["text"] == expected
    assert [path.name for path in folder.glob(".today*")] == []


def test_a_file_of_a_text_without_an_end_is_refused(
    charlstm: Callable[..., Result], trained: None, folder: Path
) -> None:
    assert charlstm("sample", "--length", 0, "--output", folder / "x").status == 2


@slow
def test_a_run_that_ended_early_is_done_for_the_same_command(charlstm: Callable[..., Result], folder: Path) -> None:
    """As cron gives it every night; nothing but letter frequencies can be learned of this text, so that it ends early."""
    Path("dice.txt").write_text("".join(random.Random(0).choices("the cat sat on a mat.\n", k=6000)), encoding="utf-8")
    command = ("train", "dice.txt", "--steps", 400, "--hidden", 32, "--if-exists", "resume", "--preview-every", 0)
    first = charlstm(*command)
    assert first.status == 0
    assert "stopped early" in first.err
    before = Path("checkpoints/dice.npz").read_bytes()
    again = charlstm(*command)
    assert again.status == 0
    assert "stopped early at step" in again.err
    assert Path("checkpoints/dice.npz").read_bytes() == before
    assert charlstm("resume", "dice", "--minutes", 0.01).status == 0
    assert Path("checkpoints/dice.npz").read_bytes() != before
