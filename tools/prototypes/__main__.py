"""`python -m tools.prototypes` is `atomrl data prototypes`."""

import sys

from atomrl.util.errors import UserError
from tools.prototypes.command import data_command

if __name__ == "__main__":
    try:
        data_command(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
