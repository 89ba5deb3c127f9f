"""How often tests of what is a matter of chance repeat it: THIRTEEN_REPEATS=100 pytest PATH for a long run."""

import os

REPEATS = int(os.environ.get("THIRTEEN_REPEATS", "1"))
