"""What `speed` times, one function a kind. Each runs in a process of its own and prints its result as one line of JSON.

``python -m tests.benchmarks.workers NAME '{"layers": 1, …}'``. NumPy and PyTorch are imported inside the functions, because
their BLAS counts its threads when it is loaded.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from charlstm import blas

V = 65
CHARACTERS = "\n " + "".join(map(chr, range(ord("A"), ord("A") + V - 2)))
"""The vocabulary of every measurement."""
PIECE, PIECES = 20, 512
"""Characters between two looks at the clock when sampling."""


def median_s(step: Callable[[], object], seconds: float) -> float:
    """Median time of a step over so many seconds (5 steps at least), after half as long a warm-up."""
    end, times = time.perf_counter() + seconds / 2, []
    while time.perf_counter() < end:
        step()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        before = time.perf_counter()
        step()
        times.append(time.perf_counter() - before)
    return statistics.median(times)


# -- training ---------------------------------------------------------------------------------------------------------


def train_charlstm(layers: int, hidden: int, batch: int, seq: int, text: str, optimizer: str, seconds: float) -> float:
    """A step of `charlstm train` on a text: all that happens between two Progress events, including windows and guard."""
    blas.prepare()
    from charlstm import events
    from charlstm.settings import TrainConfig
    from charlstm.text import corpus
    from charlstm.training import loop, state

    read = corpus.read((text,))
    config = TrainConfig(
        layers=layers, hidden=hidden, batch=batch, seq=seq, clip=1.0, val_fraction=0.0, optimizer=optimizer
    )
    run, notes = state.begin(read, config, blas.cores())
    assert len(read.vocabulary) == V, f"the text has {len(read.vocabulary)} characters"
    assert run.config.batch == batch, notes
    run.schedule.last = run.schedule.eval_every = 10**9
    stream = loop.train(run, *read.split(0.0), blas.cores())

    def step() -> None:
        while not isinstance(next(stream), events.Progress):
            pass

    return median_s(step, seconds)


def train_torch(layers: int, hidden: int, batch: int, seq: int, inputs: str, optimizer: str, seconds: float) -> float:
    """The same step in PyTorch, with default threads; `inputs` is ``onehot`` or ``embedding``."""
    import torch

    step, _ = torch_step(V, layers, hidden, batch, inputs, optimizer, lr=0.01)
    windows = torch.randint(V, (16, seq + 1, batch))
    count = itertools.count()
    return median_s(lambda: step(windows[next(count) % len(windows)]), seconds)


def torch_step(
    vocabulary: int, layers: int, hidden: int, batch: int, inputs: str, optimizer: str, lr: float, seed: int = 1
) -> tuple[Callable[..., float], dict[str, Any]]:
    """A model in PyTorch, and the function that trains it on a window.

    With ``muon``, `torch.optim.Muon` updates the matrices between hidden units, and Adam at twice the rate the others, as in charlstm.
    Adam is fused.

    Returns:
        a function of ids (seq + 1, batch), of a factor of the learning rate, and of a mask (batch,) of streams whose state is reset, or
        None; it returns the loss; and the modules.
    """
    import torch
    from torch import nn
    from torch.nn import functional

    torch.manual_seed(seed)
    modules = {"lstm": nn.LSTM(vocabulary, hidden, layers), "out": nn.Linear(hidden, vocabulary)}
    if inputs == "embedding":
        modules["embedding"] = nn.Embedding(vocabulary, vocabulary)
    named = {f"{part}.{name}": p for part, module in modules.items() for name, p in module.named_parameters()}
    inner = {k for k in named if optimizer == "muon" and ("weight_hh" in k or ("weight_ih" in k and "_l0" not in k))}
    rest = [p for name, p in named.items() if name not in inner]
    optimizers: list[Any] = [torch.optim.Adam(rest, lr=2 * lr if inner else lr, betas=(0.9, 0.99), fused=True)]
    if inner:
        optimizers.append(torch.optim.Muon([named[name] for name in sorted(inner)], lr=lr, weight_decay=0.0))
    groups = [(group, group["lr"]) for each in optimizers for group in each.param_groups]
    state = [torch.zeros(layers, batch, hidden) for _ in "hc"]

    def step(ids: Any, factor: float = 1.0, reset: Any = None) -> float:
        for group, rate in groups:
            group["lr"] = factor * rate
        if reset is not None:
            for part in state:
                part[:, reset] = 0
        one_hot = inputs == "onehot"
        x = functional.one_hot(ids[:-1], vocabulary).float() if one_hot else modules["embedding"](ids[:-1])
        y, (h, c) = modules["lstm"](x, tuple(state))
        state[:] = h.detach(), c.detach()
        loss = functional.cross_entropy(modules["out"](y).view(-1, vocabulary), ids[1:].reshape(-1))
        for each in optimizers:
            each.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(list(named.values()), 1.0)
        for each in optimizers:
            each.step()
        return float(loss.item())

    return step, modules


def products(layers: int, hidden: int, batch: int, seq: int, threads: str, seconds: float) -> float:
    """The matrix products that such a step can't do without, bare: into buffers made once, nothing between them.

    The first layer's input needs none: it is a row lookup. `threads` is ``streams`` (the batch in parts, a thread and one BLAS thread
    each) or ``blas`` (the whole batch, all BLAS threads). Both orders of the axes are tried, the faster counts.
    """
    if threads == "streams":
        blas.prepare()
    import numpy as np

    from charlstm.nn import threads

    parts = threads.shards_for(batch, blas.cores()) if threads == "streams" else 1
    sizes = [s.stop - s.start for s in threads.split(batch, parts)]

    def jobs(N: int, feature_major: bool) -> list[tuple[Any, Any, Any]]:
        """The products of a step for N streams, as (left, right, out)."""
        T, H, rng = seq, hidden, np.random.default_rng(1)

        def product(rows: int, inner: int, columns: int) -> tuple[Any, Any, Any]:
            """(rows, inner) @ (inner, columns), or the transpose of it all, with the weights or rows on the left."""
            if not feature_major:
                rows, columns = columns, rows
            left, right = rng.random((rows, inner), np.float32), rng.random((inner, columns), np.float32)
            return left, right, np.empty((rows, columns), np.float32)

        def gradient(rows: int, columns: int) -> tuple[Any, Any, Any]:
            """(rows, T*N) @ (T*N, columns), summed over all columns of a window."""
            left = rng.random((rows, T * N) if feature_major else (T * N, rows), np.float32)
            right = rng.random((columns, T * N) if feature_major else (T * N, columns), np.float32)
            out = np.empty((rows, columns), np.float32)
            return (left, right.T, out) if feature_major else (left.T, right, out)

        step = [product(4 * H, H, N)] * T + [product(H, 4 * H, N)] * T + [gradient(4 * H, H)]
        above = [product(4 * H, H, T * N), product(H, 4 * H, T * N), gradient(4 * H, H)]
        top = [product(V, H, T * N), product(H, V, T * N), gradient(V, H)]
        return step * layers + above * (layers - 1) + top

    def work(part: list[tuple[Any, Any, Any]]) -> None:
        for left, right, out in part:
            np.matmul(left, right, out=out)

    with ThreadPoolExecutor(max(1, parts - 1)) as pool:

        def step(todo: list[list[tuple[Any, Any, Any]]]) -> None:
            others = [pool.submit(work, part) for part in todo[1:]]
            work(todo[0])
            for other in others:
                other.result()

        orders = [[jobs(N, feature_major) for N in sizes] for feature_major in (True, False)]
        return min(median_s(lambda todo=todo: step(todo), seconds / 2) for todo in orders)


# -- sampling ---------------------------------------------------------------------------------------------------------


def sample_charlstm(layers: int, hidden: int, n: int, seconds: float, length: int = 0, default: bool = False) -> float:
    """Seconds a character of each of n texts; with a length, of one whole text of it.

    It is from the model's own distribution, or by the default settings of a model that knows how long its lines are.
    """
    blas.prepare()
    import numpy as np

    from charlstm.inference import sampling
    from charlstm.nn import model
    from charlstm.nn.config import ModelConfig
    from charlstm.settings import SampleConfig
    from charlstm.text.vocabulary import Vocabulary

    config = ModelConfig(V, residual=layers > 1, multiplicative=True, hidden=hidden, layers=layers)
    params = model.init(config, np.random.default_rng(1))
    writer = sampling.CharModel(config, params, Vocabulary(CHARACTERS), tuple(range(5, 70)) if default else ())
    how = {} if default else {"temperature": 1.0, "top_p": 1.0}

    def text(length: int) -> Iterator[list[str]]:
        return sampling.generate(
            writer,
            SampleConfig(length=length, **how),
            [np.random.default_rng(seed) for seed in range(n)],
            blas.cores(),
        )

    if length:
        return _whole_s(lambda: sum(1 for _ in text(length))) / length
    endless = text(0)
    size = PIECE if n == 1 else PIECES  # processes send their texts in blocks

    def piece() -> None:
        chars = 0
        while chars < size:
            chars += len(next(endless)[0])

    return median_s(piece, seconds) / size


def _whole_s(job: Callable[[], object]) -> float:
    before = time.perf_counter()
    job()
    return time.perf_counter() - before


def sample_torch(layers: int, hidden: int, n: int, kind: str, threads: int, seconds: float) -> float:
    """The same in PyTorch; `kind` is ``nn.LSTM`` or ``nn.LSTMCell``, 0 threads are the default."""
    import torch
    from torch import nn

    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(1)
    embedding, out = nn.Embedding(V, V), nn.Linear(hidden, V)
    lstm = nn.LSTM(V, hidden, layers)
    cells = [nn.LSTMCell(hidden if k else V, hidden) for k in range(layers)]
    temperature = 1.0

    @torch.inference_mode()
    def piece() -> list[list[str]]:
        nonlocal ids, recurrent_state, states
        texts = []
        for _ in range(PIECE):
            y = embedding(ids)
            if kind == "nn.LSTM":
                y, recurrent_state = lstm(y[None], recurrent_state)
                y = y[0]
            else:
                for k, cell in enumerate(cells):
                    states[k] = cell(y, states[k])
                    y = states[k][0]
            p = torch.softmax(out(y) / temperature, dim=1)
            ids = torch.multinomial(p, 1)[:, 0]
            texts.append([CHARACTERS[i] for i in ids.tolist()])
        return texts

    ids = torch.zeros(n, dtype=torch.long)
    recurrent_state = (torch.zeros(layers, n, hidden), torch.zeros(layers, n, hidden))
    states = [(torch.zeros(n, hidden), torch.zeros(n, hidden)) for _ in cells]
    return median_s(piece, seconds) / PIECE


# -- the machine ------------------------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """What the measurements were made with."""
    import numpy as np

    try:
        import torch
    except ImportError:
        torch = None
    return {
        "processor": _processor(),
        "cores": blas.cores(),
        "python": sys.version.split()[0],
        "numpy": np.__version__,
        "blas": np.show_config(mode="dicts")["Build Dependencies"]["blas"].get("name", "?"),
        "kernel": _kernel(Path(np.__file__).parent),
        "environment": {name: value for name, value in sorted(os.environ.items()) if _matters(name)},
        "torch": torch and torch.__version__,
        "torch_threads": torch and torch.get_num_threads(),
    }


def _matters(name: str) -> bool:
    return name.startswith(("OPENBLAS_", "OMP_", "MKL_")) or name in blas.THREADS


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    avx512 = any(line.startswith("flags") and " avx512f " in line + " " for line in lines)
    return (names[0] if names else platform.machine()) + (", AVX-512" if avx512 else "")


def _kernel(package: Path) -> str:
    """The kernels that the OpenBLAS of NumPy's wheel took on this processor; ? where it is another BLAS."""
    for library in [*package.parent.glob("numpy.libs/*openblas*"), *package.glob(".dylibs/*openblas*")]:
        for name in ("scipy_openblas_get_corename64_", "openblas_get_corename64_", "openblas_get_corename"):
            ask = getattr(ctypes.CDLL(str(library)), name, None)
            if ask is not None:
                ask.restype = ctypes.c_char_p
                return str(ask().decode())
    return "?"


WORKERS: dict[str, Callable[..., Any]] = {
    worker.__name__: worker
    for worker in (train_charlstm, train_torch, products, sample_charlstm, sample_torch, machine)
}

if __name__ == "__main__":
    print(json.dumps(WORKERS[sys.argv[1]](**json.loads(sys.argv[2]))))
