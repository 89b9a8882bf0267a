"""Texts as ids: reads, numbers, fingerprints and splits them."""

from __future__ import annotations

import codecs
import hashlib
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from charlstm.errors import CorpusError
from charlstm.settings import OnRead, TextOptions
from charlstm.text import cache as cache_files
from charlstm.text import encodings, files, records
from charlstm.text.cache import CachedText, Entry, total_bytes
from charlstm.text.identity import TextInfo, train_chars
from charlstm.text.ids import MappedIds, TextIds, blocks
from charlstm.text.numbering import Encoded, Numbering, sort_characters
from charlstm.text.sources import BUILT_IN, SUFFIX, bundled_path, summary
from charlstm.text.vocabulary import Vocabulary, describe_some

DEFAULTS = TextOptions()


@dataclass(frozen=True)
class Corpus:
    """A text as ids, with its vocabulary and its identity."""

    ids: TextIds  # (chars,), one byte per id if the vocabulary is small enough
    vocabulary: Vocabulary
    info: TextInfo
    notes: tuple[str, ...] = ()  # for the user, on what looks wrong with the text
    held_out: Corpus | None = None  # a held-out text of its own; `info` has its identity

    @property
    def mapped(self) -> bool:
        """Whether the ids are in a file, rather than in memory."""
        return isinstance(self.ids, MappedIds)

    @property
    def held_out_chars(self) -> int:
        """The length of the held-out text of its own; 0 without one."""
        return len(self.held_out.ids) if self.held_out else 0

    def holding_out(self, other: Corpus) -> Corpus:
        """Return this text with another as its held-out text."""
        return replace(self, info=replace(self.info, held_out=other.info), held_out=other)

    def split(self, val_fraction: float) -> tuple[TextIds, TextIds]:
        """Return the training text and the held-out text.

        The held-out text is one of its own if there is one, without the characters that this text does not have. Otherwise it
        is the tail of this one, and both are views that do not overlap: see `train_chars`.
        """
        if self.held_out is not None:
            return self.ids, self.vocabulary.translate(self.held_out.ids, self.held_out.vocabulary)[0]
        cut = train_chars(len(self.ids), val_fraction)
        return self.ids[:cut], self.ids[cut:]

    def first(self, chars: int) -> Corpus:
        """Return the beginning of this text, with the vocabulary of that part and the identity of the whole."""
        ids = np.asarray(self.ids[:chars])
        used = np.unique(ids)
        vocabulary = Vocabulary("".join(self.vocabulary.characters[int(k)] for k in used))
        return replace(self, ids=vocabulary.translate(ids, self.vocabulary)[0], vocabulary=vocabulary)

    def begins_with(self, other: TextInfo) -> bool:
        """Return whether this text starts with the whole of another, as after appending to a file."""
        digest, points = hashlib.sha256(), np.array([ord(c) for c in self.vocabulary.characters], "<u4")
        for _, block in blocks(self.ids[: other.chars]):
            digest.update(points[block].tobytes().decode("utf-32-le").encode())
        return digest.hexdigest() == other.sha256

    def numbered_as(self, vocabulary: Vocabulary) -> Corpus:
        """Return this text with the ids of another vocabulary, which must have all its characters."""
        if vocabulary == self.vocabulary:
            return self
        return replace(self, ids=vocabulary.translate(self.ids, self.vocabulary)[0], vocabulary=vocabulary)

    def joined(self, other: Vocabulary) -> tuple[Corpus, str]:
        """Return this text with another vocabulary merged into its own, and a note on how many characters that knew."""
        both = Vocabulary("".join(sorted(set(other.characters) | set(self.vocabulary.characters))))
        new = len(both) - len(other)
        known = len(self.vocabulary) - new
        note = f"it knows {known:,} of the text's {len(self.vocabulary):,} distinct characters" + (
            f", and the other {new:,} start untrained" if new else ""
        )
        return self.numbered_as(both), note


# -- read -------------------------------------------------------------------------------------------------------------


def read(
    sources: Sequence[str],
    options: TextOptions = DEFAULTS,
    cache: Path | None = None,
    on_read: OnRead | None = None,
    most_bytes: int | None = None,
) -> Corpus:
    """Read and decode texts, and join them in order into one.

    A BOM is removed, and CRLF and CR become LF. A BOM of UTF-16 or UTF-32 overrides an encoding of UTF-8. The bytes are
    read once, in blocks, and are never all in memory, except those of a .json file. Of a file that grows meanwhile, only
    the original length is read.

    Args:
        sources: the paths of the texts, or ``-``.
        options: how to read them.
        cache: the folder of caches. A long text in regular files is encoded once into a file there, and its ids are read
            from that file as they are needed. None: all ids are in memory.
        on_read: called with the number of bytes read since the last call, and in total, as far as that is known.
        most_bytes: refuse a long text that would be in memory and whose files are larger than this.

    Raises:
        CorpusError: a text can't be read or decoded, is binary, too short to learn from, or too long for the memory.
    """
    options = replace(options, encoding=_codec(options.encoding))
    size = total_bytes(sources)

    def encode(file: BinaryIO, start: int = 0) -> Encoded:
        return _encode(sources, options, file, start, lambda read: on_read(read, size or 0) if on_read else None)

    notes: tuple[str, ...] = ()
    if size is not None and size >= cache_files.LEAST_BYTES:
        remedy = "set `cache` to a folder with room for it, or give a shorter text"
        if cache is not None:
            try:
                entry = Entry(cache, sources, options, size)
                cached = entry.load() or entry.write(encode)
                return _corpus(sources, options, cached.ids, cached.vocabulary, cached)
            except OSError as error:
                why = f"no cache can be written in {cache} ({error.strerror or error})"
                notes = (f"the text is in memory, because {why}: set `cache` to another folder",)
                remedy = f"{why}, so {remedy}"
        if most_bytes is not None and size > most_bytes:
            raise CorpusError(
                f"{summary(sources, str)} ({size / 1e9:.2f} GB) does not fit into memory ({most_bytes / 1e9:.2f} GB are available): {remedy}"
            )
    file = io.BytesIO()
    made = encode(file)
    vocabulary, table = sort_characters(made.characters)
    ids = np.frombuffer(file.getbuffer(), table.dtype)
    for _, block in blocks(ids):  # in place
        block[:] = table[block]
    text = _corpus(sources, options, ids, vocabulary, made)
    return replace(text, notes=(*notes, *text.notes))


def _corpus(
    sources: Sequence[str], options: TextOptions, ids: TextIds, vocabulary: str, made: Encoded | CachedText
) -> Corpus:
    info = TextInfo(tuple(map(_lasting, sources)), chars=len(ids), sha256=made.sha256, **asdict(options))
    notes = _note_controls(ids, Vocabulary(vocabulary), options.encoding)
    return Corpus(ids, Vocabulary(vocabulary), info, (*made.notes, *notes))


def _encode(
    sources: Sequence[str], options: TextOptions, file: BinaryIO, start: int, on_bytes: files.OnBytes
) -> Encoded:
    """Decode texts and write the numbers of their characters into a file; see `read` for what it raises."""
    notes: list[str] = []
    with Numbering(file, start) as numbering:
        for source in sources:
            for name, pieces in files.read_texts(source, options.encoding, notes, on_bytes):
                try:
                    for piece in records.read(name, pieces, options, notes):
                        numbering.add(piece)
                except UnicodeEncodeError as error:
                    raise CorpusError(
                        f"{name} as {options.encoding.upper()} contains U+{ord(error.object[error.start]):04X}, half of a surrogate pair: "
                        f"try another `encoding`"
                    ) from error
        if numbering.chars < 2:
            what = "is empty" if numbering.chars == 0 else "has only one character"
            raise CorpusError(
                f"{' + '.join(sources)} {what}: give a text of at least 2 characters, or some thousands to learn from"
            )
        return numbering.finish(notes)


def _codec(encoding: str) -> str:
    """Return Python's name of an encoding, or raise CorpusError if it is not one of text."""
    try:
        b" ".decode(encoding, "ignore")  # LookupError for a codec that is not a text encoding, such as base64
        codecs.getincrementaldecoder(encoding)  # LookupError if the codec can't decode incrementally
        return codecs.lookup(encoding).name
    except (LookupError, ValueError) as error:
        raise CorpusError(f"`encoding` {encoding!r} is unknown: try utf-8, utf-16, cp1252 or latin-1") from error


def _note_controls(ids: TextIds, vocabulary: Vocabulary, codec: str) -> list[str]:
    """Return a note if a text in Latin-1 has control characters, which other encodings use for letters and quotation marks."""
    controls = [i for i, c in enumerate(vocabulary.characters) if "\x80" <= c <= "\x9f"]
    if not controls or codec != "iso8859-1":
        return []
    first = next(at + int(np.argmax(there)) for at, block in blocks(ids) if (there := np.isin(block, controls)).any())
    start = max(0, first - encodings.SAMPLE_BYTES // 2)
    sample = vocabulary.decode(ids[start : start + encodings.SAMPLE_BYTES])
    likely = encodings.guess(sample.encode("latin-1", "replace"))  # HTML entities and JSON escapes can be any character
    label, other = likely or ("Windows-1252", "cp1252")
    if other == "utf-8":  # there is a note already
        return []
    shown = describe_some([vocabulary.characters[i] for i in controls[:3]])
    return [
        f"the text has control characters ({shown}), so it is probably not Latin-1 but {label}: set `encoding` {other}"
    ]


def _lasting(source: str) -> str:
    """Return how a run records a source: its path, or for the built-in text its name, as its path can change."""
    return BUILT_IN if source == str(bundled_path("corpora", BUILT_IN + SUFFIX)) else source


def what_changed(then: TextInfo, vocabulary: Vocabulary, now: Corpus) -> str:
    """Describe how a text differs from the training text, as far as length, hash and characters reveal it."""
    known = set(vocabulary.characters)
    if now.info.chars > then.chars and now.begins_with(then):
        return f"{now.info.chars - then.chars:,} characters were appended"
    if now.info.chars != then.chars:
        return f"{then.chars:,} characters then, {now.info.chars:,} now"
    if new := [c for c in now.vocabulary.characters if c not in known]:
        return f"it now contains {describe_some(new)}"
    return f"it still has {then.chars:,} characters, but not the same ones"
