"""`python -m atomrl.data.prototypes` is `atomrl data prototypes`."""

import sys

from atomrl.data.prototypes.command import data_command
from atomrl.errors import UserError

if __name__ == "__main__":
    try:
        data_command(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
