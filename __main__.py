"""`python -m thirteen` is the command `thirteen`."""

from .cli import main

main()
