"""A model as one HTML file that writes text in a browser, without a server or a network.

The file contains the weights (base85), the vocabulary, and the scripts of this folder: ``lstm.js`` is the model, ``worker.js`` runs it
beside the page, and ``page.js`` is the page. Its content security policy names the style and the script by their hashes and
allows no connection at all, so that nothing a run's name or text contains can run or load anything. The same model gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import PurePath
from typing import Any

from charlstm.export.weights import pack
from charlstm.nn.config import ModelConfig
from charlstm.nn.types import Arrays
from charlstm.text.lines import STOPS, WIDE_STOPS, opening
from charlstm.text.vocabulary import Vocabulary

NAME_CHARS = 60
"""Longer names are cut."""
NAMES = 3
"""Of this many texts the names are shown."""
DIGITS = bytes.maketrans(b"<", b",")
"""Python's base85 with a comma for the only digit that means something to HTML."""


@dataclass(frozen=True)
class Facts:
    """What a page says of its model.

    ``name`` is the run's; ``sources`` are the texts it learned from, as paths, of which a page shows no folder; ``chars`` is their
    length; ``val_nats`` is the held-out loss in nats per character, if there is one.
    """

    name: str
    sources: Sequence[str]
    chars: int
    val_nats: float | None


def build(
    config: ModelConfig,
    params: Arrays,
    characters: str,
    facts: Facts,
    *,
    line_chars: Sequence[int] = (),
    bits: int = 16,
    temperature: float = 0.8,
    top_p: float = 1.0,
    length: int = 600,
) -> bytes:
    """The page as bytes.

    Args:
        config: the model's.
        params: the model's.
        characters: the vocabulary.
        facts: what the page says of the model.
        line_chars: quantiles of the lengths of the text's lines, as `CharModel` has them.
        bits: 16 for float16 weights, 8 for int8 weights with a scale for each row.
        temperature, top_p: the page begins with them.
        length: of a text, in characters; the page begins with it.

    Raises:
        UsageError: see `charlstm.export.weights.pack`.
    """
    packed = pack(params, bits)
    model = {
        "characters": characters,
        **{name: getattr(config, name) for name in ("hidden", "layers", "embedding", "residual")},
        "settings": {"temperature": temperature, "topP": top_p, "length": length},
        "stops": STOPS + WIDE_STOPS,
        "lineChars": line_chars,
        "opening": opening(Vocabulary(characters), line_chars),
        "arrays": packed.entries,
    }
    style, script = _file("page.css"), _file("page.js")
    name, text = _visible(facts.name) or "A model", _texts(facts.sources)
    parts = {
        "policy": _policy(script, style),
        "description": html.escape(
            f"A neural network that learned from {text} and writes new text like it, in your browser."
        ),
        "name": html.escape(name),
        "text": html.escape(text),
        "temperature": f"{temperature:g}",
        "top_p": f"{top_p:g}",
        "length": str(length),
        "facts": "\n    ".join(_rows(config, params, len(packed.data), bits, facts)),
        "style": style,
        "script": script,
        "lstm": _file("lstm.js"),
        "worker": _file("worker.js"),
        "model": _json(model),
        "weights": base64.b85encode(packed.data, pad=True).translate(DIGITS).decode(),
    }
    # One pass, so that what is inserted is not read again.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _file("page.html")).encode()


def _rows(config: ModelConfig, params: Arrays, size: int, bits: int, facts: Facts) -> list[str]:
    """What the page says of the model, as the rows of a list of terms."""
    weights = sum(array.size for array in params.values())
    loss = "not measured"
    if facts.val_nats is not None:
        loss = f"{facts.val_nats:.3f} nats per character"
    rows = {
        "Text": f"<bdi>{html.escape(_texts(facts.sources))}</bdi>, {facts.chars:,} characters, {config.vocabulary:,} different",
        "Size": f"{config.layers}×{config.hidden} LSTM, {weights:,} weights of {bits} bits, {_size(size)}",
        "Held-out loss": loss,
    }
    return [f"<dt>{term}</dt><dd>{value}</dd>" for term, value in rows.items()]


def _size(size: int) -> str:
    """A number of bytes for people."""
    return f"{size / 1e3:,.0f} kB" if size < 999_500 else f"{size / 1e6:.1f} MB"


def _texts(sources: Sequence[str]) -> str:
    """The names of the texts, without their folders."""
    names = [_visible(PurePath(source).name.removesuffix(".txt")) or "a text" for source in sources if source != "-"]
    names += ["standard input"] * (len(sources) - len(names))
    more = len(names) - NAMES
    return ", ".join(names[:NAMES]) + (f" and {more:,} more" if more > 0 else "") or "a text"


def _visible(name: str) -> str:
    """A name that can be shown: no control characters, no lone surrogates, no changes of direction, no great length."""
    allowed = "".join(
        " " if c.isspace() else c
        for c in name
        if c.isspace()
        or (unicodedata.category(c) not in ("Cc", "Cs") and unicodedata.bidirectional(c) not in DIRECTIONS)
    )
    words = " ".join(allowed.split())
    return words if len(words) <= NAME_CHARS else words[: NAME_CHARS - 1].rstrip() + "…"


DIRECTIONS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
"""Unicode's classes of characters that change the direction of the text around them."""


def _json(value: Any) -> str:
    """JSON in ASCII that can't end the script element around it."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _policy(script: str, style: str) -> str:
    """The content security policy of a page with one script and one style."""
    return (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; worker-src blob:; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(source: str) -> str:
    """The source of a script or style, as a content security policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()


def _file(name: str) -> str:
    """A file of this folder."""
    return resources.files("charlstm.export").joinpath(name).read_text(encoding="utf-8")
