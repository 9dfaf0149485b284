"""`python -m atomrl` is `atomrl`."""

from atomrl.cli import main

main()
