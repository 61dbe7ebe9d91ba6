"""`python -m clipcore` is the command `clipcore`."""

import sys

from clipcore.cli import main

if __name__ == "__main__":
    sys.exit(main())
