"""Messages about mistakes on the command line: one sentence each, with the closest valid word as a suggestion."""

from __future__ import annotations

import difflib
import itertools
import os
import re
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from charlstm.errors import did_you_mean
from charlstm.settings import SETTINGS, Budget, RunOptions, SampleConfig, TextOptions, TrainConfig, TrainRequest

CHOICE = re.compile(r"'(?P<value>.*)' is not one of (?P<choices>.*)", re.DOTALL)


SPELLING = {"temperature": "temp", "save_every_s": "save-every", "preview_every_s": "preview-every"}
"""Options that have another name than their setting."""
NAMES = {f.name for cls in (TrainRequest, TrainConfig, TextOptions, Budget, RunOptions, SampleConfig) for f in fields(cls)} | {
    "adapt", "bits", "checkpoints", "context", "file", "force", "limit", "novelty", "output", "plot", "prompt_file", "temps", "text"
}  # fmt: skip
"""The settings that messages of the library name."""


def spell(message: str, prefix: str = "--") -> str:
    """Spell the settings that a message names in backticks as options: `top_k` becomes --top-k."""

    def option(match: re.Match[str]) -> str:
        name = match[1]
        return f"{prefix}{SPELLING.get(name, name.replace('_', '-'))}" if name in NAMES else match[0]

    return re.sub(r"`(\w+)`", option, message)


SYNONYMS = {
    "temp": "temperature", "length": "len max-length max-len max-tokens max-new-tokens num-chars chars num-predict tokens gen-length",
    "prompt": "primetext prime start seed-text text-prompt prefix", "lr": "learning-rate learningrate step-size alpha",
    "hidden": "rnn-size hidden-size num-hidden n-hidden units size n-embd hidden-dim num-units embed-dim n-embed model-size width",
    "layers": "num-layers n-layer n-layers nlayers depth", "seq": "seq-length seq-len sequence-length block-size bptt unroll context-length",
    "batch": "batch-size bs", "epochs": "max-epochs num-epochs n-epochs epoch", "steps": "max-iters iterations iters max-steps num-steps n-iters",
    "minutes": "time max-time time-limit duration time-budget", "clip": "grad-clip clip-grad clipping max-grad-norm gradient-clip",
    "optimizer": "opt optim", "dropout": "drop drop-rate dropout-rate", "val-fraction": "val-frac validation-split val-split valid-fraction test-fraction",
    "eval-every": "eval-interval eval-val-every val-every eval-freq log-interval print-every", "save-every": "checkpoint-every save-interval",
    "preview-every": "sample-every", "name": "run-name run experiment", "threads": "workers num-workers cores jobs cpus num-threads",
    "checkpoints": "checkpoint-dir checkpoint-path checkpoint dir out-dir save-dir cp-dir output-dir", "if-exists": "overwrite force resume restart restore continue",
    "init-from": "pretrained load load-from start-from from finetune fine-tune warm-start weights",
    "output": "out out-file outfile save-to file", "count": "num-samples n-samples samples num number", "lines": "num-lines n-lines",
    "stop": "stop-sequence end until", "json": "jsonl format", "quiet": "silent no-progress", "display": "verbose verbosity progress ui",
    "context": "cold", "top-p": "nucleus topp", "top-k": "topk", "seed": "random-seed random-state rng", "interactive": "chat repl",
    "show": "color colour",
}  # fmt: skip
"""Names that other programs give to our options."""
MEANT = {other: name for name, others in SYNONYMS.items() for other in others.split()}
VALUES = {
    "overwrite": " overwrite",
    "force": " overwrite",
    "restart": " overwrite",
    "resume": " resume",
    "restore": " resume",
    "continue": " resume",
}
"""The value to add to an option if its synonym means the option together with that value."""
ANSWERS = {
    **dict.fromkeys(("gpu", "gpus", "gpu-id", "gpuid", "device", "cuda", "opencl", "backend", "dtype", "compile", "fp16", "mps"), "charlstm runs on the CPU, so leave it out"),
    **dict.fromkeys(("decay-lr", "learning-rate-decay", "lr-decay", "warmup", "warmup-iters", "weight-decay", "beta1", "beta2", "momentum", "scheduler"), "the schedule and the optimizer need no settings beyond --optimizer and --lr, so leave it out"),
    **dict.fromkeys(("repeat-penalty", "repetition-penalty", "frequency-penalty", "presence-penalty", "beam", "beams", "num-beams"), "charlstm has no such method: use --temp, --top-k or --top-p, so leave it out"),
    "cpu": "charlstm runs on the CPU anyway, so leave it out",
    "v": "use 'charlstm --version'",
    "version": "use 'charlstm --version'",
}  # fmt: skip
"""What to say to options that charlstm has no equivalent of."""
OUTPUT = "a run is saved in the folder --checkpoints under its --name"
ANSWERS_BY_COMMAND = {
    "train": {
        **dict.fromkeys(("output", "out", "o", "out-file", "outfile", "save-to"), OUTPUT),
        **dict.fromkeys(("model", "rnn-type", "cell", "arch"), "every model is an LSTM, so leave it out"),
    },
    "resume": {
        **dict.fromkeys(("resume", "continue", "restore"), "'charlstm resume' does that, so leave it out"),
        **dict.fromkeys(("overwrite", "force", "restart", "if-exists"), "to start over, use 'charlstm train TEXT --if-exists overwrite'"),
        **dict.fromkeys(("corpus", "data", "input", "data-dir", "dataset"), "did you mean --text?"),
    },
    "sample": dict.fromkeys(("verbose", "verbosity", "progress", "display"), "stderr names the run and the seed already, so leave it out"),
    "eval": dict.fromkeys(("seq", "block-size", "seq-length"), "did you mean --context?"),
}  # fmt: skip
"""The same for a single command, before any other guess."""
ARGUMENTS = {
    **dict.fromkeys(("data-dir", "data", "dataset", "input", "input-file", "file", "text", "corpus", "train-file", "d", "input-txt", "data-path", "f"), "train"),
    **dict.fromkeys(("model", "model-path", "m", "checkpoint", "run", "name", "checkpoint-file", "load", "weights"), "sample resume eval info"),
}  # fmt: skip
"""Options of other programs whose values are arguments here, and the commands that it is true of."""
CUTOFF = 0.8
"""Minimum similarity of an option to be suggested: a slip of the finger, not another word."""


COMMANDS = {
    **dict.fromkeys(("generate", "write", "run", "predict", "gen"), "sample"),
    **dict.fromkeys(("fit", "learn", "start", "new"), "train"), **dict.fromkeys(("chat", "repl", "interactive"), "sample -i"),
    **dict.fromkeys(("continue", "restart"), "resume"), **dict.fromkeys(("test", "score", "evaluate", "perplexity"), "eval"),
    **dict.fromkeys(("list", "ls", "models", "rm", "mv", "remove", "rename", "delete"), "runs"),
    **dict.fromkeys(("show", "status", "describe", "plot"), "info"), "version": "--version",
}  # fmt: skip
"""Words that other programs have for our commands."""


def unknown_command(words: Sequence[str], commands: Sequence[str]) -> str:
    """Return the message about a first word that is not a command."""
    meant = COMMANDS.get(words[0].lower())
    hint = f"did you mean 'charlstm {meant}'?" if meant else did_you_mean(words[0], commands)
    with suppress(OSError, ValueError):  # not a valid file name
        if not hint and Path(words[0]).exists():
            hint = f"did you mean 'charlstm train {shlex.join(words)}'?"
    hint = hint or f"use one of {', '.join(commands)}"
    return f"there is no command {words[0]!r}: {hint}"


def explain(error: Any, words: Sequence[str]) -> str:
    """Return the message about any other mistake, derived from the exception that Typer raised.

    Args:
        error: Typer's exception.
        words: the arguments on the command line.
    """
    context = getattr(error, "ctx", None)
    path = (
        context.command_path if context is not None else " ".join(["charlstm", *words[:1]])
    )  # only commands come so far
    see = f"see '{path} --help'"
    if hasattr(error, "possibilities"):
        return _unknown_option(error, words, see)
    message = str(error.message).removeprefix("Value error, ").replace("Input should be", "it must be").rstrip(".")
    param = getattr(error, "param", None)
    if param is None and "unexpected extra argument" in message:
        return _extra_argument(message, context, see)
    if param is None:
        return f"{message[:1].lower()}{message[1:]}; {see}"
    name = _named(param, context)
    if hasattr(error, "param_type"):
        return f"{name} is missing; {see}"
    if match := CHOICE.fullmatch(message):
        choices = [word.strip("' ") for word in match["choices"].split(",")]
        return f"{name} {match['value']!r} is unknown ({', '.join(choices)}): {did_you_mean(match['value'], choices) or see}"
    return f"{name}{_typed(param, words, name)}: {message.split(',')[0]}; {see}"


def _extra_argument(message: str, context: Any, see: str) -> str:
    """Return the message about arguments after those that a command takes."""
    extra = re.split(r"arguments? \(|argument\(s\) \(", message, maxsplit=1)[-1].removesuffix(")")
    command, run = context.command.name, context.params.get("run")
    if command == "sample":
        hint = f"to continue a text, type 'charlstm sample {shlex.quote(run or 'RUN')} --prompt {shlex.quote(extra)}'"
    elif command == "resume":
        hint = "a run knows its text, so give only the name of the run, and --text if the text has moved"
    else:
        hint = see
    return f"'{context.command_path}' takes one run, and {extra!r} is left over: {hint}"


def _named(param: Any, context: Any) -> str:
    """Return the name of the parameter as the user gave it: the option, or its environment variable."""
    source = context.get_parameter_source(param.name) if context is not None else None
    if source is not None and source.name == "ENVIRONMENT":
        return str(param.envvar)
    return str(max(param.opts, key=len) if param.param_type_name == "option" else param.metavar or param.name)


def _typed(param: Any, words: Sequence[str], name: str) -> str:
    """Return the value of an option as the user typed it, with a space before, or an empty string if it is unclear."""
    if name == param.envvar:
        return f" {os.environ.get(name, '')!r}"
    values = [after for word, after in itertools.pairwise(words) if word in param.opts]
    values += [word.partition("=")[2] for word in words if word.partition("=")[0] in param.opts and "=" in word]
    return f" {values[-1]!r}" if values else ""


def _unknown_option(error: Any, words: Sequence[str], see: str) -> str:
    wrong, context = error.option_name, error.ctx
    for word in words:  # Click reports -temp as -t
        if word.startswith(wrong) and not wrong.startswith("--"):
            wrong = word.split("=")[0]
    return f"'{context.command_path}' has no option {wrong}: {_meant(wrong, context) or see}"


def _meant(wrong: str, context: Any) -> str:
    """Return what to type instead of an option that a command does not have, or an empty string if nobody knows."""
    word, root, command = wrong.lstrip("-").lower().replace("_", "-"), context.parent or context, context.command.name
    own = _options(context.command)
    home = dict.fromkeys(own, context.command_path)
    for other in root.command.commands.values():
        home = dict.fromkeys(_options(other), f"{root.command_path} {other.name}") | home
    if "--" + word in own:
        return f"did you mean --{word}?"
    if answer := ANSWERS_BY_COMMAND.get(command, {}).get(word):
        return answer
    if command in ARGUMENTS.get(word, "").split():
        name = "CORPUS" if command == "train" else "RUN TEXT" if command == "eval" else "RUN"
        return f"give it without an option, as in '{context.command_path} {name}'"
    if word in ANSWERS:
        return ANSWERS[word]
    if (name := "--" + MEANT.get(word, "")) in own:
        return f"did you mean {name + VALUES.get(word, '')}?"
    if "--" + word not in home and not difflib.get_close_matches("--" + word, home, n=1, cutoff=CUTOFF):
        word = next(iter(difflib.get_close_matches(word, MEANT, n=1, cutoff=CUTOFF)), word)
    name = "--" + MEANT.get(word, "")
    if name in own or (name in home and "--" + word not in home):
        meant = name + VALUES.get(word, "")
        if command == "resume" and name[2:].replace("-", "_") in SETTINGS:
            return "a resumed run keeps its settings, so leave it out"
        if name in own:
            return f"did you mean {meant}?"
        if word in ("resume", "continue", "restore", "overwrite", "force", "restart"):
            return "" if command == "resume" else f"'charlstm train' has {meant}"
        return f"'{home[name]}' has {name}"
    if command == "resume" and word.replace("-", "_") in SETTINGS:
        return "a resumed run keeps its settings, so leave it out"
    near = difflib.get_close_matches("--" + word, own, n=1, cutoff=CUTOFF)
    near = near or difflib.get_close_matches("--" + word, home, n=1, cutoff=CUTOFF)
    if not near:
        return ""
    return f"did you mean {near[0]}?" if near[0] in own else f"'{home[near[0]]}' has {near[0]}"


def single_dash(words: Sequence[str], command: Any, context: Any) -> str:
    """Return the message about a long option with a single dash, such as -temp, or an empty string if there is none.

    Click would read it as short options: -prompt as -p with the value "rompt".
    """
    long = {name[2:] for name in _options(command)} | MEANT.keys()
    takes = {name for param in command.params if not getattr(param, "is_flag", True) for name in param.opts}
    options = itertools.takewhile(lambda word: word != "--", words)
    for before, word in itertools.pairwise(itertools.chain([""], options)):
        name = word.split("=")[0]
        if before in takes:
            continue  # a value
        if len(name) > 2 and name[0] == "-" != name[1] and name[1:].replace("_", "-") in long:
            return (
                f"'{context.command_path}' has no option {name}: {_meant(name, context) or 'options have two dashes'}"
            )
    return ""


def _options(command: Any) -> list[str]:
    return [name for param in command.params for name in param.opts if name.startswith("--")]
