from __future__ import annotations

import re
from pathlib import Path

import pfw.wire.packet
from pfw.wire.anomaly import ANOMALY_TEXTS


def test_every_anomaly_that_the_decoder_names_has_a_text_and_no_other():
    folder = Path(pfw.wire.packet.__file__).parent
    sources = "".join(path.read_text() for path in folder.glob("*.py") if path.name != "anomaly.py")
    named = set(re.findall(r'"((?:decoder|capture)\.[a-z0-9_.]+)"', sources))
    options = {
        f"decoder.ipv6.{which}_{what}" for which in ("hopopts", "dstopts") for what in ("unknown_opt", "only_padding")
    }
    assert named | options == set(ANOMALY_TEXTS)


def test_texts_are_phrases():
    for text in ANOMALY_TEXTS.values():
        assert text.isprintable()
        assert not text.endswith(".")
        assert "\n" not in text
