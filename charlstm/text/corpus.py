"""Texts as ids: reads, numbers, fingerprints and splits them."""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from charlstm.errors import CorpusError
from charlstm.nn.config import COUNT, Range
from charlstm.settings import TextOptions
from charlstm.text import encodings, files, records
from charlstm.text.sources import BUILT_IN, SUFFIX, bundled_path
from charlstm.text.vocabulary import Vocabulary, describe_some

BLOCK_CHARS = 1 << 18
DEFAULTS = TextOptions()
CODE_POINTS = 0x110000


@dataclass(frozen=True)
class TextInfo:
    """Identity of a text: its sources, how they were read, and the fingerprint of what was read."""

    sources: tuple[str, ...]  # absolute paths, "-", or the name of the built-in text
    encoding: str
    chars: Annotated[int, Range(2, COUNT.high)]
    sha256: str  # of the text as UTF-8, after decoding and newline conversion
    field: str = TextOptions.field  # this and the rest are as in `TextOptions`; old files lack them
    separator: str = TextOptions.separator
    unescape: bool = TextOptions.unescape
    held_out: TextInfo | None = None  # of the held-out text, if that is not the end of this one

    @property
    def options(self) -> TextOptions:
        """How the text was read."""
        return TextOptions(self.encoding, self.field, self.separator, self.unescape)

    def same_as(self, other: TextInfo) -> bool:
        """Return whether both are the same characters, with the same held-out text, wherever their files are."""
        if self.held_out is None or other.held_out is None:
            held_out = self.held_out is other.held_out
        else:
            held_out = self.held_out.same_as(other.held_out)
        return held_out and (self.sha256, self.chars) == (other.sha256, other.chars)


def train_chars(chars: int, val_fraction: float) -> int:
    """Return how many characters of a text are trained on; the rest is held out.

    Nothing is held out if either part would have fewer than two characters.
    """
    cut = chars - int(chars * val_fraction)
    return chars if chars - cut < 2 or cut < 2 else cut


@dataclass(frozen=True)
class Corpus:
    """A text as ids, with its vocabulary and its identity."""

    ids: NDArray[np.unsignedinteger[Any]]  # (chars,), one byte per id if the vocabulary is small enough
    vocabulary: Vocabulary
    info: TextInfo
    notes: tuple[str, ...] = ()  # for the user, on what looks wrong with the text
    held_out: Corpus | None = None  # a held-out text of its own; `info` has its identity

    def split(self, val_fraction: float) -> tuple[NDArray[Any], NDArray[Any]]:
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
        ids = self.ids[:chars]
        used = np.unique(ids)
        vocabulary = Vocabulary("".join(self.vocabulary.characters[int(k)] for k in used))
        return replace(self, ids=vocabulary.translate(ids, self.vocabulary)[0], vocabulary=vocabulary)

    def begins_with(self, other: TextInfo) -> bool:
        """Return whether this text starts with the whole of another, as after appending to a file."""
        digest, points = hashlib.sha256(), np.array([ord(c) for c in self.vocabulary.characters], "<u4")
        for start in range(0, other.chars, BLOCK_CHARS):
            part = points[self.ids[start : min(start + BLOCK_CHARS, other.chars)]]
            digest.update(part.tobytes().decode("utf-32-le").encode())
        return digest.hexdigest() == other.sha256

    def joined(self, other: Vocabulary) -> tuple[Corpus, str]:
        """Return this text with another vocabulary merged into its own, and a note on how many characters that knew."""
        both = Vocabulary("".join(sorted(set(other.characters) | set(self.vocabulary.characters))))
        new = len(both) - len(other)
        known = len(self.vocabulary) - new
        note = f"it knows {known:,} of the text's {len(self.vocabulary):,} distinct characters" + (
            f", and the other {new:,} start untrained" if new else ""
        )
        return self.with_vocabulary(both), note

    def with_vocabulary(self, vocabulary: Vocabulary) -> Corpus:
        """Return this text with ids of another vocabulary, which must have all its characters."""
        if vocabulary == self.vocabulary:
            return self
        return replace(self, ids=vocabulary.translate(self.ids, self.vocabulary)[0], vocabulary=vocabulary)


# -- read -------------------------------------------------------------------------------------------------------------


def read(sources: Sequence[str], options: TextOptions = DEFAULTS, held_out: Sequence[str] = ()) -> Corpus:
    """Read and decode texts, and join them in order into one; `held_out` are those of a held-out text, if it has files of its own.

    A BOM is removed, and CRLF and CR become LF. A BOM of UTF-16 or UTF-32 overrides an encoding of UTF-8. The bytes are
    read once, in blocks, and are never all in memory, except those of a .json file. Of a file that grows meanwhile, only
    the original length is read.

    Raises:
        CorpusError: a text can't be read or decoded, is binary, or is too short to learn from.
    """
    if held_out:
        text, other = read(sources, options), read(held_out, options)
        return replace(text, info=replace(text.info, held_out=other.info), held_out=other)
    codec = _codec(options.encoding)
    builder = _Builder()
    notes: list[str] = []
    for source in sources:
        for name, pieces in files.read_texts(source, codec, notes):
            try:
                for piece in records.read(name, pieces, options, notes):
                    builder.add(piece)
            except UnicodeEncodeError as error:
                raise CorpusError(
                    f"{name} as {codec.upper()} contains U+{ord(error.object[error.start]):04X}, half of a surrogate pair: "
                    f"try another `encoding`"
                ) from error
    if builder.chars < 2:
        what = "is empty" if builder.chars == 0 else "has only one character"
        raise CorpusError(
            f"{' + '.join(sources)} {what}: give a text of at least 2 characters, or some thousands to learn from"
        )
    ids, vocabulary = builder.finish()
    how = asdict(options) | {"encoding": codec}
    info = TextInfo(tuple(map(_lasting, sources)), chars=builder.chars, sha256=builder.hash.hexdigest(), **how)
    return Corpus(ids, vocabulary, info, (*notes, *_note_controls(ids, vocabulary, codec)))


def _codec(encoding: str) -> str:
    """Return Python's name of an encoding, or raise CorpusError if it is not one of text."""
    try:
        b" ".decode(encoding, "ignore")  # LookupError for a codec that is not a text encoding, such as base64
        codecs.getincrementaldecoder(encoding)  # LookupError if the codec can't decode incrementally
        return codecs.lookup(encoding).name
    except (LookupError, ValueError) as error:
        raise CorpusError(f"`encoding` {encoding!r} is unknown: try utf-8, utf-16, cp1252 or latin-1") from error


def _note_controls(ids: NDArray[Any], vocabulary: Vocabulary, codec: str) -> list[str]:
    """Return a note if a text in Latin-1 has control characters, which other encodings use for letters and quotation marks."""
    controls = [i for i, c in enumerate(vocabulary.characters) if "\x80" <= c <= "\x9f"]
    if not controls or codec != "iso8859-1":
        return []
    start = max(0, int(np.argmax(np.isin(ids, controls))) - encodings.SAMPLE_BYTES // 2)
    likely = encodings.guess(vocabulary.decode(ids[start : start + encodings.SAMPLE_BYTES]).encode("latin-1"))
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


class _Builder:
    """Numbers characters in the order of their first appearance, and finally in the order of their code points."""

    def __init__(self) -> None:
        self.met: list[int] = []  # code points, in order of first appearance
        self.number = np.full(CODE_POINTS, -1, np.int32)  # code point -> index in `met`
        self.dtype: type[np.unsignedinteger[Any]] = np.uint8
        self.ids = bytearray()
        self.chars = 0
        self.hash = hashlib.sha256()

    def add(self, piece: str) -> None:
        """Append a piece of text."""
        if not piece:
            return
        points = np.frombuffer(piece.encode("utf-32-le"), "<u4")
        self.hash.update(piece.encode())
        self.chars += len(points)
        present = np.unique(points)
        for point in present[self.number[present] < 0]:
            self.number[point] = len(self.met)
            self.met.append(int(point))
        self._widen()
        self.ids += self.number[points].astype(self.dtype).tobytes()

    def _widen(self) -> None:
        """Switch to a wider dtype once the vocabulary has outgrown the current one."""
        for dtype in (np.uint8, np.uint16, np.uint32):
            if len(self.met) <= np.iinfo(dtype).max + 1:
                break
        if dtype is not self.dtype:
            self.ids = bytearray(np.frombuffer(self.ids, self.dtype).astype(dtype).tobytes())
            self.dtype = dtype

    def finish(self) -> tuple[NDArray[Any], Vocabulary]:
        """Return the ids in code point order, converted in place, and the vocabulary."""
        order = sorted(self.met)
        rank = {point: place for place, point in enumerate(order)}
        places = np.array([rank[point] for point in self.met], self.dtype)
        ids = np.frombuffer(self.ids, self.dtype)
        for start in range(0, len(ids), BLOCK_CHARS):
            part = ids[start : start + BLOCK_CHARS]
            part[:] = places[part]
        return ids, Vocabulary("".join(map(chr, order)))


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
