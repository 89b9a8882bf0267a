"""Texts: reads, decodes, fingerprints and splits them, and reports what is wrong with one."""

from __future__ import annotations

import codecs
import hashlib
import io
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from charlstm.errors import CorpusError
from charlstm.text.sources import BUILT_IN, STDIN, SUFFIX, bundled_path
from charlstm.text.vocabulary import Vocabulary

CHUNK_BYTES = 1 << 18
CODE_POINTS = 0x110000
BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # must precede UTF-16 LE, whose BOM is a prefix of this one
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF32_BE, "utf-32"),
)
LONGEST_BOM = 4


@dataclass(frozen=True)
class TextInfo:
    """Identity of a text: its sources, and the fingerprint of what was read."""

    sources: tuple[str, ...]  # arguments for `find`: absolute paths, "-", or the name of the built-in text
    encoding: str
    chars: int
    sha256: str  # of the text as UTF-8, after decoding and newline conversion


@dataclass(frozen=True)
class Corpus:
    """A text as ids, with its vocabulary and its identity."""

    ids: NDArray[np.unsignedinteger[Any]]  # (chars,), one byte per id if the vocabulary is small enough
    vocabulary: Vocabulary
    info: TextInfo

    def split(self, val_fraction: float) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the training text and the held-out tail, as views that do not overlap.

        The tail is empty if either part would have fewer than two characters.
        """
        cut = len(self.ids) - int(len(self.ids) * val_fraction)
        if len(self.ids) - cut < 2 or cut < 2:
            cut = len(self.ids)
        return self.ids[:cut], self.ids[cut:]

    def first(self, chars: int) -> Corpus:
        """Return the beginning of this text, with the vocabulary of that part and the identity of the whole."""
        ids = self.ids[:chars]
        used = np.unique(ids)
        vocabulary = Vocabulary("".join(self.vocabulary.characters[int(k)] for k in used))
        return Corpus(vocabulary.translate(ids, self.vocabulary)[0], vocabulary, self.info)

    def begins_with(self, other: TextInfo) -> bool:
        """Return whether this text starts with the whole of another, as after appending to a file."""
        digest, points = hashlib.sha256(), np.array([ord(c) for c in self.vocabulary.characters], "<u4")
        for start in range(0, other.chars, CHUNK_BYTES):
            part = points[self.ids[start : min(start + CHUNK_BYTES, other.chars)]]
            digest.update(part.tobytes().decode("utf-32-le").encode())
        return digest.hexdigest() == other.sha256

    def joined(self, other: Vocabulary) -> tuple[Corpus, str]:
        """Return this text with another vocabulary merged into its own, and a note on how many characters that knew."""
        both = Vocabulary("".join(sorted(set(other.characters) | set(self.vocabulary.characters))))
        ids, _ = both.translate(self.ids, self.vocabulary)
        new = len(both) - len(other)
        known = len(self.vocabulary) - new
        note = f"it knows {known:,} of the text's {len(self.vocabulary):,} distinct characters" + (
            f", and the other {new:,} start untrained" if new else ""
        )
        return Corpus(ids, both, self.info), note


# -- read -------------------------------------------------------------------------------------------------------------


def read(sources: Sequence[str], encoding: str = "utf-8") -> Corpus:
    """Read and decode texts, and join them in order into one.

    A BOM is removed, and CRLF and CR become LF. A BOM of UTF-16 or UTF-32 overrides an encoding of UTF-8. The bytes are
    read once, in blocks, and are never all in memory. Of a file that grows meanwhile, only the original length is read.

    Raises:
        CorpusError: a text can't be read or decoded, is binary, or is too short to learn from.
    """
    try:
        codec = codecs.lookup(encoding)
        b" ".decode(encoding, "ignore")  # LookupError for a codec that is not a text encoding, such as base64
        codecs.getincrementaldecoder(encoding)  # LookupError if the codec can't decode incrementally
    except (LookupError, ValueError) as error:
        raise CorpusError(f"`encoding` {encoding!r} is unknown: try utf-8, utf-16, cp1252 or latin-1") from error
    builder = _Builder()
    for source in sources:
        try:
            for piece in _pieces(source, codec.name):
                builder.add(piece)
        except UnicodeEncodeError as error:
            raise CorpusError(
                f"{source} as {codec.name.upper()} contains U+{ord(error.object[error.start]):04X}, half of a surrogate pair: "
                f"try another `encoding`"
            ) from error
    if builder.chars < 2:
        what = "is empty" if builder.chars == 0 else "has only one character"
        raise CorpusError(
            f"{' + '.join(sources)} {what}: give a text of at least 2 characters, or some thousands to learn from"
        )
    ids, vocabulary = builder.finish()
    info = TextInfo(tuple(map(_lasting, sources)), codec.name, builder.chars, builder.hash.hexdigest())
    return Corpus(ids, vocabulary, info)


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
        for start in range(0, len(ids), CHUNK_BYTES):
            part = ids[start : start + CHUNK_BYTES]
            part[:] = places[part]
        return ids, Vocabulary("".join(map(chr, order)))


def _pieces(source: str, encoding: str) -> Iterator[str]:
    """Yield the decoded text of a source in pieces, with LF line ends and without a BOM."""
    name = "standard input" if source == STDIN else source
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    offset, line, held, begins = 0, 1, b"", True
    try:
        with open_source(source) as file:
            left = _bytes_left(file)
            while True:
                block = file.read(min(left, CHUNK_BYTES if offset else max(CHUNK_BYTES, LONGEST_BOM)))
                block = block or file.read(len(held[:1]))  # a file that grew may be cut inside a character
                if offset == 0:
                    encoding = _bom_encoding(block) or encoding if encoding == "utf-8" else encoding
                    _refuse_binary(block, name, encoding)
                    decoder = codecs.getincrementaldecoder(encoding)()
                try:
                    piece = decoder.decode(block, final=not block)
                except UnicodeError as error:
                    raise _bad_bytes(error, held + block, offset - len(held), line, name, encoding) from error
                held = decoder.getstate()[0]  # bytes of a character that is split between blocks
                offset, left = offset + len(block), max(0, left - len(block))
                line += piece.count("\n")
                if text := newlines.decode(piece, final=not block):
                    yield text.removeprefix("\ufeff") if begins else text
                    begins = False
                if not block:
                    return
    except OSError as error:
        raise CorpusError(f"{name} can't be read: {error.strerror or error}") from error


def _bytes_left(file: BinaryIO) -> int:
    """Return how many bytes to read: the rest of a file at its present size, or no limit if it has no size."""
    status = os.fstat(file.fileno())
    if stat.S_ISREG(status.st_mode) and status.st_size:
        return max(0, status.st_size - file.tell())
    return sys.maxsize


def _bom_encoding(head: bytes) -> str | None:
    """Return the encoding whose BOM a text starts with, or None; UTF-8 is not among them."""
    return next((encoding for bom, encoding in BOMS if head.startswith(bom)), None)


def open_source(source: str) -> BinaryIO:
    """Open a file, or standard input for ``-``, in binary mode.

    Raises:
        CorpusError: standard input is closed.
        OSError: the file can't be opened.
    """
    if source != STDIN:
        return open(source, "rb")
    if sys.stdin is None or sys.stdin.closed:
        raise CorpusError("'-' was given but standard input is closed: pipe a text into it")
    return open(sys.stdin.fileno(), "rb", closefd=False)


def _refuse_binary(block: bytes, name: str, encoding: str) -> None:
    """Raise CorpusError for a program, image or archive, but not for a text in another encoding."""
    head = block[: 1 << 16]
    if encoding != "utf-8":
        return
    control = sum(head.count(bytes([b])) for b in range(32) if b not in b"\t\n\v\f\r\x1b")
    suspicious = head.count(0) > len(head) // 100 or control > len(head) // 20
    if suspicious and (not _decodes(head) or head.count(0) > len(head) // 4):
        raise CorpusError(f"{name} is a binary file, not a text: give a plain text file, or set `encoding`")


def _decodes(head: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True


def _bad_bytes(error: UnicodeError, data: bytes, start: int, line: int, name: str, encoding: str) -> CorpusError:
    """Return the error for bytes that are invalid in the encoding: byte, line, offset, and another encoding to try."""
    at = error.start if isinstance(error, UnicodeDecodeError) else 0
    line += data[:at].count(b"\n")
    byte = f"byte 0x{data[at]:02X}" if at < len(data) else "the end"
    other = "cp1252" if encoding != "cp1252" else "latin-1"
    return CorpusError(
        f"{name}, line {line}, offset {start + at}: {byte} is not valid {encoding.upper()}: try `encoding` {other}"
    )
