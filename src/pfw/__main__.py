"""`python3 -m pfw` is `pfw`."""

import sys

from pfw.main import main

sys.exit(main())
