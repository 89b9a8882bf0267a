"""Several ranks of MPI share a run: the bytes of local shards, one voice, and an end to all of them when one ends."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from charlstm import api, launcher
from charlstm.events import Progress
from charlstm.settings import TrainConfig
from charlstm.storage import checkpoint
from charlstm.text import corpus
from charlstm.training import loop, state
from charlstm.training.data_parallel import DataParallel
from tests import mpi
from tests.conftest import ROOT, Result, slow, spawn, wait_for
from tests.experiments import many_ranks
from tests.experiments.many_ranks import Variant

needs_mpi = pytest.mark.skipif(mpi.mpirun() is None, reason="no mpi4py, or no mpirun")
SMALL = (
    "--hidden", "12", "--layers", "2", "--dropout", "0.2", "--batch", "16", "--seq", "8", "--preview-every", "0",
    "--init-from", "none",
)  # fmt: skip
ENDLESS = ("--steps", 1_000_000, *SMALL)
PATH = Path("checkpoints/verses.npz")
BEST = Path("checkpoints/verses.best.npz")
END_S = 10
"""Within how many seconds a job ends when one of its ranks does."""


def ended(job: subprocess.Popen[bytes], seconds: float = 600) -> Result:
    out, err = job.communicate(timeout=seconds)
    return Result(job.returncode, (out or b"").decode(), err.decode())


def sentence(done: Result) -> str:
    """The one sentence that an error must be, beside what the launcher prints, perhaps on the same line."""
    assert "Traceback" not in done.err
    (found,) = re.findall("charlstm: .*", done.err)
    return str(found)


def local(*words: object, shards: int = 2) -> Result:
    return ended(spawn(*words, "--threads", shards))


def job(*words: object, ranks: int = 2, **more: Any) -> Result:
    return ended(mpi.start(ranks, *words, **more))


def taken() -> list[bytes]:
    """Both files of the run, which are removed."""
    contents = [path.read_bytes() for path in (PATH, BEST) if path.exists()]
    for path in (PATH, BEST):
        path.unlink(missing_ok=True)
    return contents


def step() -> int:
    return checkpoint.load_run(PATH).step if PATH.exists() else -1


def begun(*words: object, ranks: int = 2, **more: Any) -> subprocess.Popen[bytes]:
    """A job that has trained and saved."""
    process = mpi.start(ranks, *words, "--save-every", 0, **more)
    wait_for(lambda: step() > 0)
    return process


# -- launchers


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (0, 1)),
        ({"OMPI_COMM_WORLD_SIZE": "8", "OMPI_COMM_WORLD_RANK": "3"}, (3, 8)),
        ({"PMI_SIZE": "2", "PMI_RANK": "1"}, (1, 2)),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, (0, 1)),  # the batch script itself
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "4"}, (2, 4)),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, (1, 2)),
        ({"PMI_SIZE": "many", "PMI_RANK": "1"}, (0, 1)),
    ],
)  # fmt: skip
def test_a_launcher_is_known_by_the_environment(environment: dict[str, str], expected: tuple[int, int]) -> None:
    assert launcher.started_as(environment) == expected


def rank(number: int) -> dict[str, str]:
    return {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": str(number)}


def test_only_rank_0_speaks(folder: Path) -> None:
    for words in (
        ["--help"],
        ["train", "--help"],
        ["sample", "--length", "9"],
        ["info", "fables"],
        ["train", "--nonsense"],
    ):
        other = ended(spawn(*words, env=rank(1)))
        assert (other.out, other.err) == ("", "")
        assert other.status == (2 if "--nonsense" in words else 0)
    assert "Usage" in ended(spawn("train", "--help", env=rank(0))).out


def test_without_mpi4py_one_rank_says_what_to_install(text: Path, folder: Path) -> None:
    (folder / "mpi4py.py").write_text("raise ImportError('hidden')")
    for number in (0, 1):
        done = ended(spawn("train", text, *SMALL, env=rank(number) | {"PYTHONPATH": f"{folder}:{ROOT}"}))
        assert done.status == 2
        assert (sentence(done) if number == 0 else done.err) == (
            "charlstm: a launcher started 2 processes, and to work together they need mpi4py: install it with "
            "'pip install mpi4py', or start one process"
        ) * (number == 0)
    assert not PATH.exists()


def test_without_a_launcher_mpi4py_is_not_imported(text: Path, folder: Path) -> None:
    (folder / "mpi4py.py").write_text("raise SystemExit('imported')")
    assert ended(spawn("train", text, "--steps", 2, *SMALL, env={"PYTHONPATH": f"{folder}:{ROOT}"})).status == 0


# -- the same bytes


@needs_mpi
def test_two_ranks_end_in_the_bytes_of_two_local_shards(text: Path) -> None:
    command = ("train", text, "--steps", 30, "--eval-every", 10, *SMALL)
    assert local(*command).status == 0
    expected = taken()
    done = job(*command, "--display", "json")
    assert done.status == 0, done.err
    assert taken() == expected
    events = [json.loads(line) for line in done.out.splitlines()]
    assert [event["event"] for event in events].count("finished") == 1


@slow
@needs_mpi
@pytest.mark.parametrize(
    "options",
    [
        ("--optimizer", "adam"),
        ("--optimizer", "sgd"),
        ("--optimizer", "rmsprop", "--dropout", "0.6"),
        ("--batch", "17", "--clip", "0.1"),
        ("--val-fraction", "0"),
        ("--optimizer", "sgd", "--lr", "300", "--clip", "0", "--steps", "120"),
    ],
    ids=["adam", "sgd", "rmsprop", "clipped", "nothing held out", "recovering"],
)
def test_whatever_is_trained_the_bytes_are_those_of_local_shards(text: Path, options: tuple[str, ...]) -> None:
    command = ("train", text, "--steps", 40, "--eval-every", 10, *SMALL, *options)
    assert local(*command).status == 0
    assert ("--lr" in options) == (checkpoint.load_run(PATH).guard.recoveries > 0)
    expected = taken()
    done = job(*command)
    assert done.status == 0, done.err
    assert taken() == expected


@slow
@needs_mpi
def test_early_stopping_ends_all_ranks(folder: Path) -> None:
    import random

    Path("verses.txt").write_text(
        "".join(random.Random(0).choices("the cat sat on a mat.\n", k=6000)), encoding="utf-8"
    )
    command = (
        "train",
        "verses.txt",
        "--steps",
        400,
        "--hidden",
        32,
        "--layers",
        1,
        "--preview-every",
        0,
        "--init-from",
        "none",
    )
    assert local(*command).status == 0
    expected = taken()
    done = job(*command)
    assert "stopped early" in done.err
    assert taken() == expected


@slow
@needs_mpi
def test_divergence_beyond_recovery_has_status_three(text: Path) -> None:
    command = ("train", text, "--steps", 100, *SMALL, "--optimizer", "sgd", "--lr", "1e38", "--clip", "0")
    assert local(*command).status == 3
    expected = taken()
    done = job(*command)
    assert done.status == 3
    assert "recoveries" in sentence(done)
    assert taken() == expected


@slow
@needs_mpi
def test_more_ranks_than_cores_are_exact_too(text: Path) -> None:
    ranks = 8
    command = ("train", text, "--steps", 30, "--eval-every", 10, *SMALL, "--batch", 64)
    assert local(*command, shards=ranks).status == 0
    expected = taken()
    for _ in range(2):
        done = job(*command, ranks=ranks)
        assert done.status == 0, done.err
        assert taken() == expected


@slow
@needs_mpi
@pytest.mark.parametrize(("ranks", "hosts"), [(2, 2), (6, 3)])
def test_several_hosts_are_exact_on_repetition_and_resumed(text: Path, ranks: int, hosts: int) -> None:
    command = ("train", text, "--steps", 160, "--eval-every", 40, *SMALL, "--batch", 48)
    run = []
    for _ in range(2):
        done = job(*command, ranks=ranks, hosts=hosts)
        assert done.status == 0, done.err
        assert "not bit-identically" not in done.err
        run.append(taken())
    assert run[0] == run[1]
    process = begun(*command, ranks=ranks, hosts=hosts)
    os.kill(mpi.pids(process, ranks)[-1], signal.SIGKILL)
    assert ended(process).status != 0
    assert step() < 160
    done = job(*command, "--if-exists", "resume", ranks=ranks, hosts=hosts)
    assert done.status == 0, done.err
    assert "not bit-identically" not in done.err
    assert taken() == run[0]
    if ranks == 2:  # a sum of two has one order only
        assert local(*command).status == 0
        mine = checkpoint.load_run(PATH)
        taken()
        assert job(*command, ranks=ranks, hosts=hosts).status == 0
        theirs = checkpoint.load_run(PATH)
        assert all((mine.params[name] == p).all() for name, p in theirs.params.items())


# -- hosts with steps of their own (--sync-every)


def test_on_one_host_steps_of_their_own_change_nothing_and_the_program_says_so(text: Path) -> None:
    command = ("train", text, "--steps", 6, *SMALL)
    assert local(*command).status == 0
    expected = checkpoint.load_run(PATH)
    taken()
    done = local(*command, "--sync-every", 4)
    assert "--sync-every 4 has no effect: this run is on one host" in done.err
    assert "hosts averaged every 4 steps" in ended(spawn("info", "verses")).out
    found = checkpoint.load_run(PATH)
    assert (expected.config.sync_every, found.config.sync_every) == (1, 4)
    assert all((expected.params[name] == p).all() for name, p in found.params.items())


def test_a_run_is_shown_saved_and_stopped_only_where_all_hosts_agree(
    text: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DataParallel, "sync_every", 4)
    words = {"hidden": 8, "layers": 1, "batch": 8, "seq": 8, "eval_every": 10, "init_from": "none"}
    found = [event for event in api.train(text, steps=22, preview_every_s=0, **words) if isinstance(event, Progress)]
    assert [event.step for event in found] == [4, 8, 10, 12, 16, 20, 22]


@slow
@needs_mpi
def test_hosts_with_steps_of_their_own_are_exact_on_repetition_and_resumed(text: Path) -> None:
    ranks, hosts = 3, 2
    command = ("train", text, "--steps", 240, "--eval-every", 25, *SMALL, "--batch", 48, "--sync-every", 4)
    run = []
    for _ in range(2):
        done = job(*command, ranks=ranks, hosts=hosts)
        assert done.status == 0, done.err
        assert not re.search("not bit-identically|no effect", done.err)
        run.append(taken())
    assert run[0] == run[1]
    process = begun(*command, ranks=ranks, hosts=hosts)
    os.kill(mpi.pids(process, ranks)[0], signal.SIGTERM)
    assert ended(process).status == 143
    stopped = step()
    assert stopped < 240
    assert stopped % 4 == 0 or stopped % 25 == 0
    done = job(*command, "--if-exists", "resume", ranks=ranks, hosts=hosts)
    assert done.status == 0, done.err
    assert "not bit-identically" not in done.err
    assert [path.read_bytes() for path in (PATH, BEST)] == run[0]
    done = local("resume", "--steps", 244)  # on one host
    assert done.status == 0, done.err
    assert "--sync-every 4 has no effect" in done.err


@slow
@needs_mpi
@pytest.mark.parametrize(("optimizer", "ranks", "hosts"), [("muon", 6, 3), ("sgd", 2, 2)])
def test_hosts_with_steps_of_their_own_learn_what_a_simulation_of_them_learns(
    text: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str, ranks: int, hosts: int
) -> None:
    settings = {"hidden": 12, "batch": 48, "seq": 8, "lr": 0.01, "seed": 1}
    words = [word for name, value in settings.items() for word in (f"--{name}", value)]
    more = ("--layers", 2, "--dropout", 0, "--steps", 18, "--sync-every", 4, "--optimizer", optimizer)
    done = job("train", text, *SMALL, *words, *more, ranks=ranks, hosts=hosts)
    assert done.status == 0, done.err
    found = checkpoint.load_run(PATH)
    monkeypatch.setattr(loop, "open_engine", many_ranks.engine(Variant(every=4), ranks, ranks // hosts))
    config = TrainConfig(layers=2, dropout=0.0, shards=ranks, sync_every=4, optimizer=optimizer, **settings)  # type: ignore[arg-type]
    read = corpus.read((str(text),), cache=None)
    run, _ = state.begin(read, config, ranks)
    run.schedule = found.schedule
    train_ids, val_ids = read.split(found.config.val_fraction)
    assert [event.step for event in loop.train(run, train_ids, val_ids) if isinstance(event, Progress)][-1] == 18
    for mine, theirs in ((run.params, found.params), (run.averaged, found.averaged)):
        for name, p in mine.items():
            np.testing.assert_allclose(theirs[name], p, atol=1e-4, err_msg=name)


@slow
@needs_mpi
def test_hosts_with_steps_of_their_own_recover_together(text: Path) -> None:
    command = ("train", text, "--steps", 100, *SMALL, "--optimizer", "sgd", "--lr", "1e38", "--clip", "0")
    done = job(*command, "--sync-every", 4, ranks=2, hosts=2)
    assert done.status == 3
    assert "recoveries" in sentence(done)


# -- stopped, and on again


@slow
@needs_mpi
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_was_stopped_resumes_exactly(text: Path, number: int) -> None:
    command = ("train", text, "--steps", 400, "--eval-every", 50, *SMALL)
    assert local(*command).status == 0
    expected = taken()
    process = begun(*command)
    os.kill(mpi.pids(process, 2)[0], number)
    done = ended(process)
    assert done.status == 128 + number
    assert "after saving" in done.err
    assert 0 < step() < 400
    assert job("resume").status == 0
    assert taken() == expected


@slow
@needs_mpi
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_launcher_ends_the_job(text: Path, number: int) -> None:
    """Whether it is saved depends on how soon Open MPI kills its ranks."""
    process = begun("train", text, *ENDLESS)
    process.send_signal(number)
    assert ended(process, END_S).status != 0
    assert step() > 0


@slow
@needs_mpi
def test_sigcont_saves_because_open_mpi_sends_it_before_it_kills(text: Path) -> None:
    process = mpi.start(2, "train", text, *ENDLESS, "--save-every", 1000)
    wait_for(lambda: step() == 0)
    rank_0 = mpi.pids(process, 2)[0]

    def saved() -> bool:
        os.kill(rank_0, signal.SIGCONT)
        time.sleep(0.05)
        return step() > 0

    wait_for(saved)
    process.terminate()
    ended(process, END_S)


@slow
@needs_mpi
def test_sigusr1_to_the_launcher_saves_and_does_not_stop(text: Path) -> None:
    process = mpi.start(2, "train", text, *ENDLESS, "--save-every", 1000)
    wait_for(lambda: step() == 0)
    mpi.pids(process, 2)

    def saved() -> bool:
        process.send_signal(signal.SIGUSR1)
        time.sleep(0.05)
        return step() > 0

    wait_for(saved)
    assert process.poll() is None
    process.terminate()
    ended(process, END_S)


@slow
@needs_mpi
def test_a_budget_of_minutes_ends_all_ranks(text: Path) -> None:
    done = job("train", text, "--minutes", 0.05, *SMALL, "--display", "json")
    assert done.status == 0, done.err
    last = json.loads(done.out.splitlines()[-1])
    assert last["event"] == "finished"
    assert 1 < last["elapsed_s"] < 10


@slow
@needs_mpi
def test_other_numbers_of_ranks_continue_and_say_whether_exactly(text: Path) -> None:
    command = ("train", text, "--steps", 300, *SMALL, "--batch", 32)
    assert local(*command, shards=4).status == 0
    expected = taken()
    process = begun(*command, ranks=4)
    process.terminate()
    ended(process)
    assert step() < 300
    fewer = job("resume", ranks=2)
    assert "not bit-identically" not in fewer.err
    assert taken() == expected
    process = begun(*command)
    process.terminate()
    ended(process)
    more = job("resume", ranks=6)
    assert more.status == 0
    assert "split into 2 shards and is now split into 4 for 6 ranks" in more.err
    assert "only 4 of 6 ranks have work" in more.err


# -- failure


@slow
@needs_mpi
@pytest.mark.parametrize(("ranks", "dying"), [(2, 0), (2, 1), (4, -1)])
def test_when_a_rank_dies_the_job_ends_and_the_same_command_continues(text: Path, ranks: int, dying: int) -> None:
    command = ("train", text, "--steps", 240, "--eval-every", 60, *SMALL, "--batch", 32, "--if-exists", "resume")
    assert local(*command, shards=ranks).status == 0
    expected = taken()
    process = begun(*command, ranks=ranks)
    os.kill(mpi.pids(process, ranks)[dying], signal.SIGKILL)
    began = time.monotonic()
    done = ended(process, END_S)
    assert time.monotonic() - began < END_S
    assert done.status != 0
    assert f"rank {dying % ranks}" in sentence(done)
    assert "died" in sentence(done)
    assert 0 <= step() < 240
    assert job(*command, ranks=ranks).status == 0
    assert taken() == expected


@slow
@needs_mpi
def test_a_rank_that_no_longer_answers_ends_the_job(text: Path) -> None:
    """A host that went away, or that MPI can't reach. On the same host, a rank may be suspended."""
    process = begun("train", text, *ENDLESS, hosts=2)
    os.kill(mpi.pids(process, 2)[1], signal.SIGSTOP)
    done = ended(process, END_S)
    assert done.status == 1
    assert "rank 1" in sentence(done)
    assert "no longer answers" in sentence(done)


BROKEN = """
import sys
from charlstm import launcher
from charlstm.training import data_parallel
from charlstm.__main__ import main
compute, calls = data_parallel.Shard.compute, []
def broken(shard):
    calls.append(0)
    if launcher.started_as()[0] == {rank} and len(calls) == 5:
        raise {error}
    compute(shard)
data_parallel.Shard.compute = broken
sys.exit(main())
"""


@slow
@needs_mpi
@pytest.mark.parametrize(
    ("rank", "error", "words"),
    [(0, "MemoryError", "out of memory"), (1, "MemoryError", "out of memory"), (1, "ValueError('odd')", "odd")],
)
def test_an_exception_on_one_rank_is_one_sentence(text: Path, rank: int, error: str, words: str) -> None:
    Path("broken.py").write_text(BROKEN.format(rank=rank, error=error))
    done = job("train", text, *ENDLESS, module="broken", cwd=text.parent, env={"PYTHONPATH": f"{text.parent}:{ROOT}"})
    assert done.status == 1
    assert words in sentence(done)
    assert step() == 0


@slow
@needs_mpi
def test_a_second_job_is_refused(text: Path) -> None:
    process = begun("train", text, *ENDLESS)
    for second in (job("train", text, *ENDLESS, "--if-exists", "resume"), job("resume", "verses")):
        assert second.status == 1
        assert "process" in sentence(second)
    process.terminate()
    ended(process)


@slow
@needs_mpi
def test_what_rank_0_refuses_ends_all(text: Path) -> None:
    done = job("train", "nowhere.txt")
    assert "no text" in sentence(done)
    assert done.status == 2
    assert job("resume", "nothing").status == 2
    assert job("train", "--hidden", "many").status == 2


@slow
@needs_mpi
def test_rank_0_reads_standard_input(text: Path) -> None:
    command = [str(mpi.mpirun()), "-n", "1", sys.executable, "-c", "import sys; sys.stdin.read()"]
    with contextlib.suppress(subprocess.TimeoutExpired), text.open("rb") as file:
        subprocess.run(command, stdin=file, env={**os.environ, **mpi.SETTINGS}, check=True, timeout=10)
        file.seek(0)
        done = job("train", "-", "--name", "verses", "--steps", 5, *SMALL, stdin=file)
        assert done.status == 0, done.err
        assert step() == 5
        return
    pytest.skip("this launcher does not pass on the end of standard input, as that of the wheel of Open MPI 5.0.11")


@slow
@needs_mpi
def test_ranks_with_different_commands_are_no_job(text: Path) -> None:
    script = (
        f'exec {sys.executable} -m charlstm train {text} --name "run$OMPI_COMM_WORLD_RANK" --steps 2 {" ".join(SMALL)}'
    )
    command = [str(mpi.mpirun()), "-n", "2", "sh", "-c", script]
    environment = {**os.environ, **mpi.SETTINGS, "PYTHONPATH": str(ROOT)}
    done = ended(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
    assert done.status == 2
    assert "different commands" in sentence(done)


# -- sample and eval


@slow
@needs_mpi
@pytest.mark.parametrize(
    ("ranks", "words"),
    [
        (2, ("--length", 50)),  # one text: the other rank has no work
        (2, ("-n", 40, "--length", 100)),
        (3, ("-n", 30, "--length", 100, "--temps", "0.5,1", "--json")),
        (8, ("-n", 20, "--lines", 2)),  # more ranks than parts
    ],
)
def test_the_ranks_write_the_texts_that_one_process_writes(
    folder: Path, charlstm: Callable[..., Result], ranks: int, words: tuple[object, ...]
) -> None:
    for count in (1, ranks):
        command = ("sample", "fables", "--seed", 1, *words, "--output", f"{count}.txt")
        done = charlstm(*command) if count == 1 else job(*command, ranks=count)
        assert done.status == 0, done.err
        assert done.out == ""
        assert done.err.count("from fables") == 1
    assert Path(f"{ranks}.txt").read_bytes() == Path("1.txt").read_bytes()


@slow
@needs_mpi
@pytest.mark.parametrize("chars", [100_000, 40_000_000])
def test_the_ranks_evaluate_as_one_process_does(folder: Path, charlstm: Callable[..., Result], chars: int) -> None:
    text = Path("long.txt")  # the longer one is in a cache, and only rank 0 has it
    fables = (ROOT / "corpora" / "fables.txt").read_text(encoding="utf-8")
    text.write_text((fables * (1 + chars // len(fables)))[:chars], encoding="utf-8")
    command = ("eval", "fables", text, "--limit", 100_000, "--json", "--cache", "cache")
    alone = json.loads(charlstm(*command).out)
    done = job(*command)
    assert done.status == 0, done.err
    assert json.loads(done.out) == pytest.approx(alone)


@slow
@needs_mpi
@pytest.mark.parametrize("dying", [0, 1])
def test_when_a_rank_dies_a_sample_ends(folder: Path, dying: int) -> None:
    process = mpi.start(2, "sample", "fables", "-n", 64, "--length", 20_000, "--output", "never.txt")
    wait_for(lambda: list(Path().glob(".never.txt*")))
    os.kill(mpi.pids(process, 2)[dying], signal.SIGKILL)
    done = ended(process, END_S)
    assert done.status != 0
    assert f"rank {dying}" in sentence(done)
    assert "run it again" in sentence(done)
    assert not Path("never.txt").exists()


@slow
@needs_mpi
def test_what_a_rank_cannot_write_is_one_sentence(folder: Path) -> None:
    done = job("sample", "fables", "-n", 16, "--temp", 0, "--lines", 1, "--max-chars", 9, "--seed", 1)
    assert done.status == 1
    assert "raise --max-chars" in sentence(done)
