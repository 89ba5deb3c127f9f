"""How often tests repeat what is a matter of chance: THIRTEEN_REPEATS=100 pytest PATH for a long run."""

import os

REPEATS = int(os.environ.get("THIRTEEN_REPEATS", "1"))
