"""The engine's dialogue: what it says to which packets. Every event ends with the check of the totals."""

import pytest

from pfw.engine.flows import FlowTable
from pfw.model.event import Finish, LocalAddresses, OpenSocket, PolicyChanged, Tick
from pfw.model.packet import UDP
from pfw.model.policy import Base

OUT = "out TCP 192.0.2.1:40000 > 198.51.100.2:443"
IN = "in TCP 198.51.100.2:50000 > 192.0.2.1:22"


class TestFirstPacketDecides:
    def test_what_goes_out_is_allowed_by_default(self, script, wire):
        script() >> wire.out.tcp("S") << f"#1 {OUT} allow: default out"

    def test_what_comes_in_is_blocked_by_default(self, script, wire):
        script() >> wire.inward.tcp("S") << f"#1 {IN} block: default in"

    def test_replies_follow_without_a_word(self, script, wire):
        s = script()
        s >> wire.out.tcp("S") << f"#1 {OUT} allow: default out"
        s >> wire.out.back.tcp("SA") >> wire.out.tcp("A") >> wire.out.back.tcp("PA", b"hello")
        assert s.rule("default out") == (1, 4)

    def test_a_rule_decides_and_is_named(self, script, wire, rule, policy):
        s = script(policy(rule("no web", "reject", ports=443)))
        s >> wire.out.tcp("S") << f"#1 {OUT} reject: no web"

    def test_ipv6_is_judged_alike(self, script, wire):
        s = script()
        s >> wire.out6.udp() << "#1 out UDP [2001:db8::1]:40000 > [2001:db8:ffff::2]:443 allow: default out"
        s >> wire.inward6.tcp("S") << "#2 in TCP [2001:db8:ffff::2]:50000 > [2001:db8::1]:22 block: default in"

    def test_between_others_it_is_forwarded(self, script, wire):
        s = script()
        s >> wire.strangers.tcp("S") << "#1 forward TCP 198.51.100.2:40000 > 203.0.113.7:443 block: default forward"

    def test_packets_of_a_blocked_connection_stay_with_it(self, script, wire):
        s = script()
        s >> [wire.inward.tcp("S")] * 3 << f"#1 {IN} block: default in"
        assert s.rule("default in") == (1, 3)
        assert s.engine.totals().blocked == 1

    def test_a_judged_connection_brings_its_frame_along(self, script, wire):
        s = script()
        frame = wire.out.tcp("S", b"x" * 9)
        s >> frame << f"#1 {OUT} allow: default out"
        assert s.commands[0].frame.data == frame
        assert s.commands[0].tcp_flags == 2

    def test_without_details_there_is_no_frame_and_no_end(self, script, wire):
        s = script(details=False)
        s >> wire.out.tcp("S") << f"#1 {OUT} allow: default out"
        assert s.commands[0].frame is None
        s >> Finish()


class TestUnknown:
    def test_a_rule_for_a_program_is_no_guess(self, script, wire, rule, policy):
        s = script(policy(rule("browser", "block", "out", apps=("/usr/bin/browser",))))
        s >> wire.out.tcp("S") << f"#1 {OUT} unknown: browser"
        assert s.engine.totals().unknown == 1
        assert s.engine.totals().allowed == 0

    def test_a_program_that_would_be_allowed_is_unknown_where_others_are_blocked(self, script, wire, rule, policy):
        s = script(policy(rule("sshd", "allow", "in", apps=("/usr/sbin/sshd",))))
        s >> wire.inward.tcp("S") << f"#1 {IN} unknown: sshd"

    def test_it_is_certain_where_the_program_makes_no_difference(self, script, wire, rule, policy):
        s = script(policy(rule("browser", "allow", "out", apps=("/usr/bin/browser",))))
        s >> wire.out.tcp("S") << f"#1 {OUT} allow: default out"

    @pytest.mark.parametrize("field", ["apps", "users", "units"])
    def test_whatever_only_the_kernel_knows(self, script, wire, rule, policy, field):
        s = script(policy(rule("theirs", "allow", "in", **{field: ("x",)})))
        s >> wire.inward.tcp("S") << f"#1 {IN} unknown: theirs"


class TestInvalid:
    """Packets that belong to no connection and can start none."""

    @pytest.mark.parametrize("flags", ["SA", "R", "RA", "FA"])
    def test_tcp_that_answers_nothing(self, script, wire, flags):
        s = script()
        s >> wire.inward.tcp(flags)
        assert s.rule("base invalid") == (0, 1)
        assert s.engine.totals().connections == 0

    def test_an_answer_to_no_ping(self, script, wire):
        s = script()
        s >> wire.inward.pong() >> wire.inward6.pong()
        assert s.rule("base invalid") == (0, 2)

    def test_an_icmp_error_about_nothing(self, script, wire):
        s = script()
        s >> wire.inward.unreachable(wire.out.udp()) >> wire.inward6.unreachable(wire.out6.udp())
        assert s.rule("base invalid") == (0, 2)

    @pytest.mark.parametrize("kind", [1, 4, 129, 137, 140, 200])
    def test_icmpv6_that_starts_nothing(self, script, wire, kind):
        s = script()
        s >> wire.inward6.icmp(kind, payload=bytes(40))
        s.answers.clear()
        assert s.rule("base invalid") == (0, 1)

    def test_flags_that_mean_nothing_inside_a_connection(self, script, wire):
        s = script()
        s >> wire.out.tcp("S") << f"#1 {OUT} allow: default out"
        s >> wire.out.back.tcp("SA") >> wire.out.tcp("A")
        s >> wire.out.back.tcp("SF") << "suspicious tcp.flags.syn_fin"
        assert s.rule("base invalid") == (0, 1)
        assert s.rule("default out") == (1, 3)

    def test_they_keep_nothing_alive_and_leave_no_flags(self, script, wire):
        s = script()
        s >> wire.out.tcp("S") << f"#1 {OUT} allow: default out"
        s >> 100 >> wire.out.back.tcp("FPU") << "suspicious tcp.flags.xmas"
        s >> 20 >> Tick() << "#1 ended: timeout, new, 1/0 packets, 0 s S/"


class TestIcmpErrors:
    def test_they_follow_the_connection_that_they_quote(self, script, wire):
        s = script()
        s >> wire.out.udp() << "#1 out UDP 192.0.2.1:40000 > 198.51.100.2:443 allow: default out"
        s >> wire.out.back.unreachable(wire.out.udp())
        assert s.rule("default out") == (1, 2)

    def test_from_a_router_on_the_way_too(self, script, wire):
        s = script()
        s >> wire.out6.udp() << "#1 out UDP [2001:db8::1]:40000 > [2001:db8:ffff::2]:443 allow: default out"
        router = wire.Path("2001:db8:5::1", wire.here6)
        s >> router.unreachable(wire.out6.udp()) >> Finish() << "#1 ended: shutdown, new, 1/1 packets, 0 s"

    def test_one_that_goes_to_somebody_else_than_it_quotes_is_invalid(self, script, wire):
        s = script()
        s >> wire.out.udp() << "#1 out UDP 192.0.2.1:40000 > 198.51.100.2:443 allow: default out"
        s >> wire.Path("203.0.113.1", "192.0.2.77").unreachable(wire.out.udp())
        assert s.rule("base invalid") == (0, 1)

    def test_both_ways(self, script, wire, policy):
        s = script(policy(inbound="allow"))
        s >> wire.inward.tcp("S") << f"#1 {IN} allow: default in"
        s >> wire.inward.back.unreachable(wire.inward.tcp("S"))
        s >> wire.inward.unreachable(wire.inward.back.tcp("SA"))
        s >> Finish() << "#1 ended: shutdown, new, 2/1 packets, 0 s S/"

    def test_they_are_invalid_where_the_policy_turns_them_off(self, script, wire, policy):
        s = script(policy(base=Base(icmp_errors=False)))
        s >> wire.out.udp() << "#1 out UDP 192.0.2.1:40000 > 198.51.100.2:443 allow: default out"
        s >> wire.out.back.unreachable(wire.out.udp())
        assert s.rule("base invalid") == (0, 1)

    def test_the_error_of_a_blocked_connection_shares_its_fate(self, script, wire):
        s = script()
        s >> wire.inward.tcp("S") << f"#1 {IN} block: default in"
        s >> wire.inward.back.unreachable(wire.inward.tcp("S"))
        assert s.rule("default in") == (1, 2)

    def test_fragments_of_one_that_came_early_are_counted(self, script, wire):
        s = script()
        s >> wire.out.udp() << "#1 out UDP 192.0.2.1:40000 > 198.51.100.2:443 allow: default out"
        error = b"\x03\x03\0\0\0\0\0\0" + wire.out.udp() + bytes(32)
        first, later = wire.out.back.fragments(1, error, 40)
        s >> [later, first]
        assert s.engine.totals().packets == 3


class TestMidstream:
    def test_a_lone_ack_is_picked_up_and_counted(self, script, wire):
        s = script()
        s >> wire.out.tcp("A") << f"#1 {OUT} allow: default out"
        assert s.engine.totals().midstream == 1
        s >> Finish() << "#1 ended: shutdown, established, 1/0 packets, 0 s A/"

    def test_by_its_reply_the_direction_is_that_of_the_reply(self, script, wire):
        s = script()
        s >> wire.out.back.tcp("PA") << "#1 in TCP 198.51.100.2:443 > 192.0.2.1:40000 block: default in"

    def test_an_open_socket_tells_who_began(self, script, wire):
        s = script()
        s >> OpenSocket(wire.out.key())
        s >> wire.out.back.tcp("PA", b"data") << f"#1 {OUT} allow: default out"
        s >> wire.out.tcp("A")
        assert s.engine.totals().midstream == 0
        s >> Finish() << "#1 ended: shutdown, established, 1/1 packets, 0 s A/PA"

    def test_also_by_its_own_packet(self, script, wire):
        s = script()
        s >> OpenSocket(wire.inward.key()) >> wire.inward.tcp("A") << f"#1 {IN} block: default in"

    def test_also_one_of_udp(self, script, wire):
        s = script()
        s >> OpenSocket(wire.out.key(UDP))
        s >> wire.out.back.udp() << "#1 out UDP 192.0.2.1:40000 > 198.51.100.2:443 allow: default out"

    def test_a_syn_is_a_new_connection_whatever_was_open(self, script, wire):
        s = script()
        s >> OpenSocket(wire.inward.back.key()) >> wire.inward.tcp("S") << f"#1 {IN} block: default in"


class TestClosing:
    def open(self, script, wire):
        s = script()
        s >> wire.out.tcp("S") << f"#1 {OUT} allow: default out"
        return s >> wire.out.back.tcp("SA") >> wire.out.tcp("A")

    def test_both_fins_and_the_last_ack(self, script, wire):
        s = self.open(script, wire)
        s >> wire.out.tcp("FA") >> wire.out.back.tcp("FA") >> wire.out.tcp("A")
        s >> 119 >> Tick() >> 1 >> Tick() << "#1 ended: closed, closed, 4/2 packets, 0 s FSA/FSA"
        assert s.engine.connections == 0

    def test_a_reset(self, script, wire):
        s = self.open(script, wire)
        s >> wire.out.back.tcp("R") >> 9 >> Tick() >> 1 >> Tick()
        s << "#1 ended: closed, closed, 2/2 packets, 0 s SA/SRA"

    def test_a_half_closed_one_is_forgotten_when_the_kernel_forgets_it(self, script, wire):
        s = self.open(script, wire)
        s >> wire.out.tcp("FA") >> wire.out.back.tcp("A") >> 59 >> Tick() >> 1 >> Tick()
        s << "#1 ended: timeout, closed, 3/2 packets, 0 s FSA/SA"

    def test_the_ports_may_be_used_again_after_the_end(self, script, wire):
        s = self.open(script, wire)
        s >> wire.out.tcp("FA") >> wire.out.back.tcp("FA") >> wire.out.tcp("A") >> 5
        s >> wire.out.tcp("S") << "#1 ended: closed, closed, 4/2 packets, 0 s FSA/FSA" << f"#2 {OUT} allow: default out"
        s >> wire.out.back.tcp("SA")
        assert s.rule("default out") == (2, 8)

    def test_also_by_the_other_end(self, script, wire):
        s = self.open(script, wire)
        s >> wire.out.tcp("FA") >> wire.out.back.tcp("FA") >> wire.out.tcp("A")
        s >> wire.out.back.tcp("S") << "#1 ended: closed, closed, 4/2 packets, 0 s FSA/FSA"
        s << "#2 in TCP 198.51.100.2:443 > 192.0.2.1:40000 block: default in"

    def test_what_is_odd_about_the_packet_that_reopens_is_told_once(self, script, wire):
        s = self.open(script, wire)
        s >> wire.out.back.tcp("R")
        s >> wire.out.tcp("S", options=b"\x02\x04\x05\xb4" * 2) << "suspicious decoder.tcp.opt_duplicate"
        s << "#1 ended: closed, closed, 2/2 packets, 0 s SA/SRA" << f"#2 {OUT} allow: default out"

    def test_a_syn_into_an_open_connection_changes_nothing(self, script, wire):
        s = self.open(script, wire) >> wire.out.tcp("S")
        assert s.rule("default out") == (1, 4)
        s >> Finish() << "#1 ended: shutdown, established, 3/1 packets, 0 s SA/SA"


class TestPolicyChanges:
    def test_only_connections_with_another_verdict_are_told(self, script, wire, rule, policy):
        s = script()
        s >> wire.out.tcp("S") << f"#1 {OUT} allow: default out"
        s >> wire.inward.tcp("S") << f"#2 {IN} block: default in"
        s >> PolicyChanged(policy(rule("no web", ports=443))) << f"#1 {OUT} block: no web again"

    def test_another_rule_with_the_same_verdict_is_silent(self, script, wire, rule, policy):
        s = script()
        s >> wire.inward.tcp("S") << f"#1 {IN} block: default in"
        s >> PolicyChanged(policy(rule("no ssh", ports=22)))
        assert s.rule("default in") == (1, 1)
        s >> wire.inward.tcp("S")
        assert s.rule("no ssh") == (0, 1)

    def test_packets_are_counted_where_they_were_judged(self, script, wire, rule, policy):
        s = script()
        s >> wire.out.tcp("S") << f"#1 {OUT} allow: default out"
        s >> PolicyChanged(policy(rule("no web", ports=443))) << f"#1 {OUT} block: no web again"
        s >> [wire.out.back.tcp("SA"), wire.out.tcp("A")]
        assert (s.rule("default out"), s.rule("no web")) == ((1, 1), (0, 2))
        s >> PolicyChanged(policy()) << f"#1 {OUT} allow: default out again"
        s >> wire.out.tcp("A") >> Finish() << "#1 ended: shutdown, established, 3/1 packets, 0 s SA/SA"
        assert (s.rule("default out"), s.rule("no web")) == ((1, 2), (0, 2))

    def test_a_new_connection_is_judged_by_the_new_policy(self, script, wire, policy):
        s = script()
        s >> PolicyChanged(policy(inbound="allow")) >> wire.inward.tcp("S") << f"#1 {IN} allow: default in"


class TestEveryPacket:
    def test_each_packet_of_a_connection_is_shown_with_its_way(self, script, wire):
        s = script(every_packet=True)
        s >> wire.out.tcp("S") << f"#1 {OUT} allow: default out" << "#1 > 40 allow"
        s >> [wire.out.back.tcp("SA"), wire.out.tcp("A"), wire.out.tcp("PA", b"hi")]
        s << "#1 < 40 allow" << "#1 > 40 allow" << "#1 > 42 allow"

    def test_also_icmp_errors_and_what_is_ignored(self, script, wire):
        s = script(every_packet=True)
        s >> wire.out.tcp("S") << f"#1 {OUT} allow: default out" << "#1 > 40 allow"
        s >> wire.out.back.unreachable(wire.out.tcp("S")) << "#1 < 56 allow"
        s >> wire.out.back.tcp("A") << "#1 < 40 allow"

    def test_also_what_is_invalid(self, script, wire):
        script(every_packet=True) >> wire.inward.tcp("SA") << "#0 > 40 block"

    def test_also_when_the_table_has_no_room(self, script, wire):
        s = script(every_packet=True, table=FlowTable(1))
        s >> OpenSocket(wire.out.key()) >> wire.out.tcp("A") << f"#1 {OUT} allow: default out" << "#1 > 40 allow"
        s >> wire.inward.tcp("S") << f"#2 {IN} block: default in"
        s << "notice: the table of connections is full (1): the oldest unanswered ones are forgotten" << "#2 > 40 block"


class TestFullTable:
    NOTICE = "notice: the table of connections is full ({}): the oldest unanswered ones are forgotten"

    def syn(self, wire, port):
        return wire.Path(wire.here, wire.there, port).tcp("S")

    def test_the_oldest_unanswered_makes_room_and_it_is_said_once(self, script, wire):
        s = script(table=FlowTable(2))
        s >> 1 >> self.syn(wire, 1001) << "#1 out TCP 192.0.2.1:1001 > 198.51.100.2:443 allow: default out"
        s >> 1 >> self.syn(wire, 1002) << "#2 out TCP 192.0.2.1:1002 > 198.51.100.2:443 allow: default out"
        s >> 1 >> self.syn(wire, 1003) << "#3 out TCP 192.0.2.1:1003 > 198.51.100.2:443 allow: default out"
        s << self.NOTICE.format(2) << "#1 ended: forced, new, 1/0 packets, 0 s S/"
        s >> 1 >> self.syn(wire, 1004) << "#4 out TCP 192.0.2.1:1004 > 198.51.100.2:443 allow: default out"
        s << "#2 ended: forced, new, 1/0 packets, 0 s S/"
        assert (s.engine.connections, s.engine.totals().evicted, s.engine.totals().untracked) == (2, 2, 0)

    def test_what_is_alive_stays_and_the_newcomer_is_only_counted(self, script, wire):
        s = script(table=FlowTable(1))
        s >> wire.out.tcp("A") << f"#1 {OUT} allow: default out"
        for number in (2, 3):
            s >> wire.inward.tcp("S") << f"#{number} {IN} block: default in"
            if number == 2:
                s << self.NOTICE.format(1)
        assert (s.engine.connections, s.engine.totals().untracked, s.engine.totals().evicted) == (1, 2, 0)
        assert s.rule("default in") == (2, 2)


class TestNotIp:
    def test_arp_and_others_are_counted_by_kind(self, script, wire):
        s = script()
        s.source = type(s.source)(1, "eth0")
        macs = b"\xff" * 6 + b"\x02\0\0\0\0\1"
        arp = macs + b"\x08\x06" + bytes.fromhex("0001080006040001") + bytes(20)
        s >> [arp, arp, macs + b"\x88\xcc" + bytes(46), macs + b"\x12\x34" + bytes(46)]
        assert s.engine.totals().not_ip == {"arp": 2, "lldp": 1, "ethertype 0x1234": 1}

    def test_nonsense_is_undecodable(self, script):
        s = script()
        s >> [b"\xff" * 40, b"", b"\x45"]
        assert s.answers.count("suspicious decoder.ipraw.invalid_ip_version") == 2
        s.answers.clear()
        assert s.engine.totals().undecodable == 3


class TestLocalAddresses:
    def test_they_may_change_while_it_runs(self, script, wire):
        s = script(known=False)
        s >> LocalAddresses(type(wire.local)()) >> wire.out.udp()
        s << "#1 forward UDP 192.0.2.1:40000 > 198.51.100.2:443 block: default forward"
        s >> LocalAddresses(wire.local) >> wire.out.tcp("S") << f"#2 {OUT} allow: default out"


def test_finish_ends_everything(script, wire):
    s = script()
    s >> [wire.out.tcp("S"), wire.out6.udp()]
    s.answers.clear()
    s >> 3 >> Finish() << "#1 ended: shutdown, new, 1/0 packets, 0 s S/" << "#2 ended: shutdown, new, 1/0 packets, 0 s"
    assert s.engine.connections == 0
    assert s.engine.totals().connections == 2
