"""Results as Markdown: sections, tables, and how several runs become one cell. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

NOTHING = "-"
"""The cell of what was not measured or cannot be."""
BEGIN, END = "<!-- bench{} -->", "<!-- /bench{} -->"


class Section:
    """A table with what must be said about it. Every row has a cell for each column."""

    def __init__(self, title: str, columns: Sequence[str]) -> None:
        self.title = title
        self.columns = tuple(columns)
        self.rows: list[tuple[str, ...]] = []
        self.notes: list[str] = []

    def row(self, *cells: str) -> None:
        if len(cells) != len(self.columns):
            raise ValueError(f"{len(cells)} cells for {len(self.columns)} columns: {cells}")
        self.rows.append(cells)

    def note(self, text: str) -> None:
        self.notes.append(text)


def render(sections: Sequence[Section], heading: str) -> str:
    """All sections as one piece of Markdown, ending in a newline."""
    blocks = [heading]
    for section in sections:
        blocks.append(f"**{section.title}**")
        if section.rows:
            blocks.append(_table(section))
        if section.notes:
            blocks.append("\n".join(f"- {note}" for note in section.notes))
    return "\n\n".join(blocks) + "\n"


def replace_between_marks(text: str, bench: str, group: str = "") -> str:
    """The text with what stands between the marks (those of a group of parts have its name) replaced. Raises
    ValueError where the marks are missing."""
    mark, closing = (each.format(f" {group}" if group else "") for each in (BEGIN, END))
    before, begin, rest = text.partition(mark)
    _, end, after = rest.partition(closing)
    if not begin or not end:
        raise ValueError(f"has no {mark} followed by {closing}")
    return f"{before}{mark}\n{bench}{closing}{after}"


def _table(section: Section) -> str:
    """The first column is text, the others are numbers."""
    rows = [tuple(cell.replace("|", "\\|") for cell in row) for row in (section.columns, *section.rows)]
    rule = ("---", *("---:" for _ in section.columns[1:]))
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:]))


def spread(values: Sequence[float], digits: int = 0) -> str:
    """`median (least-most)`; the median alone of a single value, a dash for none."""
    if not values:
        return NOTHING
    text = f"{median(values):,.{digits}f}"
    if len(values) == 1:
        return text
    return f"{text} ({min(values):,.{digits}f}-{max(values):,.{digits}f})"


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """How many times theirs ours is, pair by pair: what slowed the machine down in a round slowed both."""
    pairs = [our / their for our, their in zip(ours, theirs, strict=False) if their]
    digits = 0 if pairs and median(pairs) >= 20 else 2
    return f"{spread(pairs, digits)} times" if pairs else NOTHING


def plural_rounds(rounds: int) -> str:
    return "1 round" if rounds == 1 else f"{rounds} rounds"
