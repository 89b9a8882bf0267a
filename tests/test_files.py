"""Files as they may be: links, devices, FIFOs, modes, names and locks. Nothing is destroyed that is not ours."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from charlstm import events, launch, session
from charlstm.errors import CheckpointError, LockedError, SaveError
from charlstm.settings import Budget, RunOptions, TrainRequest
from charlstm.storage import archive, atomic, checkpoint, describe
from charlstm.storage.lock import Lock, trainer_of
from charlstm.storage.runs import RunFiles
from charlstm.training.control import Stop
from charlstm.training.history import MOST_ROWS, HistoryRow, thinned
from tests.conftest import SMALL, Result, slow, spawn, sweep
from tests.experiments import fields

Program = Callable[..., Result]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX only")
SETTINGS = {"hidden": 8, "layers": 1, "batch": 4, "seq": 10, "eval_every": 10}


def begin(text: Path, steps: int = 40, **request: Any) -> session.Session:
    made = TrainRequest(
        (str(text),), SETTINGS, Budget(steps=steps), RunOptions(preview_every_s=0, threads=1), **request
    )
    return launch.start(made, Stop())


def write(path: Path | str, content: bytes = b"new") -> None:
    atomic.write_atomically(Path(path), lambda file: file.write(content) and None)


def meta_of(path: Path) -> dict[str, Any]:
    return json.loads(np.load(path)["meta"].tobytes())  # type: ignore[no-any-return]


def put_meta(path: Path, meta: dict[str, Any]) -> None:
    with np.load(path) as arrays:
        members = dict(arrays)
    np.savez(path, **members | {"meta": np.frombuffer(json.dumps(meta).encode(), np.uint8)})


# -- what is written to


def test_what_is_no_regular_file_is_written_through_and_stays(charlstm: Program, copy_run: Any, folder: Path) -> None:
    copy_run(5)
    os.mkfifo("fifo")
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(Path("fifo").read_bytes()), daemon=True)
    reader.start()
    assert charlstm("sample", "--length", 20, "--seed", 1, "--output", "fifo").status == 0
    reader.join(10)
    plain = charlstm("sample", "--length", 20, "--seed", 1)
    assert read == [plain.out.encode()]
    assert stat.S_ISFIFO(Path("fifo").stat().st_mode)
    Path("null").symlink_to("/dev/null")
    for device in ("/dev/null", "null"):
        assert charlstm("sample", "--length", 20, "--output", device).status == 0
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    assert str(Path("null").readlink()) == "/dev/null"
    for path in ("-", "/dev/stdout"):
        assert charlstm("sample", "--length", 20, "--seed", 1, "--output", path).out == plain.out
    assert "No space left" in charlstm("sample", "--length", 20, "--output", "/dev/full").sentence
    assert [path.name for path in folder.rglob("*.tmp")] == []


@pytest.mark.parametrize("path", sweep(["log", "/dev/stdout"], "log"))
def test_a_file_that_standard_output_appends_to_is_appended_to(copy_run: Any, folder: Path, path: str) -> None:
    copy_run(5)
    Path("log").write_text("before\n")
    with open("log", "ab") as log:
        process = spawn("sample", "--length", 20, "--output", path, stdout=log)
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert Path("log").read_text().startswith("before\n")
    assert len(Path("log").read_text()) == 7 + 20


def test_a_link_stays_and_its_target_is_replaced_whole(folder: Path) -> None:
    Path("elsewhere").mkdir()
    target = Path("elsewhere/target")
    target.write_bytes(b"old")
    inode = target.stat().st_ino
    Path("link").symlink_to("elsewhere/target")
    Path("second").symlink_to("link")
    write("second")
    assert (str(Path("second").readlink()), str(Path("link").readlink())) == ("link", "elsewhere/target")
    assert target.read_bytes() == b"new"
    assert target.stat().st_ino != inode
    Path("dangling").symlink_to("elsewhere/made")
    write("dangling")
    assert Path("elsewhere/made").read_bytes() == b"new"
    Path("loop").symlink_to("loop")
    with pytest.raises(SaveError, match="symbolic links"):
        write("loop")


def test_a_file_keeps_its_mode_and_its_owner(folder: Path) -> None:
    Path("private").write_bytes(b"old")
    Path("private").chmod(0o600)
    if os.geteuid() == 0:
        os.chown("private", 12345, 23456)
    before = Path("private").stat()
    write("private")
    after = Path("private").stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    umask = os.umask(0o027)
    write("fresh")
    os.umask(umask)
    assert stat.S_IMODE(Path("fresh").stat().st_mode) == 0o640


def test_a_temporary_file_never_follows_a_link(folder: Path) -> None:
    Path("precious").write_bytes(b"precious")
    Path(f".out.{os.getpid()}.tmp").symlink_to("precious")
    write("out")
    assert Path("precious").read_bytes() == b"precious"
    write("x" * 255)  # the longest name there is
    assert sorted(path.name for path in folder.iterdir()) == ["out", "precious", "x" * 255]


def test_a_run_keeps_its_link_and_its_mode(charlstm: Program, text: Path) -> None:
    """A run that is a link to another disk stays one, and both names share a lock."""
    assert charlstm("train", text, "--steps", 3, *SMALL).status == 0
    Path("disk").mkdir()
    latest, real = Path("checkpoints/verses.npz"), Path("disk/real.npz")
    latest.rename(real)
    real.chmod(0o600)
    latest.symlink_to("../disk/real.npz")
    assert charlstm("resume", "verses", "--steps", 6).status == 0
    assert latest.is_symlink()
    assert checkpoint.load_run(real).step == 6
    assert stat.S_IMODE(real.stat().st_mode) == 0o600
    lock = Lock(real)
    assert "is being trained" in charlstm("resume", "verses", "--steps", 9).sentence
    lock.release()


@pytest.mark.parametrize("ending", [".npz", ".best.npz"])
@pytest.mark.parametrize("target", ["precious", "nothing"])
def test_a_run_is_never_saved_through_a_foreign_link(charlstm: Program, text: Path, ending: str, target: str) -> None:
    Path("precious").write_bytes(b"precious")
    Path("checkpoints").mkdir()
    Path(f"checkpoints/verses{ending}").symlink_to(f"../{target}")
    result = charlstm("train", text, "--steps", 3, "--if-exists", "overwrite", *SMALL)
    assert result.status == 1
    assert "symbolic link" in result.sentence
    assert Path("precious").read_bytes() == b"precious"
    assert not Path("nothing").exists()


# -- the lock


def test_a_lock_is_nothing_but_a_lock(folder: Path) -> None:
    path, lock = Path("r.npz"), Path(".r.lock")
    Path("precious").write_bytes(b"precious")
    Path("empty").touch()

    def socket() -> None:
        os.mknod(lock, stat.S_IFSOCK | 0o600)

    makers: list[Callable[[], object]] = [
        lambda: lock.symlink_to("precious"),
        lambda: lock.symlink_to("nothing"),
        lambda: os.link("precious", lock),
        lambda: os.link("empty", lock),
        lambda: lock.write_bytes(b"precious"),
        lambda: os.mkfifo(lock),
        lambda: lock.mkdir(),
        socket,
    ]
    for make in makers:
        make()
        with pytest.raises(SaveError, match="where charlstm needs a lock file"):
            Lock(path)
        assert trainer_of(path) is None
        assert Path("precious").read_bytes() == b"precious"
        assert Path("empty").read_bytes() == b""
        assert not Path("nothing").exists()
        lock.rmdir() if lock.is_dir() and not lock.is_symlink() else lock.unlink()
    lock.write_bytes(b"process 17 on some-host\n")  # as another version left it
    Lock(path).release()
    assert lock.read_bytes().startswith(b"process %d on " % os.getpid())


def test_without_what_windows_lacks_a_run_is_trained_renamed_and_removed(
    charlstm: Program, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pread", "pwrite"):
        monkeypatch.delattr(os, name)
    monkeypatch.setattr("charlstm.storage.lock.fcntl", None)
    assert charlstm("train", text, "--steps", 2, *SMALL).status == 0
    assert charlstm("resume", "--steps", 4).status == 0
    assert charlstm("runs", "verses", "--rename", "other").status == 0
    assert charlstm("runs", "other", "--remove").status == 0


@pytest.mark.parametrize("how", ["removed", "renamed", "replaced"])
def test_a_lock_file_that_is_taken_away_while_training_lets_nobody_in(charlstm: Program, text: Path, how: str) -> None:
    run = begin(text)
    lock = Path("checkpoints/.verses.lock")
    said = []
    for event in run.run():
        if isinstance(event, events.Progress) and event.step == 5:
            if how == "removed":
                lock.unlink()
            else:
                lock.rename("checkpoints/.other.lock")
            if how == "replaced":
                lock.write_bytes(b"process 1 on moon\n")
        if isinstance(event, events.Progress) and event.step == 7:
            said.append(charlstm("train", text, "--steps", 50, "--if-exists", "overwrite", *SMALL))
    assert said[0].status == 1
    assert f"is being trained by process {os.getpid()} on" in said[0].sentence
    assert checkpoint.load_run(run.path).step == 40


def test_who_comes_while_the_lock_file_is_away_keeps_the_run_and_nothing_is_written_twice(text: Path) -> None:
    run = begin(text)
    steps = run.run()
    for event in steps:
        if isinstance(event, events.Progress) and event.step == 5:
            break
    Path("checkpoints/.verses.lock").unlink()
    other = Lock(run.path)
    before = run.path.read_bytes()
    with pytest.raises(LockedError, match="stops without saving"):
        for _ in steps:
            pass
    assert run.path.read_bytes() == before
    other.release()


def test_a_lock_that_was_removed_before_it_was_taken_is_not_taken(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    plain, taken = fcntl.flock, []

    def remove_and_lock(handle: int, how: int) -> None:
        if not taken:
            Path(".r.lock").unlink()
        taken.append(handle)
        plain(handle, how)

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", remove_and_lock)
        lock = Lock(Path("r.npz"))
    assert len(taken) == 2
    with pytest.raises(LockedError):
        Lock(Path("r.npz"))
    lock.release()


# -- who was there first


@pytest.mark.parametrize("if_exists", sweep(["resume", "update", "fail"], "resume"))
def test_a_run_that_appears_while_the_text_is_read_is_looked_at_again(
    charlstm: Program, text: Path, if_exists: str
) -> None:
    """The text comes through a slow pipe; meanwhile somebody else trains the run of that name to its end."""
    os.mkfifo("pipe")
    words = ["train", "pipe", "--name", "r", "--steps", 12, "--if-exists", if_exists, "--display", "lines", *SMALL]
    waiting = spawn(*words)
    with open("pipe", "wb") as pipe:  # opens once it is read
        verses = text.read_bytes()
        pipe.write(verses[:1000])
        pipe.flush()
        assert charlstm("train", text, "--name", "r", "--steps", 30, *SMALL).status == 0
        before = Path("checkpoints/r.npz").read_bytes()
        pipe.write(verses[1000:])
    _, err = waiting.communicate(timeout=30)
    assert Path("checkpoints/r.npz").read_bytes() == before
    expected = (2, b"already exists") if if_exists == "fail" else (0, b"already at step 30")
    assert (waiting.returncode, expected[1] in err) == (expected[0], True), err


def test_a_run_that_went_on_while_the_text_was_read_goes_on_from_there(charlstm: Program, text: Path) -> None:
    assert charlstm("train", text, "--name", "r", "--steps", 5, *SMALL).status == 0
    os.mkfifo("pipe")
    waiting = spawn("train", "pipe", "--name", "r", "--steps", 12, "--if-exists", "resume", "--display", "none")
    with open("pipe", "wb") as pipe:
        assert charlstm("resume", "r", "--steps", 9).status == 0
        pipe.write(text.read_bytes())
    _, err = waiting.communicate(timeout=30)
    assert waiting.returncode == 0, err
    resumed = checkpoint.load_run(Path("checkpoints/r.npz"))
    assert charlstm("train", text, "--name", "s", "--steps", 5, *SMALL).status == 0
    assert charlstm("resume", "s", "--steps", 9).status == 0
    assert charlstm("resume", "s", "--steps", 12).status == 0
    expected = checkpoint.load_run(Path("checkpoints/s.npz"))
    np.testing.assert_array_equal(resumed.params["out.W"], expected.params["out.W"])


def test_overwriting_says_what_is_replaced_and_fail_spares_a_lone_best_model(
    charlstm: Program, copy_run: Any, text: Path
) -> None:
    copy_run(5)
    Path("checkpoints/verses.npz").unlink()
    before = Path("checkpoints/verses.best.npz").read_bytes()
    assert charlstm("train", text, "--steps", 3, *SMALL).status == 2
    assert Path("checkpoints/verses.best.npz").read_bytes() == before
    result = charlstm("train", text, "--steps", 3, "--if-exists", "overwrite", "--display", "lines", *SMALL)
    assert "replaces the run 'verses', which was saved at step 5" in result.err


# -- a folder with other things in it


def strange_entries(folder: Path) -> dict[str, str]:
    """Everything that may be called *.npz and is no run."""
    (folder / "d.npz").mkdir()
    os.mkfifo(folder / "f.npz")
    (folder / "l.npz").symlink_to("nowhere")
    (folder / "o.npz").symlink_to("o.npz")
    (folder / "n.best.npz").symlink_to("/dev/null")
    return {"d": "a directory", "f": "a FIFO", "l": "a dangling", "o": "a dangling", "n": "a device"}


def test_what_is_no_run_is_skipped_and_named(charlstm: Program, copy_run: Any, text: Path) -> None:
    copy_run(5)
    strange = strange_entries(Path("checkpoints"))
    listed = {entry["name"]: entry for entry in json.loads(charlstm("info", "--json").out)["runs"]}
    assert listed.keys() == {"verses", *strange}
    shown = charlstm("info").out
    for name, what in strange.items():
        assert what in listed[name]["error"]
        assert what in shown
        for words in (["sample", name], ["resume", name], ["info", name], ["eval", name, text]):
            result = charlstm(*words)
            assert (result.status, what in result.sentence) == (2, True), words
    assert "d.npz is a directory, f.npz is a FIFO" in charlstm("sample", "--length", 5).err
    assert charlstm("eval", "verses", text).status == 0
    assert "d.npz is a directory, f.npz is a FIFO" in charlstm("resume", "--steps", 6, "--display", "lines").err
    assert charlstm("train", text, "--name", "d", "--steps", 3, "--if-exists", "overwrite", *SMALL).status == 1


def test_a_fifo_in_place_of_a_checkpoint_does_not_wait(folder: Path) -> None:
    os.mkfifo("f.npz")
    with pytest.raises(CheckpointError, match="not a regular file"):
        checkpoint.load(Path("f.npz"))


# -- JSON at its edges


def test_fields_at_their_edges_are_refused_in_one_sentence_and_what_loads_can_be_used(
    copy_run: Any, folder: Path
) -> None:
    """The experiment itself, in small: see tests/experiments/fields.py."""
    copy_run(12, "--eval-every", 4)
    path = Path("checkpoints/verses.npz")
    good, rng = meta_of(path), np.random.default_rng(1)
    made = [case for case in fields.cases([good, good], 0, rng) if case[0] == 0]
    loaded, refusals = 0, []
    for number in rng.choice(len(made), 60, replace=False):
        put_meta(path, made[number][2])
        try:
            describe.describe(str(path), Path("checkpoints"))
            loaded += 1
        except CheckpointError as error:
            refusals.append(str(error))
    assert 3 < loaded < 40
    assert all(str(path) in refusal and len(refusal) < 600 for refusal in refusals)


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("run.cursor.window", 10**5, "cursor is outside"),
        ("run.cursor.window", 2**63, "cursor.window"),
        ("run.cursor.offset", 10**400, "cursor.offset"),
        ("run.cursor.phase", 10**6, "cursor is outside"),
        ("config.seq", 60_000, "need more than a text"),
        ("config.parts", 2**63, "config.shards"),
        ("config.parts", 2, "config.parts 2 is more"),
        ("step", 10**400, "step is"),
        ("plan.first", 10**400, "plan.first"),
        ("plan.first", 13, "plan does not fit"),
        ("plan.eval_every", 0, "plan does not fit"),
        ("best_step", None, "best_step and best_val_nats"),
        ("history.0.saturated", 1e308, "history.saturated"),
        ("history.0.step", 9, "order of its steps"),
        ("run.guard.recent.0", 1e308, "guard.recent"),
        ("run.batch_rng.state.inc", 2**128, "random state"),
        ("text.sources", ["x" * 20_000_000], "text.sources"),
        ("text.sha256", "x", "no SHA-256"),
    ],
)
def test_a_field_that_contradicts_another_is_refused(
    copy_run: Any, folder: Path, place: str, value: Any, words: str
) -> None:
    copy_run(12, "--eval-every", 4)
    path = Path("checkpoints/verses.npz")
    keys = [int(key) if key.isdigit() else key for key in place.split(".")]
    put_meta(path, fields.changed(meta_of(path), tuple(keys), value))
    with pytest.raises(CheckpointError, match=words):
        checkpoint.load_run(path)


@pytest.mark.parametrize("source", ["/**/*", "/", ".", "fifo", "/dev/zero", "checkpoints"])
def test_a_stored_source_is_a_file_and_never_a_pattern(
    charlstm: Program, copy_run: Any, folder: Path, source: str
) -> None:
    copy_run(5)
    os.mkfifo("fifo")
    path = Path("checkpoints/verses.npz")
    put_meta(path, fields.changed(meta_of(path), ("text", "sources"), [source]))
    for words in (["resume", "--steps", 9], ["sample", str(path), "--length", 5, "--novelty"]):
        assert "is missing" in charlstm(*words).sentence


# -- long histories and many runs


def row(step: int, **values: float) -> HistoryRow:
    return HistoryRow(**{"step": step, "loss_nats": 2.0, "val_nats": 2.0, "lr": 0.1, "grad_norm": 1.0, "update_ratio": 0.1, "weight_norm": 9.0, "cell_max": 1.0, "saturated": 0.5} | values)  # type: ignore[arg-type]  # fmt: skip


def test_a_history_is_thinned_from_its_old_end_and_keeps_its_means_its_peaks_and_the_best() -> None:
    rows: list[HistoryRow] = []
    best = 7
    for step in range(1, 5 * MOST_ROWS):
        rows.append(row(step, loss_nats=float(step), cell_max=float(step == 11)))
        rows = thinned(rows, best)
        assert len(rows) <= MOST_ROWS
    steps = [r.step for r in rows]
    assert steps == sorted(set(steps))
    assert best in steps
    assert steps[-400:] == list(range(5 * MOST_ROWS - 400, 5 * MOST_ROWS))
    assert max(r.cell_max for r in rows) == 1
    weights = np.diff([0, *steps])
    assert np.average([r.loss_nats for r in rows], weights=weights) == pytest.approx(5 * MOST_ROWS / 2)


def test_sampling_does_not_read_the_history_and_info_reads_a_file_once(
    copy_run: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_run(12, "--eval-every", 4)
    copy_run(12, "--eval-every", 4, name="other")
    path = Path("checkpoints/verses.npz")
    put_meta(path, fields.changed(meta_of(path), ("history", 0), {"step": "none of it"}))
    found = checkpoint.load(path)
    with pytest.raises(CheckpointError, match="history must have exactly"):
        _ = found.history
    path.unlink()
    Path("checkpoints/verses.best.npz").unlink()
    copy_run(12, "--eval-every", 4)
    read: list[Path] = []
    plain = archive.read
    monkeypatch.setattr(archive, "read", lambda path, *rest: (read.append(path), plain(path, *rest))[1])
    describe.describe("verses", Path("checkpoints"))
    assert read == [path]
    read.clear()
    describe.describe(None, Path("checkpoints"))
    assert sorted(read) == [Path("checkpoints/other.npz"), path]


def test_a_long_history_of_an_older_version_is_read_and_then_thinned(copy_run: Any, folder: Path) -> None:
    copy_run(12, "--eval-every", 4)
    path = Path("checkpoints/verses.npz")
    meta = meta_of(path)
    last = meta["history"][-1]
    meta |= {"step": 10_000, "history": [last | {"step": step} for step in range(1, 10_001)]}
    meta["plan"] |= {"last": 10_000}
    put_meta(path, meta)
    run = checkpoint.load_run(path)
    assert len(run.history) == 10_000
    for _ in range(8):
        run.history = thinned([*run.history, row(run.history[-1].step + 1)], run.best_step)
    assert len(run.history) <= MOST_ROWS


# -- paths and names


def test_a_tilde_is_a_home_in_every_path(
    charlstm: Program, text: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = folder / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    text.rename(home / "verses.txt")
    (home / "prompt").write_text("the ")
    there = ("--checkpoints", "~/runs")
    assert charlstm("train", "~/verses.txt", "--steps", 3, *there, *SMALL).status == 0
    assert (home / "runs/verses.npz").is_file()
    assert (
        charlstm("sample", "~/runs/verses.npz", "--length", 5, "--output", "~/out", "--prompt-file", "~/prompt").status
        == 0
    )
    assert len((home / "out").read_text()) == 9
    assert charlstm("resume", "~/runs/verses.npz", "--steps", 4).status == 0
    assert charlstm("eval", "verses", "~/verses.txt", *there).status == 0
    assert charlstm("info", *there).status == 0
    assert charlstm("export", "verses", "~/page.html", *there).status == 0
    assert (
        charlstm(
            "train", "~/verses.txt", "--name", "b", "--init-from", "~/runs/verses.npz", "--steps", 3, *there
        ).status
        == 0
    )
    assert sorted(path.name for path in folder.iterdir()) == ["home"]


def test_the_home_of_nobody_is_no_traceback(charlstm: Program, copy_run: Any, text: Path) -> None:
    copy_run(5)
    for words, status in (
        (["train", "~nosuch/x.txt"], 2),
        (["sample", "~nosuch/x.npz"], 2),
        (["sample", "--checkpoints", "~nosuch/x", "nobody"], 2),
        (["sample", "--output", "~nosuch/x"], 1),
        (["eval", "verses", "~nosuch/x"], 2),
        (["info", "~nosuch/x"], 2),
        (["resume", "~nosuch/x"], 2),
        (["train", text, "--init-from", "~nosuch/x", "--name", "r"], 2),
    ):
        result = charlstm(*words)
        assert (result.status, "nosuch" in result.sentence or "nobody" in result.sentence) == (status, True)


@pytest.mark.parametrize("output", [".", "", "checkpoints"])
def test_an_output_that_is_a_directory_is_refused(charlstm: Program, copy_run: Any, folder: Path, output: str) -> None:
    copy_run(5)
    result = charlstm("sample", "--output", output)
    assert (result.status, "is a directory" in result.sentence) == (2, True)


@pytest.mark.parametrize("name", ["x.npz", "x.best.npz", "x" * 201, "ü" * 101, "-x"])
def test_a_name_that_could_not_be_found_again_is_refused_before_anything_is_done(
    charlstm: Program, text: Path, name: str
) -> None:
    assert charlstm("train", text, "--name", name, "--steps", 3, *SMALL).status == 2
    assert not Path("checkpoints").exists()


def test_the_longest_name_is_saved_and_found(charlstm: Program, text: Path) -> None:
    name = "x" * 200
    assert charlstm("train", text, "--name", name, "--steps", 3, *SMALL).status == 0
    assert Path(f"checkpoints/{name}.best.npz").is_file()
    assert charlstm("sample", name, "--length", 5).status == 0


def test_a_text_of_a_thousand_letters_in_place_of_a_name_is_status_2(charlstm: Program, folder: Path) -> None:
    for command in ("train", "resume", "sample"):
        told = charlstm(command, "w" * 1000)
        assert told.status == 2
        assert "checkpoints/w" not in told.sentence


def test_the_files_of_a_run() -> None:
    files = RunFiles.named("a.b", Path("c"))
    assert (files.latest, files.best, files.lock) == (Path("c/a.b.npz"), Path("c/a.b.best.npz"), Path("c/.a.b.lock"))
    assert RunFiles.of(files.latest) == RunFiles.of(files.best) == files
    assert RunFiles.of(Path("c/renamed")).latest == Path("c/renamed")


# -- signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_before_any_handler_of_training_gives_the_documented_status(folder: Path, number: int) -> None:
    """It arrives while the program itself is imported: the stand-in for Typer is found before the real one."""
    (folder / "typer.py").write_text(f"import os; os.kill(os.getpid(), {int(number)})\nraise SystemExit(77)\n")
    process = spawn("sample", cwd=folder)
    _, err = process.communicate(timeout=20)
    expected = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 143, signal.SIGUSR1: 77}[signal.Signals(number)]
    assert (process.returncode, err) == (expected, b"")


@pytest.mark.parametrize("number", sweep([signal.SIGINT, signal.SIGTERM, signal.SIGHUP], signal.SIGTERM))
def test_a_signal_after_everything_is_done_changes_nothing(copy_run: Any, folder: Path, number: int) -> None:
    copy_run(5)
    code = (
        "import atexit, os, sys; from charlstm.__main__ import main;"
        f"atexit.register(os.kill, os.getpid(), {int(number)}); sys.argv[1:] = ['sample', '--length', '5']; sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, len(done.stdout)) == (0, 5), done.stderr


@slow
def test_the_special_files_and_the_races(folder: Path) -> None:
    """The experiments themselves, in small: the whole of `special` takes some 250 processes. Every ninth cell covers each use and each kind."""
    for experiment, options in (("special", ["--every", "9"]), ("races", ["--pairs", "4"])):
        command = [sys.executable, "-m", f"tests.experiments.{experiment}", *options]
        done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, check=False, timeout=600)
        assert done.returncode == 0, done.stdout.decode()[-2000:]


def test_a_folder_of_500_runs_of_which_20_are_damaged_is_listed_within_a_second(
    charlstm: Program, copy_run: Any, folder: Path
) -> None:
    copy_run(12, "--eval-every", 4, name="r")
    latest, best = (Path(f"checkpoints/r{ending}").read_bytes() for ending in (".npz", ".best.npz"))
    for number in range(499):
        cut = 300 if number % 25 == 0 else 0
        Path(f"checkpoints/r{number}.npz").write_bytes(latest[: len(latest) - cut])
        Path(f"checkpoints/r{number}.best.npz").write_bytes(best)
    began_s = time.process_time()  # a busy machine takes no part in it
    shown = charlstm("info").out
    taken_s = time.process_time() - began_s
    assert shown.count(".npz is not a checkpoint, or is damaged") == 20
    assert shown.count(" of 12 ") >= 480
    assert taken_s < 1
