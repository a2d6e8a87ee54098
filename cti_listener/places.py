"""Places for files: whether one could be written there, without making or changing anything."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Final

_AS_WE_ARE: Final = bool(os.supports_effective_ids)  # it is of os.access alone


def see_writable(path: Path) -> None:
    """See whether a file can be read and written, or made if it is not there.

    Raises:
        OSError: As the system would, if it were tried.
    """
    real = Path(os.path.realpath(path))  # a link that leads nowhere yet is followed too
    if real.exists():
        _see_rights(real, os.R_OK | os.W_OK)
    else:
        see_makeable(real)


def see_makeable(path: Path) -> None:
    """See whether a file can be made under a name, or put in the place of what has it.

    Raises:
        OSError: As the system would, if it were tried.
    """
    with contextlib.suppress(FileNotFoundError):
        path.lstat()  # tells of a name that is too long, which a missing file's may be as well
    _see_rights(path.absolute().parent, os.W_OK | os.X_OK)


def _see_rights(path: Path, rights: int) -> None:
    if not os.access(path, rights, effective_ids=_AS_WE_ARE):
        read_only = os.statvfs(path).f_flag & os.ST_RDONLY
        code = errno.EROFS if read_only else errno.EACCES
        raise OSError(code, os.strerror(code), str(path))
