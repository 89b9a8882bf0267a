"""Opens the files of texts, decompresses and decodes them, and reports what is wrong with one."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import os
import stat
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import BinaryIO, Protocol

from charlstm.errors import CorpusError
from charlstm.text import encodings
from charlstm.text.sources import RECORDS, STDIN, TEXT_SUFFIXES, without_gz

CHUNK_BYTES = 1 << 18
BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # must precede UTF-16 LE, whose BOM is a prefix of this one
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF32_BE, "utf-32"),
)
LONGEST_BOM = 4
OnBytes = Callable[[int], None]
GZIP, ZIP = b"\x1f\x8b", b"PK\x03\x04"
FOREIGN = (
    (b"%PDF-", "a PDF: convert it with 'pdftotext'"),
    (b"{\\rtf", "an RTF document: save it as plain text"),
    (b"\xd0\xcf\x11\xe0", "an Office document: save it as plain text"),
    (b"SQLite format 3", "a database: export a .csv file from it"),
    (b"BZh", "compressed: expand it with 'bunzip2'"),
    (b"\xfd7zXZ", "compressed: expand it with 'unxz'"),
    (b"\x28\xb5\x2f\xfd", "compressed: expand it with 'unzstd'"),
    (b"7z\xbc\xaf", "an archive: expand it with '7z x'"),
)
"""First bytes of files that people take for texts, and what to do with such a file."""


class Readable(Protocol):
    """A file, or a member of an archive."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes; none at the end."""


# -- open -------------------------------------------------------------------------------------------------------------


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
    with contextlib.suppress(OSError, AttributeError):  # a file, or Windows
        os.set_blocking(sys.stdin.fileno(), True)  # else what is not there yet would be taken for the end
    return open(sys.stdin.fileno(), "rb", closefd=False)


def read_texts(
    source: str, encoding: str, notes: list[str], on_bytes: OnBytes = lambda _: None
) -> Iterator[tuple[str, Iterator[str]]]:
    """Yield the name of a text and its decoded pieces, with LF line ends and without a BOM.

    A .gz file is decompressed, and a .zip archive yields each of its texts in the order of their names. Both are
    recognised by their first bytes.

    Args:
        source: a path, or ``-`` for standard input.
        encoding: a codec of Python; a BOM overrides UTF-8.
        notes: receives notes for the user on what looks wrong.
        on_bytes: called with the number of bytes of each block that is read.

    Raises:
        CorpusError: the text can't be opened, read, decompressed or decoded.
    """
    name = "standard input" if source == STDIN else source
    with _file_errors(name), open_source(source) as file:
        head = file.peek(len(ZIP)) if isinstance(file, io.BufferedReader) else b""
        if head.startswith(GZIP):
            with gzip.open(file) as stream:
                yield without_gz(name), _pieces(name, stream, sys.maxsize, encoding, notes, on_bytes)
        elif head.startswith(ZIP):
            yield from _members(name, file, encoding, notes, on_bytes)
        else:
            yield name, _pieces(name, file, _bytes_left(file), encoding, notes, on_bytes)


def _members(
    name: str, file: BinaryIO, encoding: str, notes: list[str], on_bytes: OnBytes
) -> Iterator[tuple[str, Iterator[str]]]:
    """Yield the texts in a .zip archive."""
    if not file.seekable():
        raise CorpusError(f"{name} is a .zip archive, which can't be read from a pipe: give its path")
    with zipfile.ZipFile(file) as archive:
        infos = [info for info in archive.infolist() if not info.is_dir() and not _is_hidden(info.filename)]
        texts = [i for i in infos if PurePosixPath(i.filename).suffix.lower() in (*TEXT_SUFFIXES, *RECORDS)]
        if not texts:
            raise CorpusError(
                f"{name} is a .zip archive or an Office document and contains no text (.txt, .md, .csv, .json, …): "
                f"save the text as a plain file"
            )
        for info in sorted(texts, key=lambda info: info.filename):
            inner = f"{name}/{info.filename}"
            if info.flag_bits & 1:
                raise CorpusError(f"{inner} is encrypted: expand the archive, and give the text")
            with archive.open(info) as stream:
                yield inner, _pieces(inner, stream, sys.maxsize, encoding, notes, on_bytes)


def _is_hidden(member: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(member).parts)


@contextlib.contextmanager
def _file_errors(name: str) -> Iterator[None]:
    """Turn what can go wrong with a file into a CorpusError."""
    try:
        yield
    except (EOFError, zlib.error, zipfile.BadZipFile, gzip.BadGzipFile, NotImplementedError) as error:
        raise CorpusError(f"{name} can't be decompressed ({error}): get a whole copy of it") from error
    except OSError as error:
        hint = f": give its files, as in '{name.rstrip('/')}/*.txt'" if isinstance(error, IsADirectoryError) else ""
        raise CorpusError(f"{name} can't be read: {error.strerror or error}{hint}") from error


def _bytes_left(file: BinaryIO) -> int:
    """Return how many bytes to read: the rest of a file at its present size, or no limit if it has no size."""
    status = os.fstat(file.fileno())
    if stat.S_ISREG(status.st_mode) and status.st_size:
        return max(0, status.st_size - file.tell())
    return sys.maxsize


# -- decode -----------------------------------------------------------------------------------------------------------


def _pieces(name: str, file: Readable, left: int, encoding: str, notes: list[str], on_bytes: OnBytes) -> Iterator[str]:
    """Yield the decoded text of at most `left` bytes of a file in pieces."""
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    offset, line, held, begins = 0, 1, b"", True
    with _file_errors(name):
        while True:
            block = file.read(min(left, CHUNK_BYTES if offset else max(CHUNK_BYTES, LONGEST_BOM)))
            block = block or file.read(len(held[:1]))  # a file that grew may be cut inside a character
            if offset == 0:
                encoding = _bom_encoding(block) or encoding if encoding == "utf-8" else encoding
                _refuse_foreign(block, name, encoding)
                notes += _note_utf8(block, name, encoding)
                decoder = codecs.getincrementaldecoder(encoding)()
            try:
                piece = decoder.decode(block, final=not block)
            except UnicodeError as error:
                raise _bad_bytes(error, held + block, offset - len(held), line, name, encoding) from error
            on_bytes(len(block))
            held = decoder.getstate()[0]  # bytes of a character that is split between blocks
            offset, left = offset + len(block), max(0, left - len(block))
            line += piece.count("\n")
            if text := newlines.decode(piece, final=not block):
                yield text.removeprefix("\ufeff") if begins else text
                begins = False
            if not block:
                return


def _bom_encoding(head: bytes) -> str | None:
    """Return the encoding whose BOM a text starts with, or None; UTF-8 is not among them."""
    return next((encoding for bom, encoding in BOMS if head.startswith(bom)), None)


def _refuse_foreign(block: bytes, name: str, encoding: str) -> None:
    """Raise CorpusError for a file that is no text, or is in an encoding that would be decoded to nonsense unnoticed."""
    head = block[: 1 << 16]
    for magic, what in FOREIGN:
        if head.startswith(magic):
            raise CorpusError(f"{name} is {what}")
    if head[257:262] == b"ustar":
        raise CorpusError(f"{name} is a tar archive: expand it with 'tar -xf', and give the texts")
    if encoding.startswith(("utf-16", "utf-32")) and 0 not in head and _is_utf8(head):
        raise CorpusError(f"{name} is UTF-8, not {encoding.upper()}: leave out `encoding`")
    if encoding != "utf-8":
        return
    control = sum(head.count(bytes([b])) for b in range(32) if b not in b"\t\n\v\f\r\x1b")
    suspicious = head.count(0) > len(head) // 100 or control > len(head) // 20
    if not suspicious:
        return
    is_utf8 = _is_utf8(head)
    label, codec = encodings.guess(head) or ("", "")
    if codec.startswith("utf-16") and (head.isascii() or not is_utf8):
        raise CorpusError(f"{name} is not UTF-8 but probably {label}: add `encoding` {codec}")
    if not is_utf8 or head.count(0) > len(head) // 4:
        raise CorpusError(f"{name} is a binary file, not a text: give a plain text file, or set `encoding`")


def _note_utf8(head: bytes, name: str, encoding: str) -> list[str]:
    """Return a note if a text in UTF-8 is read in another encoding, which gives two or three characters for one."""
    if encoding.startswith("utf") or head.isascii() or not _is_utf8(head):
        return []
    return [f"{name} is valid UTF-8, but is read as {encoding.upper()}: leave out `encoding` unless you know better"]


def _is_utf8(head: bytes) -> bool:
    """Return whether bytes are the beginning of a text in UTF-8."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True


def _bad_bytes(error: UnicodeError, data: bytes, start: int, line: int, name: str, encoding: str) -> CorpusError:
    """Return the error for bytes that are invalid in the encoding: line, offset, byte, and what to do."""
    at = error.start if isinstance(error, UnicodeDecodeError) else 0
    line += data[:at].count(b"\n")
    byte = f"byte 0x{data[at]:02X}" if at < len(data) else "the end"
    first = max(0, at - encodings.SAMPLE_BYTES // 2)
    first += (start + first) % 2  # UTF-16 has two bytes per character
    return CorpusError(
        f"{name}, line {line}, offset {start + at}: {byte} is not valid {encoding.upper()}: "
        f"{_advice(data[first:], encoding)}"
    )


def _advice(sample: bytes, encoding: str) -> str:
    """Return what to do about a text with bytes that are invalid in its encoding."""
    likely = encodings.guess(sample)
    if likely is not None and likely[1] == encoding:
        return f"the rest is {likely[0]}, so repair it with 'iconv -c -f {encoding} -t utf-8 FILE > NEW'"
    if likely is not None:
        known = "leave out `encoding`" if likely[1] == "utf-8" else f"add `encoding` {likely[1]}"
        return f"the text is probably {likely[0]}: {known}"
    return f"set `encoding`, as in `encoding` {'cp1252' if encoding != 'cp1252' else 'latin-1'}"
