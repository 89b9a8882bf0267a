"""Texts: read and decode them or say what is wrong with them, give them a fingerprint, split them."""

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
from charlstm.finding import BUILT_IN, STDIN, SUFFIX, default_name, find, shipped
from charlstm.vocabulary import Vocabulary

__all__ = ["BUILT_IN", "STDIN", "SUFFIX", "Corpus", "TextInfo", "default_name", "find", "read", "shipped"]
"""Who reads a text finds it first, so both are had from here."""

CHUNK_BYTES = 1 << 18
CODE_POINTS = 0x110000
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins with the next one, and so stands before it
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF32_BE, "utf-32"),
)
LONGEST_MARK = 4


@dataclass(frozen=True)
class TextInfo:
    """What identifies a text: where it came from, and the fingerprint of what was read."""

    sources: tuple[str, ...]  # words for `find`: absolute paths, "-", or the name of the built-in text
    encoding: str
    chars: int
    sha256: str  # of the text as UTF-8, after decoding and line ends


@dataclass(frozen=True)
class Corpus:
    """A text as ids, its vocabulary and its identity."""

    ids: NDArray[np.unsignedinteger[Any]]  # (chars,), one byte each where the vocabulary allows it
    vocabulary: Vocabulary
    info: TextInfo

    def split(self, val_fraction: float) -> tuple[NDArray[Any], NDArray[Any]]:
        """The text to train on, and its tail to validate on: views that do not touch.

        The tail is empty where it would hold no pair of characters, or where too little would be left to train on.
        """
        cut = len(self.ids) - int(len(self.ids) * val_fraction)
        if len(self.ids) - cut < 2 or cut < 2:
            cut = len(self.ids)
        return self.ids[:cut], self.ids[cut:]

    def begins_with(self, other: TextInfo) -> bool:
        """Whether this text is that one with more behind it."""
        digest, points = hashlib.sha256(), np.array([ord(c) for c in self.vocabulary.characters], "<u4")
        for start in range(0, other.chars, CHUNK_BYTES):
            part = points[self.ids[start : min(start + CHUNK_BYTES, other.chars)]]
            digest.update(part.tobytes().decode("utf-32-le").encode())
        return digest.hexdigest() == other.sha256

    def joined(self, other: Vocabulary) -> tuple[Corpus, str]:
        """This text with the characters of another vocabulary beside its own; and, in words, how many of both there are."""
        both = Vocabulary("".join(sorted(set(other.characters) | set(self.vocabulary.characters))))
        ids, _ = both.translate(self.ids, self.vocabulary)
        new = len(both) - len(other)
        known = len(self.vocabulary) - new
        note = f"it knows {known:,} of the text's {len(self.vocabulary):,} characters" + (
            f", and rows were added for the {new:,} others" if new else ""
        )
        return Corpus(ids, both, self.info), note


# -- read -------------------------------------------------------------------------------------------------------------


def read(sources: Sequence[str], encoding: str = "utf-8") -> Corpus:
    """Read, decode and number the texts, in order, as one text.

    A byte-order mark is dropped, CRLF and CR become LF; the mark of UTF-16 or UTF-32 names the encoding by itself. The bytes are read
    once, in pieces, and never held whole; of a file that grows meanwhile, as far as it went in the beginning.

    Raises:
        CorpusError: a text can't be read or decoded, is binary, or is too short to learn from.
    """
    try:
        codec = codecs.lookup(encoding)
        b" ".decode(encoding, "ignore")  # LookupError for what is no text encoding, such as base64
        codecs.getincrementaldecoder(encoding)  # LookupError where there is none
    except (LookupError, ValueError) as error:
        raise CorpusError(
            f"--encoding {encoding!r} is unknown to Python: try utf-8, utf-16, cp1252 or latin-1"
        ) from error
    builder = _Builder()
    for source in sources:
        try:
            for piece in _pieces(source, codec.name):
                builder.add(piece)
        except UnicodeEncodeError as error:
            raise CorpusError(
                f"{source} as {codec.name.upper()} holds U+{ord(error.object[error.start]):04X}, which is half a character: "
                f"name another --encoding"
            ) from error
    if builder.chars < 2:
        what = "is empty" if builder.chars == 0 else "has one character only"
        raise CorpusError(
            f"{' + '.join(sources)} {what}: a text of at least 2 characters is needed, some thousands to learn from"
        )
    ids, vocabulary = builder.finish()
    info = TextInfo(tuple(map(_lasting, sources)), codec.name, builder.chars, builder.hash.hexdigest())
    return Corpus(ids, vocabulary, info)


def _lasting(source: str) -> str:
    """How a run remembers a text: by its path, but the built-in one by its name, because each install has it elsewhere."""
    return BUILT_IN if source == str(shipped("corpora", BUILT_IN + SUFFIX)) else source


class _Builder:
    """Numbers characters in the order they are met, and in the order of their code points at the end."""

    def __init__(self) -> None:
        self.met: list[int] = []  # code points, in the order they were met
        self.number = np.full(CODE_POINTS, -1, np.int32)  # code point -> its place in `met`
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
        """Move on to wider ids once the vocabulary has outgrown them."""
        for dtype in (np.uint8, np.uint16, np.uint32):
            if len(self.met) <= np.iinfo(dtype).max + 1:
                break
        if dtype is not self.dtype:
            self.ids = bytearray(np.frombuffer(self.ids, self.dtype).astype(dtype).tobytes())
            self.dtype = dtype

    def finish(self) -> tuple[NDArray[Any], Vocabulary]:
        """The ids by code point, in the memory they were gathered in."""
        order = sorted(self.met)
        rank = {point: place for place, point in enumerate(order)}
        places = np.array([rank[point] for point in self.met], self.dtype)
        ids = np.frombuffer(self.ids, self.dtype)
        for start in range(0, len(ids), CHUNK_BYTES):
            part = ids[start : start + CHUNK_BYTES]
            part[:] = places[part]
        return ids, Vocabulary("".join(map(chr, order)))


def _pieces(source: str, encoding: str) -> Iterator[str]:
    """The decoded text of a source, piece by piece, with LF line ends and no byte-order mark."""
    name = "standard input" if source == STDIN else source
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    offset, line, held, begins = 0, 1, b"", True
    try:
        with open_source(source) as file:
            left = _bytes_left(file)
            while True:
                block = file.read(min(left, CHUNK_BYTES if offset else max(CHUNK_BYTES, LONGEST_MARK)))
                block = block or file.read(len(held[:1]))  # what has grown may have been cut inside a character
                if offset == 0:
                    encoding = _marked(block) or encoding if encoding == "utf-8" else encoding
                    _refuse_binary(block, name, encoding)
                    decoder = codecs.getincrementaldecoder(encoding)()
                try:
                    piece = decoder.decode(block, final=not block)
                except UnicodeError as error:
                    raise _bad_bytes(error, held + block, offset - len(held), line, name, encoding) from error
                held = decoder.getstate()[0]  # bytes that a split character left over
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
    """How much of a file there is to read now; of what is no file, or does not know its size, as much as comes."""
    status = os.fstat(file.fileno())
    if stat.S_ISREG(status.st_mode) and status.st_size:
        return max(0, status.st_size - file.tell())
    return sys.maxsize


def _marked(head: bytes) -> str | None:
    """The encoding whose mark a text begins with, if it is one that can't be UTF-8."""
    return next((encoding for mark, encoding in MARKS if head.startswith(mark)), None)


def open_source(source: str) -> BinaryIO:
    """The bytes of a file, or of standard input for ``-``.

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
    """Tell a program, a picture or an archive from a text in another encoding."""
    head = block[: 1 << 16]
    if encoding != "utf-8":
        return
    control = sum(head.count(bytes([b])) for b in range(32) if b not in b"\t\n\v\f\r\x1b")
    suspicious = head.count(0) > len(head) // 100 or control > len(head) // 20
    if suspicious and (not _decodes(head) or head.count(0) > len(head) // 4):
        raise CorpusError(f"{name} is a binary file, not a text: give a plain text, or name its --encoding")


def _decodes(head: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True


def _bad_bytes(error: UnicodeError, data: bytes, start: int, line: int, name: str, encoding: str) -> CorpusError:
    """The error for bytes that are not in the encoding: byte, line, offset in the file, and what to type instead."""
    at = error.start if isinstance(error, UnicodeDecodeError) else 0
    line += data[:at].count(b"\n")
    byte = f"byte 0x{data[at]:02X}" if at < len(data) else "the end"
    other = "cp1252" if encoding != "cp1252" else "latin-1"
    return CorpusError(
        f"{name}, line {line}, offset {start + at}: {byte} is not {encoding.upper()}; if it is another encoding, name it: --encoding {other}"
    )
