"""What the decoders of streams raise when the other side is to blame."""

from __future__ import annotations


class WireError(Exception):
    """Bytes that do not fit their format. The text is one line: what is wrong, where, what to do."""
