"""Texts: found, read, decoded, or refused in one sentence."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from charlstm.errors import CorpusError
from charlstm.settings import TextOptions
from charlstm.text import corpus, files, ids
from charlstm.text.sources import default_name, find, find_again
from tests.conftest import SMALL, Result


def read(path: Path, **options: Any) -> tuple[str, corpus.Corpus]:
    found = corpus.read([str(path)], TextOptions(**options))
    return found.vocabulary.decode(found.ids), found


def write(folder: Path, data: bytes, name: str = "t.txt") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


# -- reading


@pytest.mark.parametrize(
    ("data", "encoding", "expected"),
    [
        (b"plain text\n", "utf-8", "plain text\n"),
        ("\ufeffmarked".encode(), "utf-8", "marked"),
        (b"a\r\nb\rc\n", "utf-8", "a\nb\nc\n"),
        ("häß€".encode("cp1252"), "cp1252", "häß€"),
        ("wide \U0001f600".encode("utf-16"), "utf-16", "wide \U0001f600"),
        ("wide \U0001f600".encode("utf-16"), "utf-8", "wide \U0001f600"),
        ("\ufeffbig end".encode("utf-16-be"), "utf-8", "big end"),
        ("\ufeffmarked\r\n".encode("utf-16-le"), "utf-16-le", "marked\n"),
        ("four each".encode("utf-32"), "utf-8", "four each"),
        ("\ufefffour each".encode("utf-32-be"), "utf-8", "four each"),
        (b"old\rMac\rlines\r", "utf-8", "old\nMac\nlines\n"),
        ("e\u0301a\u0328\u0301 is not \u00e9".encode(), "utf-8", "e\u0301a\u0328\u0301 is not \u00e9"),
        (
            "\U0001f469\u200d\U0001f469\u200d\U0001f467\ufe0f".encode(),
            "utf-8",
            "\U0001f469\u200d\U0001f469\u200d\U0001f467\ufe0f",
        ),
        (b"a\x01\x02\x7fb", "utf-8", "a\x01\x02\x7fb"),
        ("\u2028\u2029\x85".encode(), "utf-8", "\u2028\u2029\x85"),
        (b"nul \0 and \x1b[31m stay", "utf-8", "nul \0 and \x1b[31m stay"),
        ("e\u0301 \U0001f468\u200d\U0001f469".encode(), "utf-8", "e\u0301 \U0001f468\u200d\U0001f469"),
    ],
)
def test_text_is_decoded_and_line_ends_become_one(folder: Path, data: bytes, encoding: str, expected: str) -> None:
    text, found = read(write(folder, data), encoding=encoding)
    assert text == expected
    assert found.info.chars == len(expected)


def test_pieces_that_split_a_character_or_a_line_end_do_not_matter(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = "é漢\U0001f600x\n" * 50
    path = write(folder, expected.replace("\n", "\r\n").encode())
    whole = read(path)[1].info
    for size in (1, 2, 3, 5, 7):
        monkeypatch.setattr(files, "CHUNK_BYTES", size)
        text, found = read(path)
        assert text == expected
        assert found.info == whole


def test_the_vocabulary_is_in_the_order_of_code_points_and_the_same_every_time(folder: Path) -> None:
    path = write(folder, "zebra \U0001f600 apple é\n".encode())
    characters = read(path)[1].vocabulary.characters
    assert characters == "".join(sorted(set("zebra \U0001f600 apple é\n")))
    assert read(path)[1].vocabulary.characters == characters


def test_ids_take_one_byte_while_the_vocabulary_fits_and_two_when_it_does_not(folder: Path) -> None:
    assert read(write(folder, b"abc" * 100))[1].ids.dtype == np.uint8
    many = "".join(map(chr, range(0x4E00, 0x4E00 + 300)))
    text, found = read(write(folder, ("abc" + many * 2 + "abc").encode()))
    assert found.ids.dtype == np.uint16
    assert text == "abc" + many * 2 + "abc"


def test_several_texts_are_read_one_after_the_other(folder: Path) -> None:
    paths = [str(write(folder, data, name)) for data, name in ((b"one ", "a"), (b"two", "b"))]
    found = corpus.read(paths)
    assert found.vocabulary.decode(found.ids) == "one two"


def test_the_fingerprint_changes_with_the_text_and_not_with_its_encoding(folder: Path) -> None:
    first = read(write(folder, "häuser\n".encode()))[1].info
    second = read(write(folder, "häuser\r\n".encode("utf-16")), encoding="utf-16")[1].info
    assert first.sha256 == second.sha256
    assert read(write(folder, b"hauser\n"))[1].info.sha256 != first.sha256


def test_validation_is_one_tail_that_does_not_touch_the_rest(folder: Path) -> None:
    found = corpus.read([str(write(folder, bytes(range(32, 132))[:95] * 10))])
    train_ids, val_ids = found.split(0.1)
    assert len(val_ids) == len(found.ids) // 10
    np.testing.assert_array_equal(np.concatenate([train_ids, val_ids]), found.ids)
    assert np.shares_memory(train_ids, found.ids)


def test_a_text_too_short_to_hold_back_from_is_trained_on_whole(folder: Path) -> None:
    train_ids, val_ids = corpus.read([str(write(folder, b"abc"))]).split(0.1)
    assert len(train_ids) == 3
    assert len(val_ids) == 0


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", ["is empty"]),
        (b"\xef\xbb\xbf", ["is empty"]),
        (b"x", ["one character"]),
        (b"good line\nbad \xff byte", ["line 2", "offset 14", "0xFF", "`encoding` cp1252"]),
        (b"cut short \xe6\xbc", ["offset 10", "the rest is UTF-8", "iconv -c"]),
        (b"\x7fELF\x02\x01\x01" + b"\0\x03\xf0\x81" * 200, ["binary file"]),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)) * 4, ["binary file"]),
        ("text".encode("utf-16") + b"\0", ["UTF-16", "offset 10"]),
    ],
)
def test_what_is_wrong_with_a_text_is_said_with_what_to_type(folder: Path, data: bytes, words: list[str]) -> None:
    with pytest.raises(CorpusError) as caught:
        read(write(folder, data))
    for word in [*words, "t.txt"]:
        assert word in str(caught.value)


def test_the_offset_of_a_bad_byte_is_right_beyond_the_first_piece(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "CHUNK_BYTES", 16)
    with pytest.raises(CorpusError, match=r"line 6, offset 50: byte 0xFE"):
        read(write(folder, b"123456789\n" * 5 + b"\xfe"))


@pytest.mark.parametrize("encoding", ["klingon", "base64", "hex", "x\0y"])
def test_an_encoding_that_is_none_is_refused(folder: Path, encoding: str) -> None:
    with pytest.raises(CorpusError, match="encoding"):
        read(write(folder, b"text"), encoding=encoding)


def test_standard_input_is_read_for_an_explicit_dash(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    with (folder / "piped").open("wb+") as file:
        file.write(b"from a pipe")
        file.seek(0)
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(file))
        found = corpus.read(find(["-"]))
        assert found.vocabulary.decode(found.ids) == "from a pipe"


def test_what_a_pipe_does_not_have_yet_is_waited_for(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)  # as some programs leave it to those that they start
    os.write(writer, b"from ")

    def write_the_rest() -> None:
        time.sleep(0.1)
        os.write(writer, b"a pipe")
        os.close(writer)

    other = threading.Thread(target=write_the_rest)
    other.start()
    with os.fdopen(reader) as stream:
        monkeypatch.setattr("sys.stdin", stream)
        assert corpus.read(["-"]).info.chars == len("from a pipe")
    other.join()


# -- texts of any kind


def test_a_line_of_megabytes_and_a_text_without_a_line_end_are_read_whole(folder: Path) -> None:
    text, found = read(write(folder, b"abcdefghij" * 300_000))
    assert len(text) == found.info.chars == 3_000_000
    assert found.vocabulary.characters == "abcdefghij"


def test_65536_different_characters_have_an_id_each(folder: Path) -> None:
    characters = "".join(
        chr(point) for point in range(32, 0x20000) if not 0xD800 <= point <= 0xDFFF and chr(point) != "\x85"
    )
    expected = characters[:65_536]
    text, found = read(write(folder, expected.encode()))
    assert (text, len(found.vocabulary), found.ids.dtype) == (expected, 65_536, np.uint16)
    text, found = read(write(folder, (expected + characters[65_536]).encode()))
    assert (len(found.vocabulary), found.ids.dtype) == (65_537, np.uint32)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-be", "utf-32", "cp1252", "shift_jis", "gb18030"])
def test_every_encoding_gives_the_same_text_wherever_it_is_cut(
    folder: Path, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = {"cp1252": "naïve café – “yes”\n", "shift_jis": "猫が座った\n"}.get(
        encoding, "naïve 漢字 \U0001f600\n"
    ) * 20
    path = write(folder, expected.replace("\n", "\r\n").encode(encoding))
    for size in (1, 3, 64, 1 << 18):
        monkeypatch.setattr(files, "CHUNK_BYTES", size)
        assert read(path, encoding=encoding)[0] == expected


def test_half_a_character_is_refused_and_never_gets_into_a_vocabulary(folder: Path) -> None:
    with pytest.raises(CorpusError, match=r"U\+D800.*`encoding`"):
        read(write(folder, b"a \\ud800 b"), encoding="unicode_escape")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_named_pipe_is_read_to_its_end(folder: Path) -> None:
    path = folder / "pipe"
    os.mkfifo(path)
    expected = "through the pipe, é\n" * 20_000
    with ThreadPoolExecutor() as pool:
        writing = pool.submit(path.write_text, expected, encoding="utf-8")
        assert read(path)[0] == expected
        writing.result()


def test_of_a_file_that_grows_while_it_is_read_what_was_there_is_taken(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(folder, "grows and grows, é".encode()[:-1])  # cut inside a character, as by a writer's buffer
    add = corpus.Numbering.add

    def grow(builder: object, piece: str) -> None:
        with path.open("ab") as file:
            file.write("é"[-1:].encode()[1:] + b" and more of it" * 10)
        add(builder, piece)  # type: ignore[arg-type]

    monkeypatch.setattr(files, "CHUNK_BYTES", 4)
    monkeypatch.setattr(corpus.Numbering, "add", grow)
    assert read(path)[0] == "grows and grows, é"


def test_whether_a_text_only_grew_is_known_from_its_hash(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read(write(folder, "the cat, é".encode()))[1].info
    monkeypatch.setattr(ids, "BLOCK_CHARS", 3)
    assert read(write(folder, "the cat, é sat".encode()))[1].begins_with(before)
    assert not read(write(folder, "The cat, é sat".encode()))[1].begins_with(before)


# -- finding


def test_a_path_a_directory_and_a_pattern_are_found(folder: Path) -> None:
    for name in ("b.txt", "a.txt", "notes.md"):
        write(folder, b"text", name)
    assert find(["b.txt"]) == (str(folder / "b.txt"),)
    assert find([str(folder)]) == (str(folder / "a.txt"), str(folder / "b.txt"))
    assert find(["*.md"]) == (str(folder / "notes.md"),)


def test_a_text_that_is_named_twice_is_read_once(folder: Path) -> None:
    for name in ("a.txt", "b.txt"):
        write(folder, b"text", name)
    assert find(["b.txt", "*.txt", str(folder)]) == (str(folder / "b.txt"), str(folder / "a.txt"))


def test_a_bare_name_is_looked_for_in_corpora(folder: Path) -> None:
    (folder / "corpora").mkdir()
    path = write(folder / "corpora", b"text", "mine.txt")
    assert find(["mine"]) == find(["mine.txt"]) == (str(path),)
    assert Path(find(["fables"])[0]).name == "fables.txt"


def test_a_path_comes_before_a_name_in_corpora(folder: Path) -> None:
    (folder / "corpora").mkdir()
    write(folder / "corpora", b"there", "mine")
    here = write(folder, b"here", "mine")
    assert find(["mine"]) == (str(here),)


def test_no_name_means_the_built_in_text() -> None:
    assert Path(find([])[0]).name == "fables.txt"


def test_a_miss_names_what_was_looked_for_where_and_what_is_near(folder: Path) -> None:
    write(folder, b"text", "trumptweets.txt")
    with pytest.raises(CorpusError, match=r"'trumptweet\.txt'.*corpora.*did you mean trumptweets\.txt"):
        find(["trumptweet.txt"])
    with pytest.raises(CorpusError, match="did you mean fables"):
        find(["fable"])


@pytest.mark.parametrize("name", ["no/such/file", "empty-folder", "*.nothing", "a\0b", "x" * 5000])
def test_a_name_that_leads_nowhere_is_one_sentence(folder: Path, name: str) -> None:
    (folder / "empty-folder").mkdir()
    with pytest.raises(CorpusError):
        find([name])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("https://example.com/a/tweets.txt", r"does not download: type 'curl -Lo tweets\.txt https://"),
        ("notes", r"no \.txt files but 2 \.md files: type 'notes/\*\*/\*\.md' with the quotes"),
        ("checkpoints/tweets.npz", "is a run, not a text: continue it with 'charlstm resume tweets'"),
        ("missing.txt.gz", "neither a file of that name nor a text in corpora/"),
        ("~nosuchuser/x.txt", "can't be accessed"),
    ],
)
def test_what_was_probably_meant_is_said_with_what_to_type(folder: Path, name: str, words: str) -> None:
    (folder / "notes" / "more").mkdir(parents=True)
    for path in ("notes/a.md", "notes/more/b.md", "notes/picture.png"):
        write(folder, b"some text", path)
    with pytest.raises(CorpusError, match=words) as caught:
        find([name])
    assert "site-packages" not in str(caught.value)
    assert "/charlstm/" not in str(caught.value)
    assert len(find(["notes/**/*.md"])) == 2


def test_a_file_that_is_named_twice_is_noted(folder: Path) -> None:
    write(folder, b"text", "a.txt")
    write(folder, b"text", "b.txt")
    notes: list[str] = []
    assert len(find(["a.txt", "b.txt", "./*.txt"], notes)) == 2
    assert notes == [f"{folder / 'a.txt'} (and 1 more) is named twice but read once"]
    assert find(["a.txt", "b.txt"], notes)
    assert len(notes) == 1


def test_a_recorded_source_is_a_file_and_never_a_pattern(folder: Path) -> None:
    write(folder, b"text", "a.txt")
    assert find_again([str(folder / "a.txt")]) == (str(folder / "a.txt"),)
    assert Path(find_again(["fables"])[0]).name == "fables.txt"
    for source in ("/**/*", "/", str(folder), "/dev/zero", str(folder / "*.txt"), "x\0y", "gone.txt"):
        with pytest.raises(CorpusError, match="is missing"):
            find_again([source])


@pytest.mark.parametrize(
    ("source", "name"),
    [("/a/tweets.csv.gz", "tweets"), ("/a/x.tar.gz", "x.tar"), ("t.jsonl", "t"), ("v1.2.txt", "v1.2"), ("a.zip", "a")],
)
def test_the_name_of_a_run_has_no_suffix_of_the_text(source: str, name: str) -> None:
    assert default_name([source]) == name


def test_a_run_in_place_of_a_text_is_recognised(charlstm: Callable[..., Result], text: Path) -> None:
    assert charlstm("train", "verses.txt", "--name", "mine", "--steps", 1, *SMALL).status == 0
    told = charlstm("train", "mine")
    assert told.status == 2
    assert "charlstm resume mine" in told.sentence
    twice = charlstm("train", "verses.txt", "verses.txt", "--steps", 1, *SMALL)
    assert twice.status == 0
    assert "verses.txt is named twice but read once" in twice.err
