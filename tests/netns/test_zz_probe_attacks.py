import pytest
from tests.netns.attacking import *
from tests.netns.attacking import shared, tmp_path
def test_probe(shared):
    a = shared
    def go(what, *x, **k):
        import time; t=time.monotonic()
        print(what, a.attack(*x, **k), round(time.monotonic()-t,2), flush=True)
    go("good", a.good, "fetch"); go("evil", a.evil, "fetch"); go("good6", a.good, "fetch", to=THERE6)
    go("good map", a.good, "fetch", to="::ffff:"+THERE); go("evil map", a.evil, "fetch", to="::ffff:"+THERE)
    go("good dgram", a.good, "datagram", "5"); go("evil dgram", a.evil, "datagram", "5")
    go("good big dgram", a.good, "datagram", "20000"); go("evil big dgram", a.evil, "datagram", "20000")
    go("good mptcp", a.good, "mptcp"); go("evil mptcp", a.evil, "mptcp")
    for n in range(5):
        e = a.copy(f"changer{n}"); go("change", e, "change", a.good)
        e = a.copy(f"vforker{n}"); go("vfork", e, "vfork", a.good)
    for how in ("ptrace-traceme","ptrace-attach","mem","writev"): go(how, a.evil, "meddle", how, a.good)
    for how in ("give-connected","give-new","give-fast","give-datagrams","inherit"):
        go(how+" g>e", a.good, how, a.evil); go(how+" e>g", a.evil, how, a.good)
    go("mark", a.evil, "mark", "0x100"); go("cmsg", a.evil, "cmsg", "0x100")
    go("mark good", a.good, "mark", "1", user=None)
    for m in range(1,5):
        go(f"mark {m} root", a.evil, "mark", hex(m<<8), user=None); go(f"cmsg {m} root", a.evil, "cmsg", hex(m<<8), user=None)
    for s in "01": go("uring e"+s, a.evil, "uring", s); go("uring g"+s, a.good, "uring", s)
    go("packet", a.evil, "packet")
    go("packet userns", a.evil, "packet", before=["unshare","-Ur"])
    go("mark userns", a.evil, "mark", "0x100", before=["unshare","-Ur"])
    go("pretend", a.evil, "pretend", a.good); go("pretend-by-child", a.evil, "pretend-by-child", a.good)
    assert 0
