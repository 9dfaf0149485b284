"""`python -m results`, the documented name of `python -m studies`."""

from __future__ import annotations

from studies.__main__ import main

if __name__ == "__main__":
    main()
