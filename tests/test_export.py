"""Exported files, as bytes: what `tests/test_page.py` needs no browser for."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from charlstm.errors import UsageError
from charlstm.export import page
from charlstm.export.weights import pack, safetensors, unpack
from charlstm.nn import loss as losses
from charlstm.nn import model
from charlstm.nn.config import ModelConfig
from charlstm.nn.types import Array, Arrays, Ids
from charlstm.storage import checkpoint
from tests.conftest import ROOT, Result

SOURCES = Path(page.__file__).parent
CHARACTERS = "\n <>abcdefghijklmnopé"
FACTS = page.Facts("fables", ["/home/someone/fables.txt"], 197_166, 1.2094)
CONFIGS = [
    ModelConfig(len(CHARACTERS), hidden=24),
    ModelConfig(len(CHARACTERS), hidden=16, layers=3),
    ModelConfig(len(CHARACTERS), 8, hidden=16, layers=2),
    ModelConfig(len(CHARACTERS), hidden=16, layers=3, residual=True),
    ModelConfig(len(CHARACTERS), multiplicative=True, hidden=16),
    ModelConfig(len(CHARACTERS), 8, True, True, hidden=16, layers=2),
]


def shipped() -> tuple[Any, Ids]:
    """The model that comes with the program, and its text."""
    writer = checkpoint.load(ROOT / "checkpoints" / "fables.npz").char_model
    return writer, writer.vocabulary.encode((ROOT / "corpora" / "fables.txt").read_text(encoding="utf-8"))


def params_of(config: ModelConfig, factor: float = 3) -> Arrays:
    rng = np.random.default_rng(1)
    params = {name: array * np.float32(factor) for name, array in model.init(config, rng).items()}
    if config.multiplicative:
        params["layer1.M"] += rng.normal(0, 0.5, params["layer1.M"].shape).astype(np.float32)
    return params


def build(
    config: ModelConfig = CONFIGS[0], characters: str = CHARACTERS, facts: page.Facts = FACTS, **more: Any
) -> str:
    return page.build(config, params_of(config), characters, facts, **more).decode()


@pytest.mark.parametrize("config", CONFIGS)
def test_weights_of_16_bits_are_float16(config: ModelConfig) -> None:
    params = params_of(config)
    back = unpack(pack(params, 16))
    assert list(back) == list(params)
    for name, array in params.items():
        assert back[name].dtype == np.float32
        assert np.array_equal(back[name], array.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("config", CONFIGS)
def test_weights_of_8_bits_are_off_by_half_a_step_of_their_row(config: ModelConfig) -> None:
    params = params_of(config)
    params["layer1.U"][3] = 0
    params["layer1.U"][4] *= 1e-30
    packed = pack(params, 8)
    back = unpack(packed)
    for name, array in params.items():
        assert back[name].shape == array.shape
        if array.ndim == 2:
            step = np.abs(array).max(axis=1, keepdims=True) / 127
            assert (np.abs(back[name] - array) <= step * 0.5001).all()
    assert len(packed.data) < 0.75 * len(pack(params, 16).data)


def test_fewer_bits_cost_little(capsys: pytest.CaptureFixture[str]) -> None:
    writer, ids = shipped()
    N = 16  # stretches of the held-out tenth side by side
    T = len(ids) // 10 // N
    inputs, targets = (part.reshape(N, T).T for part in (ids[-N * T - 1 : -1], ids[-N * T :]))
    work = model.Workspace.empty(writer.config, T, N)

    def loss(params: Arrays) -> float:
        start = model.State.zero(writer.config, N)
        logits, _ = model.forward(params, writer.config, inputs, start, work)
        return float(losses.nll(logits, targets.reshape(-1)).mean(dtype=np.float64))

    full, half, eighth = (
        loss(params) for params in (writer.params, *(unpack(pack(writer.params, b)) for b in (16, 8)))
    )
    with capsys.disabled():
        print(
            f"\nloss of the shipped model: {full:.4f}, with 16 bits {half:.4f}, with 8 bits {eighth:.4f} nats per character"
        )
    assert abs(half - full) < 0.0005
    assert abs(eighth - full) < 0.005


def test_a_weight_too_large_for_16_bits_is_refused() -> None:
    params = params_of(CONFIGS[0])
    params["layer1.U"][0, 0] = 70_000
    with pytest.raises(UsageError, match=r"layer1\.U has a weight too large for 16 bits: use `bits` 8"):
        pack(params, 16)
    assert unpack(pack(params, 8))["layer1.U"][0, 0] == pytest.approx(70_000)
    with pytest.raises(UsageError, match="`bits` 4"):
        pack(params, 4)


def test_the_same_model_gives_the_same_bytes() -> None:
    assert build() == build()
    assert build() != build(bits=8)


def test_nothing_of_the_template_is_left_open() -> None:
    assert "{{" not in build().replace("${", "")
    name = "{{weights}} \\g<0>"
    assert '<h1 id="name"><bdi>{{weights}} \\g&lt;0&gt;</bdi></h1>' in build(facts=page.Facts(name, [], 1, None))


def test_the_policy_names_the_only_script_and_style() -> None:
    text = build()
    policy = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)[0]
    script = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    style = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for [part] in (script, style)]
    assert policy == (
        f"default-src 'none'; script-src 'sha256-{hashes[0]}'; style-src 'sha256-{hashes[1]}'; "
        "worker-src blob:; img-src data:; base-uri 'none'; form-action 'none'"
    )


def test_the_page_names_no_address_and_no_folder() -> None:
    text = build()
    assert re.findall(r"\bhttps?://[^' ]*", text) == ["http://www.w3.org/2000/svg"]  # the name of a format
    assert "someone" not in text
    assert not re.search(r"\b(src|href)=\"(?!data:)", text)


def test_what_the_page_says_of_its_model() -> None:
    text = build()
    assert "<dd><bdi>fables</bdi>, 197,166 characters, 21 different</dd>" in text
    assert "<dd>1×24 LSTM, 4,941 weights of 16 bits, 10 kB</dd>" in text
    assert "<dd>1.209 nats per character</dd>" in text
    assert "<dd>not measured</dd>" in build(facts=page.Facts("x", ["-"], 1, None))
    assert "standard input" in build(facts=page.Facts("x", ["-"], 1, None))
    assert "<dd><bdi>a, b, c and 2 more</bdi>," in build(facts=page.Facts("x", [f"/{c}.txt" for c in "abcde"], 1, None))


def test_the_scripts_are_readable_and_short() -> None:
    lines = (SOURCES / "lstm.js").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 300
    for path in SOURCES.glob("page.*"):
        if path.suffix in (".js", ".css"):
            lines += path.read_text(encoding="utf-8").splitlines()
    assert max(map(len, lines)) <= 120
    for path in SOURCES.glob("*.js"):
        assert "</script" not in path.read_text(encoding="utf-8").lower()
        assert "<!--" not in path.read_text(encoding="utf-8")


def test_the_page_is_hardly_larger_than_its_weights() -> None:
    config = ModelConfig(61, hidden=192)
    text = page.build(config, params_of(config), "".join(map(chr, range(61))), FACTS, line_chars=[*range(900, 965)])
    assert len(text) < 1.4 * 2 * sum(array.size for array in params_of(config).values())


def test_the_weights_are_base85_with_a_comma_for_the_digit_that_means_something_to_html() -> None:
    scripts = Elements(build()).scripts
    weights = scripts["weights"].strip()
    assert set(weights) <= set(re.findall(r'const DIGITS = "(.*)"', scripts["lstm"])[0])
    data = base64.b85decode(weights.replace(",", "<"))
    assert data.startswith(pack(params_of(CONFIGS[0]), 16).data)
    assert len(data) % 4 == 0


class Elements(HTMLParser):
    """The elements of a page, and the texts of its scripts by id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.scripts: dict[str | None, str] = {}
        self._script: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(f"{tag} {[key for key, _ in attrs]}")
        self._script = dict(attrs).get("id") if tag == "script" else None

    def handle_data(self, data: str) -> None:
        self.scripts[self._script] = self.scripts.get(self._script, "") + data


@pytest.mark.parametrize("name", ["</script><b>", "\"'><!--", "\x00\x1b\r\n\udcff\u202e", "y" * 5000, "&quot;</title>"])
def test_hostile_names_and_characters_stay_what_they_are(name: str) -> None:
    characters = "".join(sorted(set("\x00\r\n</script>!-&'\"\u2028\u202e\ufeff\U0001f600")))
    config = ModelConfig(len(characters), hidden=8)
    plain, hostile = (
        Elements(build(config, characters)),
        Elements(build(config, characters, page.Facts(name, [name] * 5, 9, 1))),
    )
    assert hostile.tags == plain.tags
    assert json.loads(hostile.scripts["model"])["characters"] == characters
    assert hostile.scripts["model"] == plain.scripts["model"]
    assert hostile.scripts["weights"] == plain.scripts["weights"]


@pytest.mark.parametrize("config", CONFIGS)
def test_safetensors_have_the_names_and_shapes_of_torch(config: ModelConfig) -> None:
    numpy = pytest.importorskip("safetensors.numpy", reason="needs safetensors: pip install charlstm[torch]")
    params, H, V = params_of(config), config.hidden, config.vocabulary
    data = safetensors(params, config, CHARACTERS, {"name": "fables"})
    assert data == safetensors(params, config, CHARACTERS, {"name": "fables"})
    tensors = numpy.load(data)
    expected = {"output.bias": (V,)}
    for k in range(config.layers):
        expected |= {
            f"lstm.weight_ih_l{k}": (4 * H, H if k else config.input_width),
            f"lstm.weight_hh_l{k}": (4 * H, H),
        }
        expected |= {f"lstm.bias_ih_l{k}": (4 * H,), f"lstm.bias_hh_l{k}": (4 * H,)}
    if config.multiplicative:
        expected |= {"scale.weight": (H, config.input_width)}
    if config.embedding:
        expected |= {"embedding.weight": (V, config.embedding), "projection.weight": (config.embedding, H)}
    else:
        expected |= {"output.weight": (V, H)}
    assert {name: tensor.shape for name, tensor in tensors.items()} == expected
    assert np.array_equal(tensors["lstm.weight_hh_l0"][2 * H : 3 * H], params["layer1.U"][3 * H :]), (
        "g is third in PyTorch"
    )
    size = int.from_bytes(data[:8], "little")
    about = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["charlstm"])
    assert about["vocabulary"] == CHARACTERS
    assert about["config"]["hidden"] == H
    assert about["name"] == "fables"


def test_without_safetensors_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "safetensors.numpy", None)
    with pytest.raises(UsageError, match=r"pip install 'charlstm\[torch\]'"):
        safetensors(params_of(CONFIGS[0]), CONFIGS[0], CHARACTERS, {})


def torch_model(data: bytes, folder: Path) -> dict[str, Any]:
    """Run the code of docs/export.md on an exported file; returns its variables."""
    (folder / "fables.safetensors").write_bytes(data)
    guide = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    code = re.findall(r"<!-- torch -->\n```python\n(.*?)```", guide, re.DOTALL)[0]
    variables: dict[str, Any] = {}
    exec(code, variables)
    return variables


def predictions_of_torch(made: dict[str, Any], ids: Ids) -> Array:
    """Logits (chars, V) of the model that the guide's code loaded."""
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    with torch.no_grad():
        y = made["read"](made["inputs"][ids], [None] * len(made["layers"]))
        logits: Array = (y @ made["outputs"].T + made["w"]["output.bias"]).numpy()
    return logits


def predictions(params: Arrays, config: ModelConfig, ids: Ids) -> Array:
    """Logits (chars, V) as `charlstm eval` computes them."""
    work = model.Workspace.empty(config, len(ids), 1)
    logits, _ = model.forward(params, config, ids[:, None], model.State.zero(config, 1), work)
    return logits.T


@pytest.mark.parametrize("config", CONFIGS)
def test_pytorch_reads_the_file_as_the_guide_says_and_predicts_the_same(
    config: ModelConfig, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="needs PyTorch")
    params = params_of(config, 1)
    made = torch_model(safetensors(params, config, CHARACTERS, {}), folder)
    assert len(capfd.readouterr().out) == 1 + 300 + 1
    ids = np.random.default_rng(2).integers(len(CHARACTERS), size=200)
    assert np.abs(predictions_of_torch(made, ids) - predictions(params, config, ids)).max() < 1e-5


def test_pytorch_predicts_what_the_shipped_model_predicts(folder: Path) -> None:
    pytest.importorskip("torch", reason="needs PyTorch")
    writer, ids = shipped()
    made = torch_model(safetensors(writer.params, writer.config, writer.vocabulary.characters, {}), folder)
    ids = ids[-2000:]
    difference = np.abs(predictions_of_torch(made, ids) - predictions(writer.params, writer.config, ids)).max()
    assert difference < 1e-5


def test_the_page_of_the_bundled_model_is_what_the_command_writes(
    folder: Path, charlstm: Callable[..., Result]
) -> None:
    """The page under docs/ is repeated: the same bytes, from the same model and the same code."""
    result = charlstm("export", ROOT / "checkpoints" / "fables.npz", "again.html")
    assert (result.status, result.out) == (0, "again.html\n")
    assert Path("again.html").read_bytes() == (ROOT / "docs" / "fables.html").read_bytes()
    refused = charlstm("export", "fables", "again.html")
    assert refused.status == 2
    assert "--force" in refused.sentence
    assert charlstm("export", "fables", "again.html", "--force", "--bits", 8).status == 0
    assert len(Path("again.html").read_bytes()) < 400_000
    assert charlstm("export", "fables", "again.pdf").status == 2
