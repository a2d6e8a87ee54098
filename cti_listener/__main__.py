"""`python -m cti_listener` is `cti-listen`."""

import sys

from cti_listener.cli import main

if __name__ == "__main__":
    sys.exit(main())
