"""The page of `pfw stats` while the daemon writes."""

from __future__ import annotations

import json
from argparse import Namespace
from typing import Any

from pfw.commands.summing import shown_stats
from pfw.model.history import Query
from pfw.record import history_read, history_sums
from pfw.record.history_read import open_history

from .past import Past, dropped, entry, subject


def test_all_tables_of_a_page_are_of_one_moment(tmp_path, monkeypatch, capsys):
    past = Past(tmp_path / "state")
    past.write([*(entry(100, subject(rule=f"rule {at}")) for at in range(5)), dropped(90)])

    def added_up(*arguments: Any) -> Any:
        past.write([entry(10), dropped(9)])
        return history_sums.added_up(*arguments)

    monkeypatch.setattr(history_read, "added_up", added_up)
    options = Namespace(by=None, number=100, json=True, geoip=None)
    with open_history(past.path) as history:
        assert shown_stats(history, Query(), options, lambda _: None) == 0
    page = json.loads(capsys.readouterr().out)
    sums = {key: sum(row["connections"] for row in page[key]) for key in ("programs", "remotes", "rules", "hours")}
    assert sums == dict.fromkeys(sums, page["connections"])
    assert (page["connections"], page["blocked"]) == (6, 1)
