"""How soon an exported page writes and how fast, in headless Chromium: from opening the file, for a model with random weights.

python -m tests.benchmarks.page [--hidden 256] [--rounds 7]
"""

from __future__ import annotations

import argparse
import statistics
import string
import tempfile
from pathlib import Path

import numpy as np

from charlstm.export.page import Facts, build
from charlstm.nn import model
from charlstm.nn.config import ModelConfig
from tests.browser import CHROMIUM, Browser

CHARACTERS = "".join(sorted("\n" + string.ascii_letters + " .,'!?-0"))
FIRST = "performance.getEntriesByName('first-character')[0].startTime"
RATE = """
(async () => {
  const began = performance.now();
  await charlstm.generate({ length: 1000 });
  return 1e6 / (performance.now() - began);
})()
"""


def measure(page_path: Path, rounds: int) -> tuple[list[float], list[float]]:
    """Open the page `rounds` times; return the milliseconds to its first character and its characters per second."""
    browser, first, rates = Browser(), [], []
    try:
        for _ in range(rounds):
            page = browser.page()
            page.open(page_path, "#seed=1")
            page.wait("document.getElementById('text').getAttribute('aria-busy') === 'false'")
            first.append(float(page.run(FIRST)))
            rates.append(float(page.run(RATE)))
            page.close()
    finally:
        browser.close()
    return first, rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    if not CHROMIUM:
        parser.error("needs Chromium: apt-get install chromium")
    config = ModelConfig(len(CHARACTERS), multiplicative=True, hidden=options.hidden)
    facts = Facts(name="a run", sources=["a text.txt"], chars=12345, val_nats=1.234)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.html"
        path.write_bytes(build(config, model.init(config, np.random.default_rng(0)), CHARACTERS, facts))
        first, rates = measure(path, options.rounds)
    print(f"1x{options.hidden}, {options.rounds} times, median (best):")
    print(f"first character after {statistics.median(first):.0f} ms ({min(first):.0f})")
    print(f"{statistics.median(rates):,.0f} characters per second ({max(rates):,.0f})")


if __name__ == "__main__":
    main()
