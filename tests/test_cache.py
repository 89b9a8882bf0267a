"""Long texts: encoded once, mapped, and never trusted without a look."""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from charlstm import api
from charlstm.errors import CorpusError
from charlstm.inference import evaluation, ngram, novelty
from charlstm.inference.novelty import Passages, TrainingText
from charlstm.settings import TextOptions
from charlstm.text import cache, corpus, files, ids, lines, numbering
from charlstm.text.corpus import Corpus
from charlstm.text.ids import MappedIds
from charlstm.text.lines import QUANTILES, line_quantiles
from charlstm.text.vocabulary import Vocabulary
from charlstm.training import memory
from tests.conftest import ROOT, SMALL, VERSES, Result, slow, sweep, wait_for

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="texts are in memory there")
Program = Callable[..., Result]
FOLDER = Path("caches")
RUSSIAN = "кот сидел на полу, и пёс лежал у двери;\n"


@pytest.fixture(autouse=True)
def _short_texts_are_long(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cache, "LEAST_BYTES", 1000)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))


def read(path: Path, folder: Path | None = FOLDER, **options: Any) -> Corpus:
    return corpus.read([str(path.absolute())], TextOptions(**options), folder)


def the_cache() -> Path:
    (path,) = FOLDER.iterdir()
    return path


def same(a: Corpus, b: Corpus) -> None:
    """What two texts are must be the same, whether they are in memory or not."""
    assert (a.vocabulary, a.info, a.notes) == (b.vocabulary, b.info, b.notes)
    assert a.ids.dtype == b.ids.dtype
    np.testing.assert_array_equal(np.asarray(a.ids), np.asarray(b.ids))


@pytest.fixture
def no_reading(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From the call on, no text can be read."""

    def fail(source: str) -> NoReturn:
        raise AssertionError(f"{source} is read")

    return lambda: monkeypatch.setattr(files, "open_source", fail)


# -- the same text


def test_a_run_is_the_same_with_and_without_and_resumes_without_reading(
    charlstm: Program, text: Path, no_reading: Callable[[], None]
) -> None:
    for name, folder in (("plain", "none"), ("cached", FOLDER)):
        assert (
            charlstm("train", text, "--name", name, "--steps", 12, "--eval-every", 5, "--cache", folder, *SMALL).status
            == 0
        )
    plain, cached = Path("checkpoints/plain.npz"), Path("checkpoints/cached.npz")
    assert plain.read_bytes() == cached.read_bytes()
    assert the_cache().stat().st_mode & 0o777 == 0o600
    assert charlstm("resume", "plain", "--steps", 20, "--cache", "none").status == 0
    no_reading()
    assert charlstm("resume", "cached", "--steps", 20, "--cache", FOLDER).status == 0
    assert plain.read_bytes() == cached.read_bytes()


@pytest.mark.parametrize(
    "kind",
    sweep(
        {
            "ascii": ("t.txt", VERSES.encode() * 9, {}),
            "russian": ("t.txt", (VERSES + RUSSIAN * 30).encode(), {}),
            "late": ("t.txt", (VERSES * 9 + "".join(map(chr, range(0x4E00, 0x4E00 + 300)))).encode(), {}),
            "emoji": ("t.txt", (VERSES * 9 + "\U0001f600" + RUSSIAN).encode(), {}),
            "newlines": ("t.txt", ("\ufeff" + VERSES * 9).replace("\n", "\r\n").encode(), {}),
            "utf-16": ("t.txt", (VERSES * 9).encode("utf-16"), {}),
            "cp1252": ("t.txt", ("na\xefve\n" + VERSES * 9).encode("cp1252"), {"encoding": "cp1252"}),
            "latin": ("t.txt", ("\x93yes\x94\n" + VERSES * 9).encode("latin-1"), {"encoding": "latin-1"}),
            "gz": ("t.txt.gz", gzip.compress(random.Random(1).randbytes(2000).hex().encode()), {}),
            "records": ("t.jsonl", b"".join(json.dumps({"a": v}).encode() + b"\n" for v in VERSES.split() * 9), {"field": "a"}),
            "as it stands": ("t.jsonl", b"".join(json.dumps({"a": v}).encode() + b"\n" for v in VERSES.split() * 9), {}),
        },
        "late",
        "latin",
    ),
)  # fmt: skip
def test_every_kind_of_text_is_the_same(
    folder: Path, kind: tuple[str, bytes, dict[str, Any]], no_reading: Callable[[], None], monkeypatch: Any
) -> None:
    name, data, options = kind
    monkeypatch.setattr(files, "CHUNK_BYTES", 256)
    monkeypatch.setattr(numbering, "BLOCK_CHARS", 100)
    monkeypatch.setattr(numbering, "PART_CHARS", 77)
    Path(name).write_bytes(data)
    plain, made = read(Path(name), None, **options), read(Path(name), **options)
    assert made.mapped
    no_reading()
    for found in (made, read(Path(name), **options)):
        same(found, plain)


def test_what_is_asked_of_ids_is_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "BLOCK_CHARS", 64)
    Path("t.txt").write_text(RUSSIAN + VERSES * 9 + RUSSIAN)
    plain, found = read(Path("t.txt"), None), read(Path("t.txt"))
    assert isinstance(found.ids, MappedIds)
    places = np.array([[0, 5], [len(plain.ids) - 1, 7]])
    np.testing.assert_array_equal(found.ids[places], plain.ids[places])
    V = len(plain.vocabulary)
    for start, end in ((0, None), (0, 700), (700, None), (40, 50), (-9, None), (5, 5)):
        part = found.ids[start:end]
        np.testing.assert_array_equal(np.asarray(part), plain.ids[start:end])
        np.testing.assert_array_equal(part.count(V), np.bincount(plain.ids[start:end], minlength=V))
    more = Vocabulary("".join(sorted({*plain.vocabulary.characters, *"XYZ€"})))
    same(found.numbered_as(more), plain.numbered_as(more))
    assert isinstance(found.numbered_as(more).ids, MappedIds)
    same(found.first(60), plain.first(60))
    with_newline = Vocabulary("\n" + "".join(sorted(set(plain.vocabulary.characters) - {"\n"})))
    Path("one.txt").write_text("a line without an end " * 99)
    line = read(Path("one.txt")).numbered_as(with_newline)
    assert line_quantiles(line.ids, line.vocabulary) == ()
    (a, b), (c, d) = found.split(0.2), plain.split(0.2)
    assert evaluation.unigram_nats(a, b, V) == evaluation.unigram_nats(c, d, V)
    assert ngram.best(a, b, V) == ngram.best(c, d, V)
    assert line_quantiles(a, plain.vocabulary) == line_quantiles(c, plain.vocabulary)
    assert found.begins_with(plain.info)


def test_the_lengths_of_lines_are_those_of_all_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "BLOCK_CHARS", 50)
    monkeypatch.setattr(lines, "LONG_LINE", 100)
    rng = random.Random(3)
    for count in (1, 2, 64, 65, 200):
        lengths = [rng.choice([0, 1, 7, 99, 100, 120, 260]) for _ in range(count)]
        words = "".join("a" * n + "\n" for n in lengths) + "a"
        vocabulary = Vocabulary("\na")
        expected = np.sort(lengths)[np.arange(QUANTILES + 1) * (count - 1) // QUANTILES]
        assert line_quantiles(vocabulary.encode(words), vocabulary) == tuple(expected.tolist())


def test_the_lengths_of_lines_of_a_very_long_text_are_those_of_some(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    text = "".join("x" * int(n) + "\n" for n in rng.integers(1, 100, 20_000))
    vocabulary = Vocabulary("\nx")
    expected = np.array(line_quantiles(vocabulary.encode(text), vocabulary))
    monkeypatch.setattr(ids, "BLOCK_CHARS", 1 << 12)
    monkeypatch.setattr(lines, "MOST_CHARS", 1 << 17)
    found = np.array(line_quantiles(vocabulary.encode(text), vocabulary))
    assert 0 < np.abs(found - expected).max() <= 5


@pytest.mark.parametrize(
    "more", sweep({"one byte": "", "two bytes": "".join(map(chr, range(0x4E00, 0x4F00)))}, "two bytes")
)
@pytest.mark.parametrize("chars", sweep([3, 9, 16, 20, 30], 9, 30))
def test_copies_are_found_in_a_mapped_text(
    folder: Path, more: str, chars: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(novelty, "BLOCK", 16)
    monkeypatch.setattr(novelty, "STRETCH_CHARS", 90)
    Path("t.txt").write_text(more + VERSES * 7 + "abc" * 90, encoding="utf-8")
    plain, found = (
        TrainingText(t.split(0.1)[0], t.vocabulary) for t in (read(Path("t.txt"), None), read(Path("t.txt")))
    )
    assert isinstance(found.ids, MappedIds)
    words = plain.decode(0, len(plain.ids))
    rng = random.Random(chars)
    samples = ["", "zebra", "abc" * 60, words[-chars:], words[:chars], VERSES]
    for _ in range(20):
        cuts = [(rng.randrange(len(words)), rng.randrange(3, 45)) for _ in range(3)]
        samples.append("€".join(words[at : at + length] for at, length in cuts))
    assert found.compare(samples) == plain.compare(samples)
    indexed, searched = Passages(plain, chars), Passages(found, chars)
    for sample in samples:
        assert searched.occur_in(sample) == indexed.occur_in(sample)
    for line in ("the ca", "the cat", "in the gard", "a", "xyz", "@ca", "abcabcab", words[:9], words[:-3]):
        assert searched.cut_off(line) == indexed.cut_off(line), line


def test_eval_keeps_a_cache_where_it_is_told(charlstm: Program, text: Path) -> None:
    assert charlstm("train", text, "--steps", 2, "--cache", "none", *SMALL).status == 0
    for folder in ("none", "caches"):
        assert charlstm("eval", "verses", "--cache", folder).status == 0
        assert not Path("xdg").exists()
    assert the_cache().is_file()


def test_novelty_and_eval_work_on_a_cached_text(charlstm: Program, text: Path, no_reading: Callable[[], None]) -> None:
    assert charlstm("train", text, "--steps", 3, *SMALL).status == 0
    no_reading()  # it is in the user's folder
    told = charlstm("sample", "verses", "--novelty", "--no-copy", 30, "--seed", 1, "--length", 60)
    assert told.status == 0
    assert "novelty: none of its" in told.err
    assert charlstm("eval", "verses", text, "--limit", 50, "--show").status == 0
    assert charlstm("eval", "verses", text).status == 0
    assert json.loads(charlstm("info", "verses", "--json").out)["text_chars"] == len(VERSES) * 20


def test_a_model_with_more_characters_trains_on_a_mapped_text(charlstm: Program, text: Path) -> None:
    Path("more.txt").write_text("ABC {}~|\n" * 99 + VERSES, encoding="utf-8")
    assert charlstm("train", "more.txt", "--steps", 2, "--cache", "none", *SMALL).status == 0
    for name, folder in (("plain", "none"), ("cached", FOLDER)):
        for steps in (4, 8):
            more = (
                "--init-from",
                "more",
                "--name",
                name,
                "--if-exists",
                "resume",
                "--cache",
                folder,
                "--batch",
                4,
                "--seq",
                10,
            )
            assert charlstm("train", text, "--steps", steps, "--preview-every", 0, *more).status == 0
    assert Path("checkpoints/plain.npz").read_bytes() == Path("checkpoints/cached.npz").read_bytes()


# -- when there is one


def test_short_texts_pipes_and_none_leave_nothing_behind(
    folder: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not read(text, None).mapped
    with text.open("rb") as file:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(file))
        assert not corpus.read(["-"], TextOptions(), FOLDER).mapped
    monkeypatch.setattr(cache, "LEAST_BYTES", 10**6)
    assert not read(text).mapped
    assert not FOLDER.exists()


def test_the_folder_is_the_one_given_or_the_user_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache.folder_of("auto") == tmp_path / "xdg" / "charlstm"
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    monkeypatch.setenv("HOME", "/home/me")
    assert cache.folder_of("auto") == Path("/home/me/.cache/charlstm")
    assert cache.folder_of("~/here") == Path("/home/me/here")
    assert cache.folder_of("none") is None
    monkeypatch.setenv("CHARLSTM_CACHE", "/scratch")
    assert cache.folder_of("auto") == Path("/scratch")
    monkeypatch.setenv("CHARLSTM_CACHE", "none")
    assert cache.folder_of("auto") is None


def test_a_text_that_fits_nowhere_is_refused(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CorpusError, match=r"does not fit into memory .*: set `cache` to a folder"):
        corpus.read([str(text)], most_bytes=1000)
    assert corpus.read([str(text)], cache=FOLDER, most_bytes=1000).mapped


def test_the_memory_plan_does_not_count_a_mapped_text(text: Path) -> None:
    started = [next(api.train(text, name=name, steps=1, hidden=8, cache=name)) for name in ("none", "mapped")]
    assert started[0].memory_bytes - started[1].memory_bytes == len(VERSES) * 20


def test_a_bar_shows_what_is_read_from_the_second_second_on(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from charlstm.cli import reading

    monkeypatch.setenv("TERM", "xterm")
    now = 0.0
    monkeypatch.setattr(reading.time, "monotonic", lambda: now)
    with reading.reading_bar() as on_read:
        assert on_read is None  # no terminal
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with reading.reading_bar(shown=False) as on_read:
        assert on_read is None
    with reading.reading_bar() as on_read:
        assert on_read is not None
        on_read(10**6, 4 * 10**6)
        assert capsys.readouterr().err == ""
        now = 1.5
        on_read(10**6, 4 * 10**6)
        assert "reading:  50%" in capsys.readouterr().err


# -- not trusted


def damage(path: Path, what: str) -> None:
    data = bytearray(path.read_bytes())
    if what == "another version":
        data[13:14] = b"2"
    elif what == "damaged header":
        data[-20] ^= 1
    elif what == "damaged preamble":
        data[17] ^= 1
    elif what == "holes":
        data[cache.START : cache.START + 500] = bytes(500)
    elif what == "empty":
        data.clear()
    elif what == "no cache":
        data = bytearray(b"something else, not a cache at all\n" * 999)
    elif what.startswith("cut at "):
        del data[int(what.removeprefix("cut at ")) :]
    else:
        data[cache.START : cache.START + 1] = b""
    path.write_bytes(data)


CUTS = [f"cut at {n}" for n in (1, 15, 16, 23, 24, 55, 56, 57, 4095, 4096, 4097, 5000, 8295, 8296, 8297, 8400, -1, -2)]


@pytest.mark.parametrize(
    "what",
    sweep(
        ["another version", "damaged header", "damaged preamble", "holes", "empty", "no cache", "shifted", *CUTS],
        "holes", "cut at 5000",
    ),
)  # fmt: skip
def test_a_damaged_cache_is_made_again(text: Path, what: str) -> None:
    plain = read(text, None)
    read(text)
    whole = the_cache().read_bytes()
    damage(the_cache(), what)
    assert the_cache().read_bytes() != whole
    same(read(text), plain)
    assert the_cache().read_bytes() == whole


def test_a_cache_is_stale_once_a_file_has_another_size_time_or_inode(text: Path) -> None:
    read(text)
    status = text.stat()
    os.utime(text, ns=(status.st_atime_ns, status.st_mtime_ns))
    entry = cache.Entry(FOLDER, [str(text)], TextOptions(), 1)
    assert entry.load() is not None
    other = VERSES.upper() * 20
    text.write_text(other)
    assert cache.Entry(FOLDER, [str(text)], TextOptions(), 1).load() is None
    found = read(text)
    assert found.vocabulary.decode(found.ids) == other
    text.rename("aside")
    Path("aside").unlink()
    text.write_text(other)
    os.utime(text, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert cache.Entry(FOLDER, [str(text)], TextOptions(), 1).load() is None


def test_a_cache_of_another_text_or_encoding_is_not_used(folder: Path) -> None:
    Path("a.txt").write_text(VERSES * 9)
    Path("b.txt").write_text(VERSES.upper() * 9)
    read(Path("a.txt"))
    name = the_cache()
    content = name.read_bytes()
    read(Path("b.txt"))
    (other,) = set(FOLDER.iterdir()) - {name}
    other.write_bytes(content)
    assert read(Path("b.txt")).vocabulary.characters.isupper()
    assert read(Path("a.txt"), encoding="latin-1").info.encoding == "iso8859-1"
    assert len(list(FOLDER.iterdir())) == 3


def test_a_text_that_changes_while_it_is_read_is_not_taken_for_unchanged(
    text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = corpus.Numbering.add

    def grow(self: corpus.Numbering, piece: str) -> None:
        with text.open("a") as file:
            file.write("more\n")
        add(self, piece)

    with monkeypatch.context() as patched:
        patched.setattr(corpus.Numbering, "add", grow)
        assert len(read(text).ids) == len(VERSES) * 20
    found = read(text)
    assert found.vocabulary.decode(found.ids).endswith("more\n")
    assert len(found.ids) == text.stat().st_size


def test_a_full_disk_is_done_without(charlstm: Program, text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: corpus.Numbering, numbers: np.ndarray[Any, Any]) -> None:
        if not isinstance(self.file, io.BytesIO):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, numbers)

    write = corpus.Numbering._write
    monkeypatch.setattr(corpus.Numbering, "_write", full)
    told = charlstm("train", text, "--steps", 1, "--cache", FOLDER, *SMALL)
    assert told.status == 0
    assert "the text is in memory, because no cache can be written in" in told.err
    assert "(No space left on device): set --cache to another folder" in told.err
    assert not list(FOLDER.iterdir())
    monkeypatch.setattr(memory, "available_bytes", lambda: None)
    monkeypatch.setattr("charlstm.launch.available_bytes", lambda: 1000)
    told = charlstm("train", text, "--name", "b", "--steps", 1, "--cache", FOLDER, *SMALL)
    assert told.status == 2
    assert "does not fit into memory" in told.sentence


@pytest.mark.parametrize("what", sweep(["a file", "read-only", "no room"], "no room"))
def test_a_folder_that_can_t_be_used_is_done_without(text: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if what == "a file":
        FOLDER.write_text("")
    elif what == "read-only":
        monkeypatch.setattr(
            os, "open", lambda *_: (_ for _ in ()).throw(PermissionError(errno.EACCES, "Permission denied"))
        )
    else:
        monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 500}))
    found = read(text)
    assert not found.mapped
    assert len(found.ids) == len(VERSES) * 20
    assert "no cache can be written" in found.notes[0]


def test_a_bad_text_leaves_no_cache_and_a_killed_writer_is_in_nobody_s_way(text: Path) -> None:
    text.write_bytes(VERSES.encode() * 20 + b"\xff")
    with pytest.raises(CorpusError, match="0xFF"):
        read(text)
    assert not list(FOLDER.iterdir())
    text.write_text(VERSES * 20)
    left = cache.Entry(FOLDER, [str(text)], TextOptions(), 1).path.with_suffix(".tmp")
    left.write_bytes(b"from a process that was killed" * 9999)
    assert read(text).mapped
    assert the_cache().suffix == ".ids"


# -- at once

NO_LOCKS = """
import fcntl
def flock(*_):
    raise OSError(38, "Function not implemented")
fcntl.flock = flock
"""
SHORT = "import sys; from charlstm.text import cache; cache.LEAST_BYTES = 1000; from charlstm.cli.app import main; sys.exit(main(sys.argv[1:]))"


@slow
@pytest.mark.parametrize("locks", [True, False])
def test_several_runs_at_once_are_each_right(text: Path, locks: bool) -> None:
    text.write_text(VERSES * 5000)
    code = SHORT if locks else NO_LOCKS + SHORT
    words = ["--steps", "3", "--cache", str(FOLDER), "--display", "none", "--init-from", "none", *SMALL]
    jobs = [
        subprocess.Popen([sys.executable, "-c", code, "train", str(text), "--name", f"r{k}", *words], env={**os.environ, "PYTHONPATH": str(ROOT)})
        for k in range(4)
    ]  # fmt: skip
    assert [job.wait() for job in jobs] == [0] * 4
    assert the_cache().suffix == ".ids"
    made = {Path(f"checkpoints/r{k}.npz").read_bytes() for k in range(4)}
    assert len(made) == 1


@slow
def test_one_that_waits_for_another_takes_over_when_that_is_killed(text: Path) -> None:
    stuck = (
        "import time; from charlstm.text import numbering; numbering.Numbering.finish = lambda *_: time.sleep(600); "
        + SHORT
    )
    words = ["train", str(text), "--steps", "1", "--cache", str(FOLDER), "--display", "none", *SMALL]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    first = subprocess.Popen([sys.executable, "-c", stuck, *words, "--name", "a"], env=environment)
    wait_for(lambda: FOLDER.exists() and any(path.suffix == ".tmp" for path in FOLDER.iterdir()))
    second = subprocess.Popen([sys.executable, "-c", SHORT, *words, "--name", "b"], env=environment)
    time.sleep(2)
    assert second.poll() is None
    first.kill()
    first.wait()
    assert second.wait() == 0
    assert the_cache().suffix == ".ids"
