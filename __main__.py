"""`python -m thirteen` is the command `thirteen`."""

from .cli.main import main

main()
