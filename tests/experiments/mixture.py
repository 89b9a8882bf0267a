"""What a mixture of the LSTM with the n-gram model that is counted anyway would gain on small texts.

    python -m tests.experiments.mixture TEXT … [--folds 1 3 5 7 9] [--settings "--minutes 1"]

Each fold (see folds.py) is trained by the program's own default. Every held-out character is then predicted by the LSTM, by the best n-gram model,
and by the mixture w p(LSTM) + (1 - w) p(n-gram), which sums to 1 because both do. The weight w that suits the first half of the held-out text is
used on its second half, and the other way round, so no character has a say in its own weight.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean

import numpy as np
from numpy.typing import NDArray

from charlstm.inference import evaluation, ngram
from charlstm.storage import checkpoint
from charlstm.text import corpus
from tests.experiments.folds import TENTHS, held_out_last

WEIGHTS = np.linspace(0, 1, 41)
"""Of the LSTM, to choose from."""


def losses(path: Path, folder: Path, settings: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Train on all but the last tenth; return what each character of the last tenth costs the LSTM and the n-gram, in nats, (chars,) each."""
    command = [
        sys.executable, "-m", "charlstm", "train", str(path), "--name", "x", "--checkpoints", str(folder), "--preview-every", "0",
        "--display", "none", *settings.split(),
    ]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    saved = checkpoint.load(folder / "x.best.npz").char_model
    found = corpus.read([str(path)])
    train_ids, held_out = (saved.vocabulary.translate(ids, found.vocabulary)[0] for ids in found.split(0.1))
    starts, length = evaluation.streams_of(len(held_out) - 1)
    lstm = np.zeros(len(held_out))
    for places, nats in evaluation.char_nll(saved.params, saved.config, held_out, starts, length):
        lstm[places] = nats
    lead = train_ids[-ngram.ORDERS :]
    counted = ngram._kneser_ney(train_ids, np.concatenate([lead, held_out]), saved.config.vocabulary)[:, len(lead) :]
    return lstm[1:], counted[counted.mean(axis=1).argmin()][1:]


def mixed(lstm: NDArray[np.float64], counts: NDArray[np.float64]) -> tuple[float, float]:
    """Return the loss of the mixture in nats per character, and the mean weight of the LSTM."""
    costs = np.array([-np.log(w * np.exp(-lstm) + (1 - w) * np.exp(-counts) + 1e-300) for w in WEIGHTS])
    half = len(lstm) // 2
    first, second = costs[:, :half].mean(axis=1).argmin(), costs[:, half:].mean(axis=1).argmin()
    total = costs[second, :half].sum() + costs[first, half:].sum()
    return float(total / len(lstm)), float(mean([WEIGHTS[first], WEIGHTS[second]]))


def main() -> None:
    """Print a row for each text."""
    parser = argparse.ArgumentParser(prog="python -m tests.experiments.mixture", description=__doc__.split("\n")[0])
    parser.add_argument("texts", nargs="+", type=Path)
    parser.add_argument("--folds", nargs="+", type=int, default=list(TENTHS), help="the tenths to hold out, 0 to 9")
    parser.add_argument("--settings", default="", help="options of `charlstm train`")
    options = parser.parse_args()
    print("| text | LSTM | best n-gram | mixture | gain | weight of the LSTM |\n|---|---|---|---|---|---|", flush=True)
    for path in options.texts:
        text, rows = path.read_text(encoding="utf-8"), []
        for tenth in options.folds:
            with tempfile.TemporaryDirectory(prefix="charlstm-") as folder:
                copy = Path(folder, path.name)
                copy.write_text(held_out_last(text, tenth), encoding="utf-8")
                lstm, counts = losses(copy, Path(folder), options.settings)
                rows.append((float(lstm.mean()), float(counts.mean()), *mixed(lstm, counts)))
        alone, counted, both, weight = map(mean, zip(*rows, strict=True))
        print(
            f"| {path.name} | {alone:.3f} | {counted:.3f} | {both:.3f} | {alone - both:.3f} | {weight:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
