import pytest
from tests.netns.attacking import *
from tests.netns.attacking import shared, tmp_path, arena
from tests.netns.programs_lab import lab
def test_probe(shared):
    a = shared
    import time
    for n in (0,):
        print("hide", a.attack(a.copy(f"h{n}"), "hide", a.good, "0"))
    for n in (0,1,2):
        t=time.monotonic()
        print("hide evicted", a.attack(a.copy(f"he{n}"), "hide", a.good, "80000", to=THERE6), time.monotonic()-t)
    assert 0
def test_nolabels(arena):
    a=arena
    a.lab.up(policy(allow("out", str(a.good))), "--no-labels")
    print("good", a.attack(a.good,"fetch"))
    print("hide nolabels", a.attack(a.evil, "hide", a.good, "0"))
    for n in range(4): print("change nolabels", a.attack(a.evil, "change", a.good))
    assert 0
