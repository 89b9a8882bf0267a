"""The encoding of a text is guessed from its bytes, and the message names it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from charlstm.errors import CorpusError
from charlstm.settings import TextOptions
from charlstm.text import corpus
from charlstm.text.encodings import guess
from tests.conftest import SMALL, Result

TEXTS = {
    "ja": "日本語の文章を書くときは、漢字とひらがなを混ぜて使います。\n吾輩は猫である。名前はまだ無い。\n",
    "ko": "나는 학교에 갔다. 오늘은 날씨가 매우 좋았고 친구들과 함께 이야기를 했다.\n",
    "zh": "我们今天去学校的时候，看见了很多人在路上。这是一个很好的问题，但是没有人知道答案。\n",
    "zh-hant": "我們今天去學校的時候，看見了很多人在路上。這是一個很好的問題，但是沒有人知道答案。\n",
    "ru": "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему.\n",
    "fr": "L’été dernier, j’ai mangé à la plage où le garçon était déjà. Ça va être très bien.\n",
    "de": "Die Bären können über die Straße gehen, wenn es schön grün ist.\n",
    "en": "It’s a “quoted” sentence — and that’s all. Plain English otherwise.\n",
    "pl": "Zażółć gęślą jaźń. Nie wiem, co się stało, ale myślę że będzie źle i już późno.\n",
}
PAIRS = [
    ("ja", "shift_jis"), ("ja", "euc_jp"), ("ja", "utf-16-le"), ("ja", "utf-16-be"), ("ko", "euc_kr"), ("ko", "utf-16-le"),
    ("zh", "gb18030"), ("zh", "utf-16-le"), ("zh-hant", "big5"), ("zh-hant", "gb18030"), ("ru", "cp1251"), ("ru", "koi8_r"),
    ("ru", "cp866"), ("ru", "utf-16-be"), ("fr", "cp1252"), ("fr", "mac_roman"), ("de", "cp1252"), ("en", "cp1252"),
    ("en", "utf-16-le"), ("en", "utf-16-be"), ("pl", "cp1250"), ("fr", "utf-8"), ("ja", "utf-8"),
]  # fmt: skip


@pytest.mark.parametrize(("language", "encoding"), PAIRS)
@pytest.mark.parametrize("times", [1, 40])
def test_the_encoding_of_an_ordinary_text_is_guessed(language: str, encoding: str, times: int) -> None:
    found = guess((TEXTS[language] * times).encode(encoding))
    assert found is not None
    assert found[1] == encoding


@pytest.mark.parametrize(("language", "encoding"), [p for p in PAIRS if not p[1].startswith("utf-16")])
def test_a_sample_may_begin_and_end_inside_a_character(language: str, encoding: str) -> None:
    data = (TEXTS[language] * 40).encode(encoding)
    for start in range(4):
        found = guess(data[start : len(data) - 3 + start])
        assert found is not None
        assert found[1] == encoding


def test_noise_has_no_encoding() -> None:
    assert guess(bytes(range(256)) * 8) is None


@pytest.mark.parametrize(("language", "encoding"), [p for p in PAIRS if p[1] != "utf-8"])
def test_a_text_in_another_encoding_is_refused_with_its_name(
    charlstm: Callable[..., Result], folder: Path, language: str, encoding: str
) -> None:
    (folder / "t.txt").write_bytes(("A title\n" + TEXTS[language] * 20).encode(encoding))
    told = charlstm("train", "t.txt", *SMALL)
    assert told.status == 2
    assert told.sentence.endswith(f": add --encoding {encoding}")
    assert charlstm("train", "t.txt", *SMALL, "--encoding", encoding, "--steps", 1).status == 0


def read(data: bytes, encoding: str, *, unescape: bool = False) -> corpus.Corpus:
    path = Path("t.txt")
    path.write_bytes(data)
    return corpus.read([str(path.absolute())], TextOptions(encoding, unescape=unescape))


@pytest.mark.parametrize("data", [TEXTS["fr"].encode() * 9, b"plain ASCII, an even number of bytes" * 9])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
def test_utf8_read_as_utf16_is_refused(folder: Path, data: bytes, encoding: str) -> None:
    with pytest.raises(CorpusError, match=r"t\.txt is UTF-8, not UTF-.*leave out `encoding`"):
        read(data, encoding)


def test_a_wrong_encoding_that_fails_names_the_right_one(folder: Path) -> None:
    with pytest.raises(CorpusError, match="probably KOI8-R: add `encoding` koi8_r"):
        read(TEXTS["ru"].encode("koi8_r") * 9, "utf-16")
    with pytest.raises(CorpusError, match="probably Shift-JIS"):
        read(TEXTS["ja"].encode("shift_jis") * 9, "cp1252")
    with pytest.raises(CorpusError, match="probably UTF-8: leave out `encoding`"):
        read(TEXTS["ja"].encode() * 9, "shift_jis")


def test_a_damaged_utf8_text_is_to_be_repaired(folder: Path) -> None:
    with pytest.raises(CorpusError, match=r"line 41, .*byte 0xFF.*the rest is UTF-8.*iconv -c"):
        read(TEXTS["ja"].encode() * 20 + b"\xff" + TEXTS["ja"].encode() * 20, "utf-8")


def test_a_note_says_that_latin_1_should_have_been_something_else(folder: Path) -> None:
    (note,) = read(TEXTS["en"].encode("cp1252") * 9, "latin-1").notes
    assert "U+0092" in note
    assert note.endswith("Windows-1252: set `encoding` cp1252")
    (note,) = read(TEXTS["ja"].encode("shift_jis") * 9, "latin-1").notes
    assert note.endswith("set `encoding` shift_jis")
    (note,) = read(TEXTS["fr"].encode() * 9, "latin-1").notes
    assert "valid UTF-8" in note
    (note,) = read(b"it\x92s nice &mdash; and so on.\n" * 60, "latin-1", unescape=True).notes
    assert note.endswith("set `encoding` cp1252")
    assert not read("naïve café\n".encode("latin-1"), "latin-1").notes
    assert not read(TEXTS["fr"].encode("cp1252"), "cp1252").notes
