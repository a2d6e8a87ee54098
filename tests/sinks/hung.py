"""The program on a disk that hangs: what a sink asks of its file never returns.

    CTI_HUNG=write python -m tests.sinks.hung ARGUMENTS

`CTI_HUNG` is `open`, or else `write`, with which closing hangs as well.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Final

from cti_listener.cli import main
from cti_listener.sinks.line_file import LineFile

_METHODS: Final = {"open": ("open",), "write": ("write", "close")}


def hang(*_: object) -> None:
    """Wait in the system, as for a server of files that does not answer; say so first."""
    os.write(2, b'{"event": "hangs"}\n')
    threading.Event().wait()


if __name__ == "__main__":
    for name in _METHODS[os.environ.pop("CTI_HUNG")]:
        setattr(LineFile, name, hang)
    sys.exit(main())
