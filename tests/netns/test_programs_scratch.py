import socket, time
import pytest
from tests.netns.programs_lab import WEB, Lab, lab  # noqa: F401
from tests.netns.talkers import Conversation, Workshop, allow, rules, serve, talks, workshop  # noqa: F401
BOTH = pytest.mark.parametrize("options", [(), ("--no-labels",)], ids=["labels", "no-labels"])

@BOTH
@pytest.mark.parametrize("kind", ["exact","prefix"])
def test_once(lab, net, workshop, options, kind):
    good, bad = workshop.copy("in/good"), workshop.copy("out/bad")
    for policy in ("allow", "block"):
        app = str(good) if kind == "exact" else str(good.parent)+"/*"
        if policy == "allow":
            p = rules(allow("out", app))
        else:
            p = rules({"name":"x","action":"block","direction":"out","app":app}, default={"in":"reject","out":"allow"})
        if policy == "allow":
            lab.up(p, *options)
        else:
            lab.firewall.write(p); lab.pfw("up","--rules",str(lab.firewall.path))
            time.sleep(2.5)
        s = lab.there.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)); s.bind((net.there, 9000)); s.settimeout(0.5)
        loop = 'for d in 0 0 0 0 0 0 0 0 0 0 100 200 400 600 800 1000 1200 1400 1600 1800 2000 2500 3000 3500 4000 5000 6000 7000 8000 9000 10000 12000 14000 16000 20000; do for w in "$0" "$1"; do "$w" once $2 9000 "$w $d" $d; done; done'
        c0 = lab.status_or_none().counts
        print(lab.run("sh","-c",loop,good,bad,net.there))
        got = {"good":[], "bad":[]}
        try:
            while True:
                n, d = s.recv(200).decode().split()
                got[n.rsplit("/",1)[1]].append(int(d))
        except TimeoutError: pass
        c1 = lab.status_or_none().counts
        print("RESULT", options, kind, policy, {k:(len(v), v) for k,v in got.items()}, {k:c1[k]-c0[k] for k in c1 if c1[k]!=c0[k]})
        s.close()
