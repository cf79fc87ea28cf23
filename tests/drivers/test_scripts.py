"""Which argument of an interpreter is the script."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfw.drivers.scripts import script_argument


@pytest.mark.parametrize(
    ("words", "script"),
    [
        ("python3.11 x.py -c y", "x.py"),
        ("python3 -I -W error -X dev x.py", "x.py"),
        ("python3 -Wdefault -BEs x.py", "x.py"),
        ("python3 -c code x", None),
        ("python3 -Ic code x", None),
        ("python3 -m http.server", None),
        ("python3 -Pm http.server", None),
        ("python3 - x.py", None),
        ("python3", None),
        ("python3 -W", None),
        ("python3 -- -odd.py", "-odd.py"),
        ("python3 --", None),
        ("pypy3 x.py", "x.py"),
        ("perl -w -I lib -Mstrict x.pl", "x.pl"),
        ("perl5.36.0 -lne code x", None),
        ("perl -i.bake x.pl", "x.pl"),
        ("ruby -r json -W0 x.rb", "x.rb"),
        ("ruby -ne code", None),
        ("node --require ./a.js --inspect x.js", "x.js"),
        ("node --require=./a.js x.js", "x.js"),
        ("node --eval code", None),
        ("node --eval=code x.js", None),
        ("node -p code", None),
        ("bash -eu -o pipefail x.sh", "x.sh"),
        ("bash -euo pipefail x.sh", "x.sh"),
        ("bash +x --rcfile r x.sh", "x.sh"),
        ("bash -lc code x", None),
        ("sh -s x", None),
        ("dash x.sh", "x.sh"),
        ("zsh x", "x"),
        ("php -d a=b x.php", "x.php"),
        ("php8.2 -f x.php y", "x.php"),
        ("php -fx.php y", "x.php"),
        ("php -r code", None),
        ("php -S localhost:80 x.php", None),
        ("lua5.4 -l mod x.lua", "x.lua"),
        ("lua -e code x.lua", None),
        ("firefox x.py", None),
        ("pythonic x.py", None),
    ],
)
def test_the_script(words, script):
    name, *arguments = words.split()
    found = script_argument(name, [each.encode() for each in arguments])
    assert found == (script and script.encode())


@given(st.sampled_from(["python3", "perl", "node", "bash", "php", "lua"]), st.lists(st.binary(max_size=6), max_size=8))
def test_anything(name, arguments):
    found = script_argument(name, arguments)
    assert found is None or found in arguments or any(each.endswith(found) for each in arguments)
