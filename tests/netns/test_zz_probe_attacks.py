import pytest
from tests.netns.attacking import *
from tests.netns.attacking import shared, tmp_path
def test_probe(shared):
    a = shared
    print("fast e>g", a.attack(a.evil, "give-fast", a.good), "fast g>e", a.attack(a.good,"give-fast",a.evil))
    p="x\x1b[2J\x07\nev\u202eil"
    e=a.copy(p); 
    print(a.attack(e,"fetch"))
    r=a.lab.here.run("nft","list","table","inet","pfw").stdout
    print(r[r.index("\tchain"):])
    assert 0
