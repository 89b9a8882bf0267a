"""Archives as people have them: CSV, TSV, JSON and JSON lines, packed or piped, well formed or not."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from charlstm import api, launch
from charlstm.errors import CorpusError, UsageError
from charlstm.settings import TextOptions
from charlstm.text import corpus, files, records
from charlstm.text.sources import find
from tests.conftest import SMALL, Result

POSTS = [
    'He said "hi, all" and left',
    "plain",
    "commas, and; semicolons",
    "two\nlines",
    "  spaces  ",
    "\U0001f600 & so on",
    '"quoted whole"',
    "tab\there",
]
LINES = [" ".join(map(str.strip, post.split("\n"))) for post in POSTS]
ROWS = [{"id": k, "text": post, "date": "2020-01-02"} for k, post in enumerate(POSTS)]


def write_csv(path: Path, encoding: str = "utf-8", **dialect: Any) -> Path:
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, ["id", "text", "date"], **dialect)
        writer.writeheader()
        writer.writerows(ROWS)
    return path


def read(*paths: Path, **options: Any) -> str:
    found = corpus.read([str(path.absolute()) for path in paths], TextOptions(**{"field": "text"} | options))
    return found.vocabulary.decode(found.ids)


def notes(path: Path, **options: Any) -> list[str]:
    return list(corpus.read([str(path.absolute())], TextOptions(**{"field": "text"} | options)).notes)


def put(name: str, text: str) -> Path:
    path = Path(name)
    path.write_text(text, encoding="utf-8", newline="")
    return path


# -- formats


def as_csv(path: Path) -> Path:
    return write_csv(path.with_suffix(".csv"))


def as_excel(path: Path) -> Path:
    return write_csv(path.with_suffix(".csv"), "utf-8-sig", delimiter=";", lineterminator="\r\n")


def as_tsv(path: Path) -> Path:
    return write_csv(path.with_suffix(".tsv"), "utf-16", delimiter="\t")


def as_json(path: Path) -> Path:
    return put("t.json", json.dumps(ROWS))


def as_indented_json(path: Path) -> Path:
    return put("t.json", json.dumps(ROWS, indent=2, ensure_ascii=False))


def as_lines(path: Path) -> Path:
    return put("t.jsonl", "\n".join(map(json.dumps, ROWS)))


def as_lines_called_json(path: Path) -> Path:
    return put("t.json", "\n".join(map(json.dumps, ROWS)) + "\n")


def as_javascript(path: Path) -> Path:
    return put("tweets.js", "window.YTD.tweets.part0 = " + json.dumps(ROWS, indent=1))


def as_strings(path: Path) -> Path:
    return put("t.json", json.dumps(POSTS))


def as_gzip(path: Path) -> Path:
    path = Path("t.csv.gz")
    path.write_bytes(gzip.compress(as_csv(Path("plain")).read_bytes()))
    return path


def as_gzip_in_capitals(path: Path) -> Path:
    return as_gzip(path).rename("T.CSV.GZ")


def as_zip(path: Path) -> Path:
    with zipfile.ZipFile("t.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(as_csv(Path("plain")), "folder/t.csv")
        archive.writestr("__MACOSX/._t.csv", b"\0\1\2")
        archive.writestr("folder/picture.png", b"\x89PNG")
    return Path("t.zip")


FORMATS = [
    as_csv, as_excel, as_tsv, as_json, as_indented_json, as_lines, as_lines_called_json, as_javascript, as_strings, as_gzip, as_gzip_in_capitals, as_zip
]  # fmt: skip


@pytest.mark.parametrize("make", FORMATS)
@pytest.mark.parametrize("size", [1, 7, 1 << 18])
def test_every_format_gives_one_line_per_record(
    folder: Path, make: Callable[[Path], Path], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(Path("t"))
    monkeypatch.setattr(files, "CHUNK_BYTES", size)
    assert read(path).splitlines() == LINES
    assert notes(path) == []


@pytest.mark.parametrize("make", [as_csv, as_excel, as_json, as_lines, as_javascript, as_gzip])
def test_a_piped_archive_is_recognised(
    folder: Path, make: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with make(Path("t")).open("rb") as file:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(file))
        found = corpus.read(find(["-"]), TextOptions(field="text"))
        assert found.vocabulary.decode(found.ids).splitlines() == LINES


def test_a_packed_text_is_read_as_it_is(folder: Path) -> None:
    Path("t.txt.gz").write_bytes(gzip.compress("plain é\r\n".encode()))
    with zipfile.ZipFile("t.zip", "w") as archive:
        archive.writestr("b.txt", "second\n")
        archive.writestr("a.md", "first\n")
    assert read(Path("t.txt.gz"), field="") == "plain é\n"
    assert read(Path("t.zip"), field="") == "first\nsecond\n"


def test_another_separator_keeps_the_line_ends_of_a_record(folder: Path) -> None:
    text = read(as_csv(Path("t")), separator="\n%\n")
    assert text == "".join(post.strip() + "\n%\n" for post in POSTS)
    with pytest.raises(UsageError, match=r"`separator`.*`field`"):
        TextOptions(separator="\t")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    posts=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\0")), min_size=1),
    size=st.integers(1, 50),
)
def test_whatever_pythons_writers_write_is_read_back(folder: Path, posts: list[str], size: int) -> None:
    wanted = [post.strip() for post in posts if post.strip()]
    written = io.StringIO()
    csv.writer(written, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(
        [["a", "text"], *(["x", p] for p in posts)]
    )
    for name, text in (("t.csv", written.getvalue()), ("t.json", json.dumps([{"text": p} for p in posts]))):
        pieces = iter([text[k : k + size] for k in range(0, len(text), size)])
        made = records.read(name, pieces, TextOptions(field="text", separator="\x00;\x00"), [])
        if wanted:
            assert "".join(made) == "".join(post + "\x00;\x00" for post in wanted)


def test_a_field_of_megabytes_is_read_whole(folder: Path) -> None:
    text = "word " * 200_000
    assert read(put("t.csv", f'id,text\n1,"{text}"\n2,end\n')) == text.strip() + "\nend\n"
    assert read(put("t.json", json.dumps([{"text": text}]))) == text.strip() + "\n"


# -- fields


def test_a_number_is_a_column_of_a_file_without_a_header(folder: Path) -> None:
    assert read(put("t.tsv", "ham\thello\nspam\tbuy\n"), field="2") == "hello\nbuy\n"
    assert read(put("t.csv", "2,1\na,b\n"), field="2") == "a\n"


def test_a_field_of_an_object_in_an_object_has_a_dot(folder: Path) -> None:
    path = put("t.json", json.dumps([{"tweet": {"full_text": "one"}}, {"tweet.full_text": "two"}]))
    assert read(path, field="tweet.full_text") == "one\ntwo\n"


@pytest.mark.parametrize("make", [as_csv, as_json, as_lines])
def test_a_field_that_is_missing_names_those_that_are_there(folder: Path, make: Callable[[Path], Path]) -> None:
    with pytest.raises(CorpusError, match=r"no field 'txt' \(id, text, date\): did you mean text"):
        read(make(Path("t")), field="txt")


def test_records_without_a_text_are_left_out_with_a_note(folder: Path) -> None:
    path = put("t.json", '[{"text": "cut \\ud83d"}, {"text": ""}, {"text": null}, {"a": 1}, {"text": 2024}]')
    assert read(path) == "cut \ufffd\n2024\n"
    assert notes(path) == [
        f"{path.absolute()}: records without a field 'text': 2 of 5",
        f"{path.absolute()}: empty records, left out: 1 of 5",
    ]


def test_a_field_needs_a_file_of_records_and_such_a_file_suggests_a_field(folder: Path) -> None:
    with pytest.raises(CorpusError, match=r"`field` is for \.csv.*t\.txt is none"):
        read(put("t.txt", "plain text"))
    for make in (as_csv, as_tsv, as_json, as_lines):
        (note,) = notes(make(Path("t")), field="")
        assert "(id, text, date)" in note


def test_html_entities_are_decoded_on_request(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put("t.csv", "text\nA &amp; B &lt;3 &#128512; AT&T\n")
    assert read(path, unescape=True) == "A & B <3 \U0001f600 AT&T\n"
    assert read(path) == "A &amp; B &lt;3 &#128512; AT&T\n"
    plain = put("t.txt", "Q&amp;A &eacute;t&eacute; & &so on " * 20)
    for size in (1, 5, 1 << 18):
        monkeypatch.setattr(files, "CHUNK_BYTES", size)
        assert read(plain, field="", unescape=True) == "Q&A été & &so on " * 20


# -- malformed


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("t.csv", "id,text\n1,Hello, world\n2,ok\n", "line 2, column 15: the row has 3 columns, and the header 2"),
        ("t.csv", 'id,text\n1,"a\nb"\n2,"he "said", and"\n', "line 4, column 7: the quote within the quoted field"),
        ("t.csv", 'id,text\n1,ok\n2,"open, and\nnever closed\n', "line 3, column 3: the quoted field that begins here"),
        ("t.csv", "", "is empty"),
        ("t.csv", "id,text\n", "no text in its field 'text'"),
        ("t.jsonl", '{"text": "a"}\n{"text": "b\n', "line 2, column 1.*not valid JSON"),
        ("t.json", '[{"text": "a"},\n {"text": bad}]', r"line 2, column 1\d: not valid JSON"),
        ("t.json", '[{"text": "a"},\n', "ends inside its array"),
        ("t.json", "[" * 100_000, "nested too deeply"),
        ("t.json", '[1, {"text": "a"}]', "line 1, column 2: the record is 1, not an object"),
        ("t.json", '[{"text": ["a"]}]', "line 1, column 2: the field 'text' is a list"),
        ("t.json", '[{"text": {"full": "a"}}]', "is an object, not a text.*'text.full'"),
    ],
)
def test_what_is_malformed_is_named_with_line_and_column(
    charlstm: Callable[..., Result], folder: Path, name: str, text: str, words: str
) -> None:
    with pytest.raises(CorpusError, match=rf"{name}.*{words}"):
        read(put(name, text))
    assert charlstm("train", name, "--field", "text").status == 2


def archive(rows: int) -> tuple[str, list[str]]:
    """An archive with quotes that are not doubled, as many programs write it, and the texts that belong in it."""
    draw, lines, posts = random.Random(1), ["id,text,date"], []
    for k in range(rows):
        post = draw.choice(['He said "hi, all" to me', '@bob: "great" Thanks!', "plain, with comma", "plain"])
        posts.append(post)
        lines.append(f'{k},"{post}",2020')
    return "\n".join(lines) + "\n", posts


def test_unescaped_quotes_are_read_as_they_stand_with_a_note(folder: Path) -> None:
    text, posts = archive(300)
    path = put("t.csv", text)
    assert read(path).splitlines() == posts
    (note,) = notes(path)
    assert "line 3, column" in note or "line 2, column" in note
    assert "read as they stand" in note
    unquoted = 'id,text,date\n1,"@bob: you are great" Thanks!,2020\n2,"never closed,2020\n3,"fine",2020\n'
    assert read(put("u.csv", unquoted)) == '"@bob: you are great" Thanks!\n"never closed\nfine\n'
    assert read(put("v.csv", 'text\nHello, world\n"one, two"\n')) == "Hello, world\none, two\n"


def test_few_malformed_rows_are_skipped_with_a_note_and_many_are_refused(folder: Path) -> None:
    good = "".join(f"{k},text {k}\n" for k in range(300))
    path = put("t.csv", "id,text\n" + good + "301,one, two\n" + good)
    assert len(read(path).splitlines()) == 600
    (note,) = notes(path)
    assert "line 302, column 13" in note
    assert "skipped: 1 of 601" in note
    with pytest.raises(CorpusError, match=r"line 302.*one of 7 malformed among 307"):
        read(put("t.csv", "id,text\n" + good + "301,one, two\n" * 7))


def test_a_damaged_archive_is_one_sentence(folder: Path) -> None:
    random.seed(1)
    packed = gzip.compress(random.randbytes(50_000).hex().encode())
    Path("cut.txt.gz").write_bytes(packed[:20_000])
    Path("flipped.txt.gz").write_bytes(packed[:20_000] + b"\xff\xff" + packed[20_002:])
    as_zip(Path("t"))
    Path("cut.zip").write_bytes(Path("t.zip").read_bytes()[:100])
    with zipfile.ZipFile("letter.docx", "w") as made:
        made.writestr("word/document.xml", "<x/>")
    Path("a.pdf").write_bytes(b"%PDF-1.4 and so on")
    for name, words in {
        "cut.txt.gz": "decompressed", "flipped.txt.gz": "decompressed", "cut.zip": "decompressed", "letter.docx": "Office", "a.pdf": "pdftotext"
    }.items():  # fmt: skip
        with pytest.raises(CorpusError, match=rf"{name}.*{words}"):
            read(Path(name), field="")


# -- a run remembers how its text was read


def test_resume_and_novelty_read_the_text_as_training_did(charlstm: Callable[..., Result], folder: Path) -> None:
    rows = "".join(f'{k},"Q&amp;A number {k}, and more"\n' for k in range(100))
    put("t.csv", "id,text\n" + rows)
    begun = charlstm("train", "t.csv", "--field", "text", "--separator", r"\n--\n", "--unescape", *SMALL, "--steps", 2)
    assert begun.status == 0, begun.err
    info = api.load("t").text
    assert (info.field, info.separator, info.unescape) == ("text", "\n--\n", True)
    assert charlstm("resume", "t", "--steps", 4, "--preview-every", 0).status == 0
    assert charlstm("sample", "t", "--length", 30, "--seed", 1, "--novelty").status == 0
    again = charlstm("train", "t.csv", "--field", "id", "--if-exists", "resume", "--steps", 5, "--preview-every", 0)
    assert again.status == 0
    assert "ignored --field 'id'" in again.err
    scored = charlstm("eval", "t", "t.csv", "--field", "text", "--unescape", "--unknown", "skip")
    assert scored.status == 0
    assert f"over {sum(len(f'Q&A number {k}, and more') for k in range(100)) + 99:,} characters" in scored.out


def test_a_text_that_has_moved_is_given_to_resume(charlstm: Callable[..., Result], folder: Path) -> None:
    put("t.csv", "id,text\n" + "".join(f"{k},line number {k}\n" for k in range(100)))
    assert charlstm("train", "t.csv", "--field", "text", *SMALL, "--steps", 2).status == 0
    (folder / "there").mkdir()
    Path("t.csv").rename("there/t.csv")
    lost = charlstm("resume", "t", "--steps", 4)
    assert lost.status == 2
    assert "charlstm resume t --text PATH" in lost.sentence
    assert charlstm("resume", "t", "--text", "there/t.csv", "--steps", 4, "--preview-every", 0).status == 0
    assert charlstm("resume", "t", "--steps", 6, "--preview-every", 0).status == 0, "it remembers the new place"
    put("other.csv", "id,text\n1,another text\n")
    other = charlstm("resume", "t", "--text", "other.csv")
    assert other.status == 2
    assert "has changed" in other.sentence
    for _ in api.resume("t", text="there/t.csv", steps=7):
        pass


def test_a_text_of_very_many_characters_holds_out_little_and_is_doubted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "MANY_CHARACTERS", 200)
    monkeypatch.setattr(launch, "MOST_PROBABILITIES", 30_000)
    path = put("t.txt", "".join(chr(0x4E00 + k % 300) for k in range(5000)))
    started = next(api.train(path, steps=1, hidden=4, batch=2, seq=5))
    assert started.val_chars == 100  # type: ignore[attr-defined]
    assert any("300 distinct characters" in note for note in started.notes)  # type: ignore[attr-defined]
