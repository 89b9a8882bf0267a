"""Apply one-line faults to a copy of the project, one at a time, and see whether the default tests catch each: mutation testing by hand.

python -m tests.experiments.mutants                  # all faults; status 1 if fewer than 95 % are caught
python -m tests.experiments.mutants lock "top-p"     # the faults whose label or file contains one of these words
python -m tests.experiments.mutants --list           # what they are

For each fault the test files that should catch it run first. Only if those pass does the whole default tier run. A fault that
makes a run hang counts as caught after `LIMIT_S` seconds. `tests/test_mutants.py` checks that every fault still applies.
"""

from __future__ import annotations

import argparse
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ENOUGH = 0.95
"""Minimum fraction of faults that the default tests must catch."""
LIMIT_S = 900
"""A test run that takes longer than this hangs; without a fault the whole default tier takes about a minute."""
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv*", "venv", "__pycache__", ".*_cache", ".hypothesis", "*.tmp", "node_modules"
)
"""What a copy does not need."""


@dataclass(frozen=True)
class Fault:
    """A fault in one line of one file."""

    label: str
    file: str  # in charlstm/
    old: str  # occurs exactly once in the file
    new: str
    tests: str  # names of the test files to run first, without "test_"

    @property
    def paths(self) -> list[str]:
        """The test files to run first."""
        return [f"tests/test_{name}.py" for name in self.tests.split()]

    def apply(self, root: Path) -> str:
        """Return the text of the faulty file; raise ValueError if the fault does not apply to it."""
        text = (root / "charlstm" / self.file).read_text(encoding="utf-8")
        if (count := text.count(self.old)) != 1:
            raise ValueError(f"{self.label}: {self.file} has {self.old!r} {count} times: adapt the fault to the code")
        if "\n" in self.old + self.new or self.old == self.new:
            raise ValueError(f"{self.label}: a fault must change one line")
        return text.replace(self.old, self.new)


def fault(label: str, file: str, tests: str, old: str, new: str) -> Fault:
    return Fault(label, file, old, new, tests)


FAULTS = (
    # -- nn
    fault("gates i and f swapped", "nn/tape.py", "lstm", "z[:3], z[0], z[1], z[2]", "z[:3], z[1], z[0], z[2]"),
    fault("slope of f takes c of its own step", "nn/lstm.py", "lstm", "slope_f, c_before, out=slope_f", "slope_f, tanh_c, out=slope_f"),
    fault("gradient of U takes h of its own step", "nn/lstm.py", "lstm", "tape.m.reshape(T * N, H)", "tape.h[1:].reshape(T * N, H)"),
    fault("no gradient through the scale of h", "nn/lstm.py", "lstm", "np.multiply(dm, s, out=dh)", "np.copyto(dh, dm)"),
    fault("sampling without M", "nn/stepper.py", "model", "np.multiply(first.h, self.scales[chosen], out=self.scaled)", "np.copyto(self.scaled, first.h)"),
    fault("products in pieces where they should be whole", "nn/layout.py", "lstm", "if not SMALL_KERNELS", "if SMALL_KERNELS"),
    fault("gradient of b is a mean", "nn/lstm.py", "lstm", "np.add.reduce(dz, axis=1, out=d_b)", "np.mean(dz, axis=1, out=d_b)"),
    fault("gradient of x leaves a gate out", "nn/lstm.py", "lstm", "zip(dz[1:], W[1:], strict=True)", "zip(dz[2:], W[2:], strict=True)"),
    fault("forget bias on the input gate", "nn/lstm.py", "lstm", "b[H : 2 * H] = FORGET_BIAS", "b[:H] = FORGET_BIAS"),
    fault("gradient of the loss is a sum", "nn/loss.py", "loss", "chunk *= (1 / M) / total", "chunk *= 1 / total"),
    fault("softmax unshifted", "nn/loss.py", "loss", "chunk -= chunk.max(axis=0)", "chunk -= 0"),
    fault("dropout mask not scaled", "nn/model.py", "model", "mask /= keep", "mask /= 1"),
    fault("dropped weights get a gradient", "nn/model.py", "model", 'layer_grads["U"] *= kept', 'layer_grads["U"] *= 1'),
    fault("state not reset", "nn/model.py", "model", "keep = ~streams[:, None]", "keep = streams[:, None] | True"),
    fault("new characters get an average bias", "nn/growth.py", "eval", 'pretrained["out.b"].min()', 'pretrained["out.b"].mean()'),
    fault("new cells are seen at once", "nn/growth.py", "eval", "ours[...] = 0", "ours *= 1"),
    fault("new layers speak at once", "nn/growth.py", "eval", "ours[3] = 0", "ours[2] = 0"),
    fault("saturation of g forgotten", "nn/model.py", "model guard", "np.abs(gates[3]) > 0.98", "np.abs(gates[3]) > 9.8"),
    fault("gradients of shards not weighted", "nn/model.py", "workers", "d_logits *= share", "d_logits *= 1"),
    fault("clipping without the norm", "nn/optim.py", "optim", "g *= limit / before", "g *= limit"),
    fault("Adam without bias correction", "nn/optim.py", "optim", "rate = lr / (1 - ADAM_BETA1**t)", "rate = lr"),
    fault("Muon without lookahead", "nn/optim.py", "optim", "g += MUON_MOMENTUM * m", "g += 0 * m"),
    fault("the output at the rate of the biases", "nn/optim.py", "optim", "min(1.0, OUTPUT_CELLS / p.shape[1])", "1.0"),
    fault("SGD reports twice its update norm", "nn/optim.py", "optim", "return lr * norm(grads)", "return 2 * lr * norm(grads)"),
    fault("RMSProp reports the norm of its gradient", "nn/optim.py", "optim", "squares += _square(change)", "squares += _square(g)"),
    fault("top-k off by one", "nn/decoding.py", "choose", "[: top_k or V]", "[: top_k + 1 if top_k else V]"),
    fault("top-p keeps one too many among equals", "nn/decoding.py", "choose", "up_to - ranked < top_p", "up_to - ranked <= top_p"),
    fault("what continues a run loses its odds", "nn/decoding.py", "choose", "scores[run] = run_odds[of] + log_sum[of]", "scores[run] = log_sum[of]"),
    fault("what continues a run of a single text loses its odds", "nn/decoding.py", "choose", "weights[run] = run_odds * total", "weights[run] = total"),
    fault("the line of a single text owes nothing", "nn/decoding.py", "choose", "log_odds += lines.boost_of_one()", "log_odds += 0.0"),
    fault("sampling without the output bias", "nn/stepper.py", "model", "np.add(self.columns, self.bias,", "np.add(self.columns, 0,"),
    # -- text
    fault("streams not reset at the start of an epoch", "text/batches.py", "batches", "np.full(self.N, cursor.window == 0)", "np.full(self.N, False)"),
    fault("resets not staggered", "text/batches.py", "batches", "np.arange(self.N) * self.reset_every // self.N", "np.arange(self.N) * 0"),
    fault("last character never a target", "text/batches.py", "batches", "rng.integers(self.slack + 1)", "rng.integers(max(1, self.slack))"),
    fault("held-out text overlaps", "text/corpus.py", "corpus", "self.ids[cut:]", "self.ids[cut - 1 :]"),
    fault("stale cache trusted", "text/cache.py", "cache", "for key in self.identity} != self.identity:", "for key in self.identity} is None:"),
    fault("cache not checked for holes", "text/cache.py", "cache", " or _checksum(file, START + raw.nbytes) != facts[\"checksum\"]", ""),
    fault("rest counted for the part", "text/ids.py", "cache", "self.counts - sum(self._count(part) for part in rest)", "self.counts"),
    fault("numbers not widened from the end", "text/numbering.py", "cache", "reversed(range(0, self.chars, BLOCK_CHARS))", "range(0, self.chars, BLOCK_CHARS)"),
    fault("a stretch begins too late", "inference/novelty.py", "cache", "start = max(0, place - stride + 1)", "start = max(0, place)"),
    fault("resumed text numbered by itself", "launch.py", "pretrained", "text = text.numbered_as(run.vocabulary)", "text = text"),
    fault("line ends not converted", "text/files.py", "corpus", "None, translate=True", "None, translate=False"),
    fault("BOM kept", "text/files.py", "corpus", '.removeprefix("\\ufeff")', '.removeprefix("")'),
    fault("unknown characters become the first one", "text/vocabulary.py", "eval", "self._ids.get(c, -1)", "self._ids.get(c, 0)"),
    fault("a text given twice is read twice", "text/sources.py", "corpus", "tuple(dict.fromkeys(paths))", "tuple(paths)"),
    # -- training
    fault("early stopping inverted", "training/loop.py", "training eval", "> state.best_val_nats + EARLY_STOP_NATS", "< state.best_val_nats + EARLY_STOP_NATS"),
    fault("worst weights count as best", "training/loop.py", "training", "val_nats < state.best_val_nats)", "val_nats > state.best_val_nats)"),
    fault("streams that should start fresh are not reset", "training/loop.py", "training", "state.recurrent_state.forget(window.reset_mask)", "state.recurrent_state"),
    fault("sums not reset at an evaluation", "training/loop.py", "training", "state.sums = type(sums)()", "state.sums = sums"),
    fault("optimizer slots not cleared at a recovery", "training/loop.py", "guard", "slot.fill(0)", "slot.fill"),
    fault("rate not lowered after a recovery", "training/loop.py", "guard", "state.schedule.lr(state.step) * state.guard.lr_scale", "state.schedule.lr(state.step)"),
    fault("no gradient through a residual connection", "nn/model.py", "model", "d_x += d_y", "pass"),
    fault("residual connection not sampled from", "nn/stepper.py", "model", "np.add(below, cell.h, out=self.sum)", "np.add(0, cell.h, out=self.sum)"),
    fault("a share that predicts worse is taken", "training/loop.py", "pretrained", "if not other_nats < nats:", "if other_nats < nats:"),
    fault("start counted twice", "nn/optim.py", "optim", "start_share * (s - p) - a", "start_share * s - a"),
    fault("weights not averaged", "training/loop.py", "training", "optim.average(state.averaged, state.params, number, state.start, state.start_share)", "_copy(state.params, state.averaged)"),
    fault("an event where hosts differ", "training/loop.py", "mpi", "if not synchronize:", "if False:"),
    fault("snapshot never taken", "training/loop.py", "guard", "_copy(state.params, state.snapshot)", "_copy(state.snapshot, state.snapshot)"),
    fault("warm-up starts at zero", "training/schedule.py", "training", "(done + 1) / (warmup + 1)", "done / (warmup + 1)"),
    fault("decay does not end at its floor", "training/schedule.py", "training", "FINAL_LR + (1 - FINAL_LR) * 0.5", "FINAL_LR + 1 * 0.5"),
    fault("patience of the guard off by one", "training/guard.py", "guard", "self.bad >= PATIENCE", "self.bad > PATIENCE"),
    fault("guard overlooks the cell state", "training/guard.py", "guard", '("cell state", m.cell_max)', '("cell state", 0.0)'),
    fault("rate heals after every recovery", "training/guard.py", "guard", "if self.recoveries == 1:", "if self.recoveries >= 1:"),
    fault("an extended run starts at its floor", "training/budget.py", "training", "max(old.lr(warm), run.config.peak_lr / 4)", "old.lr(warm)"),
    fault("default limit in epochs ignored", "training/budget.py", "training", "last = min(last, max(", "last = max(last, max("),
    fault("first steps decide nothing", "training/pace.py", "choice", "least, flops)", "least)"),
    fault("the base for any text", "training/autoconfig.py", "pretrained", ">= ENOUGH_CHARS", "< 0"),
    fault("few characters per parameter of a text that is read once", "training/autoconfig.py", "choice", "and reach.epochs(layers, hidden) >= REPEATS", ""),
    fault("large models for short texts", "training/autoconfig.py", "choice", "* size and size <=", "* size or size <="),
    fault("cell state of a shard lost", "training/data_parallel.py", "workers", "= after.h, after.c", "= after.h, after.h"),
    fault("dead worker believed", "training/data_parallel.py", "workers", "return bool(self.connection.recv(1))", "return self.connection.recv(1) is not None"),
    fault("preview draws from the run's generator", "training/preview.py", "preview training", "np.random.default_rng(run.config.seed)", "run.batch_rng"),
    fault("suspended time counted", "training/control.py", "signals", "self.left_out_s += self.read_s - before_s", "self.left_out_s += 0"),
    fault("other threads get signals", "nn/threads.py", "signals", ", initializer=leave_signals)", ")"),
    fault("overfitting not noticed", "training/advice.py", "training", "if val > best + OVERFIT_NATS:", "if val < best - OVERFIT_NATS:"),
    # -- storage
    fault("file not flushed to disk", "storage/atomic.py", "faults", "os.fsync(file.fileno())", "file.fileno()"),
    fault("folder not flushed to disk", "storage/atomic.py", "faults", "os.fsync(handle)", "os.fstat(handle)"),
    fault("temporary file left behind", "storage/atomic.py", "checkpoint", "beside.unlink()", "beside.exists()"),
    fault("link replaced by a file", "storage/atomic.py", "files", "if is_link else path", "if False else path"),
    fault("mode of a file lost", "storage/atomic.py", "files", "stat.S_IMODE(old.st_mode)", "0o644"),
    fault("any file taken for a lock", "storage/lock.py", "files", "CONTENT.fullmatch(content) is not None and", "True and"),
    fault("lock file taken away unnoticed", "storage/lock.py", "files", "self.handle < 0 or _is_at(self.handle, self.file)", "True"),
    fault("run saved through a foreign link", "storage/saver.py", "files", "if path.is_symlink():", "if False:"),
    fault("cursor outside its text accepted", "storage/schema.py", "files", "cursor.window >= targets // chars or", "False or"),
    fault("history never thinned", "training/history.py", "files", "while len(history) > MOST_ROWS:", "while len(history) > 10**9:"),
    fault("lock shared by all", "storage/lock.py", "keeping", "fcntl.LOCK_EX | fcntl.LOCK_NB", "fcntl.LOCK_SH | fcntl.LOCK_NB"),
    fault("current weights saved as the last good ones", "storage/checkpoint.py", "checkpoint guard", '"good", state.snapshot', '"good", state.params'),
    fault("generators mixed up on load", "storage/checkpoint.py", "checkpoint", 'dropout_rng=schema.generator(run["dropout_rng"])', 'dropout_rng=schema.generator(run["batch_rng"])'),
    fault("non-finite numbers written", "storage/checkpoint.py", "checkpoint", 'if array.dtype.kind == "f" and not', 'if array.dtype.kind == "?" and not'),
    fault("vocabulary out of order accepted", "storage/schema.py", "checkpoint", "(np.diff(points.astype(np.int64)) <= 0).any() or", "False or"),
    fault("best weights kept by reference", "storage/saver.py", "keeping faults", "{name: p.copy() for name, p in self.state.averaged.items()}", "dict(self.state.averaged)"),
    fault("sampling from the latest, not the best", "storage/runs.py", "keeping", "(files.best, files.latest) if best", "(files.latest, files.best) if best"),
    fault("true taken for a number", "storage/schema.py", "checkpoint", "(int, plain)) and not isinstance(value, bool)", "(int, plain))"),
    # -- inference
    fault("one character too many", "inference/drafts.py", "cli sample", "self.chars == self.length", "self.chars > self.length"),
    fault("stop text written", "inference/drafts.py", "cli sample", "self.held[: -len(self.stop)]", "self.held"),
    fault("all texts share one generator", "inference/noise.py", "api sample", "[rng.random((steps, self.V), np.float32) for", "[self.rngs[0].random((steps, self.V), np.float32) for"),
    fault("evaluation predicts its input", "inference/evaluation.py", "training", "ids[window + 1]", "ids[window]"),
    fault("counts not smoothed", "text/ids.py", "training", "count(ids, V) + 1.0", "count(ids, V) + 0.1"),
    fault("begins without the letter frequencies", "nn/model.py", "training", "if out_b is None else out_b", "if True else out_b"),
    fault("discount of Kneser and Ney wrong", "inference/ngram.py", "ngram", "once / (once + 2 * twice)", "once / (once + twice)"),
    fault("last piece not compared", "inference/novelty.py", "novelty", "range(len(text) - chars + 1)", "range(len(text) - chars)"),
    fault("first character after a prompt not scored", "inference/scoring.py", "api eval", "places >= self.context_chars", "places > self.context_chars"),
    # -- session and launch
    fault("fine-tuning rate ignored", "training/autoconfig.py", "eval", 'settings["lr"] = factor * LEARNING_RATES', 'settings["lr"] = LEARNING_RATES'),
    fault("base taken where it does not suit", "storage/pretrained.py", "pretrained", "unigram_nats - LEAST_GAIN_NATS", "unigram_nats + LEAST_GAIN_NATS"),
    fault("changed text of the same length accepted", "text/identity.py", "cli held_out", "(self.sha256, self.chars) == (other.sha256, other.chars)", "self.chars == other.chars"),
    fault("changed held-out text accepted", "text/identity.py", "held_out", "held_out = self.held_out.same_as(other.held_out)", "held_out = True"),
    fault("learned from before it is predicted", "inference/adaptation.py", "eval", "yield start + 1 + np.arange(len(inputs)), loss.nll(logits, targets[:, 0])", "yield start + 1 + np.arange(len(inputs)), loss.nll(model.forward(params, config, inputs, state, work)[0], targets[:, 0])"),
    fault("run created meanwhile overwritten", "launch.py", "files", "    old = _existing(request, files)", "    old = None"),
    fault("every evaluation saved as the best", "session.py", "keeping", "events.Evaluated) and self.state.best_step == self.state.step", "events.Evaluated)"),
    fault("lock not given back", "storage/lock.py", "keeping api", "os.close(self.handle)", "os.fstat(self.handle)"),
    fault("letter frequencies taken for learning", "session.py", "guard", "LEARNED = 0.97", "LEARNED = 1.0"),
    fault("first failed save swallowed", "session.py", "keeping faults", "raise saver.failure", "saver.failure"),
    fault("failure of the last save swallowed", "session.py", "keeping api", "if self.saver.failure is not None:", "if self.saver is None:"),
    fault("closed run not saved", "session.py", "api", "list(saver.save(self._position()))", "list(saver.best or ())"),
    fault("request to save ignored", "session.py", "keeping signals", "self.clock() >= next_save or self.stop.save", "self.clock() >= next_save"),
    # -- command line
    fault("status of divergence", "errors.py", "guard", "exit_status = 3", "exit_status = 1"),
    fault("status of SIGTERM", "errors.py", "cli", '"SIGTERM": 143', '"SIGTERM": 130'),
    fault("status of an I/O error", "cli/app.py", "pipes", "error.strerror or error}\", 1)", "error.strerror or error}\", 2)"),
    fault("status without a command", "cli/app.py", "cli", "raise typer.Exit(2)", "raise typer.Exit(0)"),
    fault("closed pipe is an error", "cli/app.py", "pipes", "return 0 if isinstance(leaving", "return 1 if isinstance(leaving"),
    fault("second Ctrl-C ignored", "cli/signals.py", "signals", 'or stop.reason == name == "SIGINT"', "or False"),
    fault("nohup overruled", "cli/signals.py", "pipes signals", "is not signal.SIG_IGN:", "is not None:"),
    fault("environment wins over the command line", "cli/precedence.py", "precedence", 'if typed and _source(context, name)', 'if not typed and _source(context, name)'),
    fault("all samples have one seed", "cli/sample.py", "cli sample", "range(seed, seed + count)", "[seed] * count"),
    fault("control characters of a sample raw", "cli/sample.py", "signals pipes", "visible(piece) if on_terminal", "piece if on_terminal"),
    fault("bits are nats", "cli/scores.py", "eval", '"bits_per_char": bits(mean)', '"bits_per_char": mean'),
    # -- display
    fault("ESC reaches the terminal", "display/formatting.py", "display screen", "if point < 0x20:", "if point < 0x1B:"),
    fault("lost stream not noticed", "display/select.py", "display", "self.lost = error", "self.lost = None"),
    fault("not-finite numbers in JSON", "display/jsonl.py", "display", "return None if isinstance(value, float)", "return value if isinstance(value, float)"),
    fault("bar never moves", "display/bar.py", "bar", "p.step, p.steps or 0, p.elapsed_s", "0, p.steps or 0, p.elapsed_s"),
    fault("screen not given back", "display/live.py", "screen", "self.console.set_alt_screen(False)", "self.console.set_alt_screen(True)"),
    fault("curve upside down", "display/curve.py", "display", "(high - y) / max", "(y - low) / max"),
    fault("ellipsis beyond the edge", "display/cells.py", "screen", "if used > columns - 1:", "if used > columns:"),
    fault("clipping not shown", "display/view.py", "screen", "if 0 < clip < p.grad_norm:", "if 0 < p.grad_norm < clip:"),
    fault("best evaluation not marked", "display/lines.py", "display", "event.val_nats <= event.best_val_nats", "event.val_nats < event.best_val_nats"),
    # -- processes
    fault("workers obey Ctrl-C", "processes.py", "workers", "signal.signal(number, signal.SIG_IGN)", "signal.getsignal(number)"),
    fault("death of a sampling process swallowed", "processes.py", "workers", 'raise CharlstmError("a worker process died: free some memory, or use a smaller -n") from error', "return"),
)  # fmt: skip


# -- run --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What the tests said of a fault."""

    caught_by: str  # a test; empty if all passed
    seconds: float


def run_tests(copy: Path, paths: Sequence[str], left_out: Sequence[str] = ()) -> str:
    """Run tests of the default tier in a copy, without those in `left_out`; return the first that fails, "" if none does."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"PYTHONPATH": str(copy)}
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *(f"--deselect=tests/{test}" for test in left_out), *paths],
        cwd=copy, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        out, _ = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return "(it hangs)"
    if process.returncode == 0:
        return ""
    failed = re.search(r"^(?:FAILED|ERROR) (?:tests/)?(\S+)", out, re.MULTILINE)
    return failed[1] if failed else f"(pytest ended with status {process.returncode})"


def try_fault(fault: Fault, copy: Path, mtime: int, left_out: Sequence[str] = ()) -> Outcome:
    """Apply a fault to a copy, run its tests, and undo it; `mtime` must differ from call to call, so that bytecode is not reused."""
    began = time.monotonic()
    path = copy / "charlstm" / fault.file
    before = path.read_bytes()
    path.write_text(fault.apply(copy), encoding="utf-8")
    os.utime(path, (mtime, mtime))
    try:
        found, whole = run_tests(copy, fault.paths, left_out), False
        if not found:
            found, whole = run_tests(copy, [], left_out), True
    finally:
        path.write_bytes(before)
        os.utime(path, (mtime + 1, mtime + 1))
    if whole and "::" in found and run_tests(copy, [f"tests/{found.partition('::')[0]}"]):
        found = ""  # it fails without the fault too
    return Outcome(found, time.monotonic() - began)


def main() -> int:
    """Try the faults that were asked for; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("words", nargs="*", help="only faults whose label or file contains one of these words")
    parser.add_argument("--list", action="store_true", help="list the faults and exit")
    parser.add_argument("--jobs", type=int, default=1, help="faults to try at the same time, each in a copy of its own")
    asked = parser.parse_args()
    faults = [f for f in FAULTS if not asked.words or any(word in f"{f.label} {f.file}" for word in asked.words)]
    if asked.list:
        print("\n".join(f"{f.file:<28} {f.label}" for f in faults))
        return 0
    for f in faults:
        f.apply(ROOT)
    with tempfile.TemporaryDirectory(prefix="charlstm-mutants-") as folder:
        copies: queue.Queue[Path] = queue.Queue()
        for k in range(asked.jobs):
            copies.put(shutil.copytree(ROOT, Path(folder, str(k), "charlstm"), ignore=LEFT_OUT))
        left_out: list[str] = []
        while failed := run_tests(
            Path(folder, "0", "charlstm"), sorted({p for f in faults for p in f.paths}), left_out
        ):
            print(f"left out, because it fails without any fault: {failed}", flush=True)
            left_out.append(failed)
            if len(left_out) > 5 or "::" not in failed:
                print("too much fails without any fault to learn anything from the others")
                return 1

        def job(numbered: tuple[int, Fault]) -> Outcome:
            number, fault = numbered
            copy = copies.get()
            try:
                outcome = try_fault(fault, copy, int(time.time()) + 2 * number, left_out)
            finally:
                copies.put(copy)
            print(f"{fault.label:<46} {outcome.seconds:>5.0f} s  {outcome.caught_by or 'SURVIVED'}", flush=True)
            return outcome

        with ThreadPoolExecutor(asked.jobs) as pool:
            outcomes = list(pool.map(job, enumerate(faults)))
    survived = [f.label for f, outcome in zip(faults, outcomes, strict=True) if not outcome.caught_by]
    print(
        f"{len(faults) - len(survived)} of {len(faults)} caught" + "".join(f"\nsurvived: {label}" for label in survived)
    )
    return 0 if len(survived) <= (1 - ENOUGH) * len(faults) else 1


if __name__ == "__main__":
    sys.exit(main())
