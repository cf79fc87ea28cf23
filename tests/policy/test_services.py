from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pfw.policy.services import COMMON_SERVICES, Services, read_services

FILE = """# Network services, Internet style
tcpmux\t\t1/tcp\t\t\t\t# TCP port service multiplexer
http\t\t80/tcp\t\twww\t\t# WorldWideWeb HTTP
ssh 22/tcp
   indented 5/tcp
broken line
toobig 70000/tcp
shell 514/tcp cmd syslog-tcp
two 10/tcp
two 11/udp
MixedCase 12/tcp Also
#commented 9/tcp"""


def test_lines_with_their_aliases_and_nothing_else() -> None:
    expected = {
        ("tcpmux", 1),
        ("http", 80),
        ("www", 80),
        ("ssh", 22),
        ("shell", 514),
        ("cmd", 514),
        ("syslog-tcp", 514),
    }
    expected |= {("two", 10), ("two", 11), ("mixedcase", 12), ("also", 12)}
    assert set(read_services(FILE)) == expected


def test_the_file_stands_before_the_table() -> None:
    services = Services(lambda: "ssh 2222/tcp\n")
    assert services.ports("ssh") == {2222}
    assert services.ports("HTTPS") == {443}
    assert services.ports("no-such-service") is None


def test_a_name_of_two_ports_means_both() -> None:
    assert Services(lambda: FILE).ports("two") == {10, 11}


def test_the_table_has_what_people_ask_for_and_is_in_order() -> None:
    assert Services().ports("ssh") == {22}
    assert len(COMMON_SERVICES) >= 100
    assert all(name == name.lower() and 0 < port <= 65535 for name, port in COMMON_SERVICES.items())
    assert set(Services().names()) == set(COMMON_SERVICES)


@given(st.text())
def test_any_text_can_be_read(text) -> None:
    for name, port in read_services(text):
        assert name
        assert 0 <= port <= 65535
