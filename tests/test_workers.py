"""Parts of a window side by side: who computes them changes nothing, a lost worker is not missed, and none is left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from charlstm import processes
from charlstm.errors import CharlstmError
from charlstm.nn import model
from charlstm.nn.config import ModelConfig
from charlstm.nn.threads import ThreadPool
from charlstm.training import data_parallel
from charlstm.training.data_parallel import DataParallel, move_to_shared_memory

V, H, L, T, N = 11, 8, 2, 5, 33
CONFIG = ModelConfig(V, hidden=H, layers=L, dropout=0.25)
forked = pytest.mark.skipif(not processes.CAN_FORK, reason="no processes are forked on this system")


def window() -> tuple[dict[str, np.ndarray], np.ndarray, model.State]:
    rng = np.random.default_rng(1)
    params = model.init(CONFIG, rng)
    state = model.State(*(rng.standard_normal((L, N, H)).astype(np.float32) for _ in "hc"))
    return params, rng.integers(0, V, (T + 1, N)), state


def compute(threads: int, parts: int, between: Callable[[DataParallel], None] = lambda team: None) -> list[np.ndarray]:
    """Two windows in turn, with something done between them; everything that comes out of the second."""
    params, ids, state = window()
    move_to_shared_memory(params)
    with ThreadPool(threads) as pool, DataParallel(pool, params, CONFIG, T, N, parts) as team:
        for k in range(2):
            loss, grads, after = team.loss_and_gradients(ids[:-1], ids[1:], state, [k + 7] * parts)
            if k == 0:
                between(team)
                for name, p in params.items():
                    p -= grads[name]
                state = after
        return [np.array(loss), after.h, after.c, *(g.copy() for g in grads.values())]


def test_threads_processes_and_neither_give_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    alone, run_in_processes = compute(1, 3), compute(3, 3)
    monkeypatch.setattr(processes, "CAN_FORK", False)
    for one, other, third in zip(alone, run_in_processes, compute(3, 3), strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(one, third)


def test_parts_together_equal_the_whole() -> None:
    params, ids, state = window()
    config = ModelConfig(V, hidden=H, layers=L)
    work = model.Workspace.empty(config, T, N)
    expected_loss, expected, after = model.loss_and_gradients(params, config, ids[:-1], ids[1:], state, work)
    with ThreadPool(2) as pool, DataParallel(pool, params, config, T, N, 2) as team:
        loss, grads, our_after = team.loss_and_gradients(ids[:-1], ids[1:], state)
        assert loss == pytest.approx(expected_loss, rel=1e-6)
        zero = model.State.zero(config, N)
        cold_loss, _, _ = model.loss_and_gradients(params, config, ids[:-1], ids[1:], zero, work)
        assert team.loss(params) == pytest.approx(cold_loss, rel=1e-6)
        np.testing.assert_allclose(our_after.c, after.c, rtol=1e-4, atol=1e-6)
        for name, g in expected.items():
            np.testing.assert_allclose(grads[name], g, rtol=1e-3, atol=1e-6)


@forked
@pytest.mark.parametrize("gone", [False, True], ids=["dying", "dead"])
def test_a_lost_worker_is_not_missed(gone: bool) -> None:
    def kill(team: DataParallel) -> None:
        for worker in team.workers.values():
            os.kill(worker.pid, signal.SIGKILL)
            if gone:  # its end of the socket is closed before there is anything to send
                os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)

    for one, other in zip(compute(3, 3), compute(3, 3, kill), strict=True):
        np.testing.assert_array_equal(one, other)


@forked
def test_a_worker_whose_handle_has_a_high_number_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    seen: list[tuple[bool, bool]] = []
    finished = data_parallel._Worker.finished

    def saying(worker: data_parallel._Worker) -> bool:
        seen.append((worker.connection.fileno() > 1023, finished(worker)))
        return seen[-1][1]

    monkeypatch.setattr(data_parallel._Worker, "finished", saying)

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] < 2000:
        pytest.skip("too few files may be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (2000, limits[1]))
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        for _ in range(1100):
            stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        compute(3, 3)
    assert seen == [(True, True)] * 4  # none was taken for dead


@forked
def test_a_stopped_worker_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_parallel, "PATIENCE_S", 0.05)

    def stop(team: DataParallel) -> None:
        for worker in team.workers.values():
            os.kill(worker.pid, signal.SIGSTOP)

    for one, other in zip(compute(3, 3), compute(3, 3, stop), strict=True):
        np.testing.assert_array_equal(one, other)


@forked
def test_a_fork_that_fails_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    forked, fork = [], os.fork

    def refuse() -> int:
        if forked:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        forked.append(fork())
        return forked[0]

    monkeypatch.setattr(os, "fork", refuse)
    with pytest.raises(CharlstmError, match=r"can't be started \(Resource temporarily unavailable\).*ulimit -u"):
        compute(3, 3)


@forked
def test_the_death_of_a_process_whose_results_cannot_be_recomputed_is_an_error() -> None:
    def job(k: int) -> Iterator[list[int]]:
        yield [k]
        if k == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        yield [k]

    jobs = [lambda: iter([[0]] * 70), lambda: iter([[1]] * 70)]
    assert list(processes.run_in_processes(jobs, [1, 1], -1)) == [[0, 1]] * 70
    with pytest.raises(CharlstmError, match="died"):
        list(processes.run_in_processes([partial(job, 0), partial(job, 1)], [1, 1], -1))


@forked
def test_workers_leave_signals_to_stop_to_the_process_they_work_for() -> None:
    def stop(team: DataParallel) -> None:
        for worker in team.workers.values():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                os.kill(worker.pid, number)

    def all_alive(team: DataParallel) -> None:
        stop(team)
        time.sleep(0.1)
        assert all(os.waitpid(worker.pid, os.WNOHANG) == (0, 0) for worker in team.workers.values())

    compute(3, 3, all_alive)


@forked
def test_no_worker_outlives_a_process_that_was_killed() -> None:
    """Three parts, so that the second worker could hold the first one's line open."""
    script = """
import numpy as np, os, signal
from tests.test_workers import CONFIG, T, N, ThreadPool, DataParallel, window
team = DataParallel(ThreadPool(3), window()[0], CONFIG, T, N, 3)
print(*(worker.pid for worker in team.workers.values()), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=False)
    pids = [int(word) for word in done.stdout.split()]
    assert len(pids) == 2
    end = time.monotonic() + 10
    while any(map(_runs, pids)) and time.monotonic() < end:
        time.sleep(0.01)
    assert not any(map(_runs, pids))


def _runs(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except OSError:
        return False
