"""The text of a run, read again: from where it was or is now, and only if it is still the same."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from charlstm.errors import CorpusError, UsageError
from charlstm.settings import TextOptions, Unknown
from charlstm.text import corpus
from charlstm.text.cache import folder_of
from charlstm.text.corpus import Corpus
from charlstm.text.identity import TextInfo
from charlstm.text.sources import STDIN, find, find_again
from charlstm.text.vocabulary import Vocabulary, describe_some

Read = Callable[[Sequence[str], TextOptions], Corpus]


def find_held_out(
    name: str, texts: Sequence[str] = (), notes: list[str] | None = None, saved: TextInfo | None = None
) -> tuple[str, ...]:
    """Return the paths of a held-out text with files of its own; for an empty name those of a text that exists, if it has one.

    Args:
        name: in the form that `sources.find` accepts.
        texts: paths of the texts to train on, which must be others.
        notes: receives a note if a file is named twice.
        saved: identity of the text that exists.

    Raises:
        CorpusError: there is no such text, or it can't be held out.
    """
    if name == STDIN:
        raise CorpusError("`val_file` can't be standard input: give the path of a file")
    remembered = saved.held_out.sources if saved and saved.held_out else ()
    paths = find((name,), notes) if name else find_again(remembered)
    if both := [path for path in paths if path in texts]:
        raise CorpusError(
            f"{both[0]} can't be trained on and held out: give `val_file` another file, or leave it out of the texts"
        )
    return paths


def check_held_out(text: Corpus, unknown: Unknown) -> str:
    """Return a note on the characters of a held-out text that are left out because the text does not have them; "" if none are.

    Raises:
        UsageError: they may not be left out, or nothing else is left.
    """
    if text.held_out is None:
        return ""
    ids, unknown_chars = text.vocabulary.translate(text.held_out.ids, text.held_out.vocabulary)
    if unknown_chars and unknown == "error":
        raise UsageError(
            f"the text does not have {describe_some(unknown_chars)} of `val_file`: add `unknown` skip to drop such characters"
        )
    if len(ids) < 2:
        raise UsageError("`val_file` is too short: give a text with at least two characters that the training text has")
    dropped = len(text.held_out.ids) - len(ids)
    return f"skipped {dropped:,} characters of `val_file` that the text does not have" if dropped else ""


def read_again(
    info: TextInfo, vocabulary: Vocabulary, run: Sequence[str], texts: Sequence[str], val_file: str, read: Read
) -> Corpus:
    """Read the text of a run again, with its held-out text if that has files of its own, to train on.

    Args:
        info: identity of the text.
        vocabulary: of the run.
        run: the words that name it in a command, its name first, for messages.
        texts: where the text is now; empty: where it was.
        val_file: where the held-out text is now; "": where it was.
        read: reads texts, given their paths and how.

    Raises:
        UsageError: it came from standard input.
        CorpusError: it is missing or has changed.
    """
    if not texts and STDIN in info.sources:
        raise UsageError(
            f"the text of {run[0]!r} came from standard input: pipe it into 'charlstm resume {shlex.join(run)} --text -'"
        )
    if val_file and info.held_out is None:
        raise UsageError(f"the run {run[0]!r} holds out the end of its text: leave out `val_file`")
    sources = find(texts) if texts else _find_again(info, f"'charlstm resume {shlex.join(run)} --text PATH'")
    held_out = find_held_out(val_file)
    if info.held_out and not val_file:
        held_out = _find_again(info.held_out, f"'charlstm resume {shlex.join(run)} --val-file PATH'")
    text = read(sources, info.options)
    if held_out:
        text = text.holding_out(read(held_out, info.options))
    check_same(info, vocabulary, run, text)
    return text


def _find_again(info: TextInfo, command: str) -> tuple[str, ...]:
    try:
        return find_again(info.sources)
    except CorpusError as error:
        raise CorpusError(f"{error}: if it has moved, type {command}") from error


def check_same(info: TextInfo, vocabulary: Vocabulary, run: Sequence[str], text: Corpus) -> None:
    """Raise CorpusError if a text is not that of a run, given its vocabulary and the words that name it in a command."""
    if info.same_as(text.info) and set(text.vocabulary.characters) <= set(vocabulary.characters):
        return
    what, changed = "text", ""
    command = f"charlstm train {shlex.join(text.info.sources)} --name {shlex.join(run)} --if-exists update"
    if info.held_out and text.info.held_out:
        if replace(info, held_out=None).same_as(replace(text.info, held_out=None)):
            what = "held-out text"
            changed = f"{info.held_out.chars:,} characters then, {text.info.held_out.chars:,} now"
        if text.info.held_out.sources != info.held_out.sources and len(text.info.held_out.sources) == 1:
            command += f" --val-file {shlex.quote(text.info.held_out.sources[0])}"  # others are remembered
    raise CorpusError(
        f"the {what} of {run[0]!r} has changed ({changed or corpus.what_changed(info, vocabulary, text)}): "
        f"restore the old one, or continue on the new one with '{command}'"
    )


def read_for(info: TextInfo, name: str, need: str, instead: str, cache: str | Path, held_out: bool = False) -> Corpus:
    """Read the text of a run again for another purpose than training.

    Args:
        info: identity of the text.
        name: of the run, for messages.
        need: what needs the text, for messages.
        instead: what to do if it can't be read.
        cache: the folder of caches, or `AUTO` or `NONE`.
        held_out: whether to read its held-out text, too, if that has files of its own.

    Raises:
        CorpusError: the text is missing, has changed, or came from standard input.
    """
    if STDIN in info.sources:
        raise CorpusError(f"the text of {name!r} came from standard input and can't be read again: {instead}")
    other = info.held_out if held_out else None
    try:
        text = corpus.read(find_again(info.sources), info.options, folder_of(cache))
        if other:
            text = text.holding_out(corpus.read(find_again(other.sources), info.options, folder_of(cache)))
    except CorpusError as error:
        raise CorpusError(f"{need} needs the text of {name!r}: {error}") from error
    if not text.info.same_as(replace(info, held_out=other)):
        raise CorpusError(
            f"the text of {name!r} has changed ({info.chars:,} characters then, {text.info.chars:,} now): "
            f"restore the old one, or {instead}"
        )
    return text
