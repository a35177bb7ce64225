"""Files that belong together take their places together, whatever stops the process on the way.

New files are written, and flushed to the disk, in a folder ``.graphprune-*`` beside their places. Then names change:

* A file without others is exchanged in one rename: the older one or the newer one is there, at any time.
* Of several, the main one (a model) is exchanged in one rename, too, and none of the older others lies beside the
  newer main one or the other way round: the older others are moved into the working folder before that rename, the
  newer ones take their places after it (or before it, where there is no older main file).
* Only where the main file reads another (its weights), the older pair is moved away first, because two names
  cannot change at once.

So a process that is killed leaves the older files or the newer ones, all of them, or some where it dies between two
renames; never some of both. What is missing is in its working folder: the next write into the same place undoes what
was begun, or ends it where the main file had been exchanged, and removes the folder (``settle``). After an exception
(Ctrl-C, a full disk) that happens at once.

A working folder belongs to a living process while that holds the lock on the file ``lock`` in it; the system lets
go of the lock when the process ends, however it ends. The lock is the first file made there and the last removed.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

if sys.platform != "win32":
    import fcntl

PREFIX = ".graphprune-"


def place_together(
    main: Path,
    write: Callable[[Path], None],
    *,
    weights: Path | None = None,
    others: Collection[Path] = (),
    gone: Collection[Path] = (),
) -> None:
    """Have ``write(folder)`` make files of these names in a folder, and move them to their places.

    All paths are in one folder. ``weights``: a file that ``main`` reads. ``gone``: files that go where they exist,
    because they belong to an older ``main``. What is in the way is replaced. Raises OSError, with everything as it
    was before.
    """
    folder = main.parent
    names: dict[str, Any] = {
        "main": main.name,
        "weights": weights.name if weights is not None else None,
        "others": [path.name for path in others],
        "gone": [path.name for path in gone],
    }
    settle(folder)
    with _working_folder(folder) as work:
        new = work / "new"
        new.mkdir()
        write(new)
        for name in _new_names(names):
            _flush(new / name)
        if len(_new_names(names)) > 1 or gone:
            names["written"] = _identity(new / main.name)
            _record(work, names)
        _exchange(work, names)


def settle(folder: Path) -> None:
    """End or undo what processes that died left in ``folder``, and remove their working folders."""
    for work in folder.glob(f"{PREFIX}*"):
        with suppress(OSError), _dead(work) as dead:
            if dead:
                _settle_one(work)
                _remove(work)


def reason(error: BaseException) -> str:
    """Why something was not written, in the system's words where it said any."""
    chain: BaseException | None = error
    while chain is not None:  # torch hides the system's error in one of its own
        if isinstance(chain, OSError) and chain.strerror:
            return chain.strerror
        chain = chain.__cause__ or chain.__context__
    if isinstance(error, OSError):  # numpy says how many numbers were written, and not why
        return f"{os.strerror(errno.ENOSPC)}, or another limit ({error})"
    return (str(error).splitlines() or [type(error).__name__])[0]


# -- the renames ----------------------------------------------------------------------------------------


def _exchange(work: Path, names: Mapping[str, Any]) -> None:
    folder, main = work.parent, names["main"]
    late = [*names["others"], *names["gone"]]
    if names["weights"] is not None:
        late = [main, names["weights"], *late]
    present = [name for name in late if os.path.lexists(folder / name)]
    if present:
        (work / "old").mkdir()
        for name in present:
            os.replace(folder / name, work / "old" / name)
        _flush(folder)
    if not os.path.lexists(folder / main):
        _place(work, _new_names(names)[1:])
        _flush(folder)
    os.replace(work / "new" / main, folder / main)
    _place(work, _new_names(names)[1:])
    _flush(folder)


def _settle_one(work: Path) -> None:
    """Undo an exchange that did not come to its main file; end one that did."""
    folder = work.parent
    try:
        names = json.loads((work / "names").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # nothing was moved yet
        return
    main = names["main"]
    if not os.path.lexists(work / "new" / main):
        with suppress(FileNotFoundError):
            if _identity(folder / main) == names["written"]:  # else somebody has replaced it since
                _place(work, [n for n in _new_names(names)[1:] if not os.path.lexists(folder / n)])
        return
    old = [n for n in (names["gone"] + _new_names(names)[::-1]) if os.path.lexists(work / "old" / n)]
    if main in old and os.path.lexists(folder / main):  # somebody has made one since
        return
    for name in _new_names(names)[1:]:
        if not os.path.lexists(work / "new" / name) and os.path.lexists(folder / name):
            os.replace(folder / name, work / "new" / name)
    for name in old:
        os.replace(work / "old" / name, folder / name)
    _flush(folder)


def _place(work: Path, names: Collection[str]) -> None:
    for name in names:
        if os.path.lexists(work / "new" / name):
            os.replace(work / "new" / name, work.parent / name)


def _new_names(names: Mapping[str, Any]) -> list[str]:
    """What is written, the main file first."""
    return [names["main"], *([names["weights"]] if names["weights"] is not None else []), *names["others"]]


def _record(work: Path, names: Mapping[str, Any]) -> None:
    """What is about to be exchanged, for whoever has to settle it."""
    written = work / "names.part"
    written.write_text(json.dumps(names), encoding="utf-8")
    _flush(written)
    os.replace(written, work / "names")
    for folder in (work / "new", work, work.parent):
        _flush(folder)


def _identity(path: Path) -> list[int]:
    """What tells a file from another that took its name, and maybe its freed inode."""
    found = path.stat()
    return [found.st_ino, found.st_size, found.st_mtime_ns]


def _flush(path: Path) -> None:
    """Have the disk hold a file, or the names in a folder, before anything that relies on it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():  # some systems: files only
            raise
    finally:
        os.close(handle)


# -- working folders and their owners -----------------------------------------------------------------------


@contextmanager
def _working_folder(parent: Path) -> Iterator[Path]:
    work, handle = _locked_folder(parent)
    try:
        try:
            yield work
        except BaseException:
            _settle_one(work)  # where that fails, too, the folder stays: older files may be in it
            _remove(work)
            raise
        _remove(work)
    finally:
        os.close(handle)


def _locked_folder(parent: Path) -> tuple[Path, int]:
    """A new folder, and the handle that holds its lock."""
    while True:
        work = Path(tempfile.mkdtemp(dir=parent, prefix=PREFIX))
        try:
            handle = os.open(work / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:  # somebody took it for a dead one's
            continue
        except OSError:
            work.rmdir()
            raise
        _lock(handle)
        with suppress(FileNotFoundError):  # as above
            if os.stat(work / "lock").st_ino == os.fstat(handle).st_ino:
                return work, handle
        os.close(handle)


@contextmanager
def _dead(work: Path) -> Iterator[bool]:
    """Whether the owner of a working folder is gone; its lock is held meanwhile. Raises OSError."""
    try:
        handle = os.open(work / "lock", os.O_RDWR)
    except FileNotFoundError:
        yield next(work.iterdir(), None) is None
        return
    try:
        yield _lock(handle, wait=False)
    finally:
        os.close(handle)


def _remove(work: Path) -> None:
    for part in ("new", "old"):
        shutil.rmtree(work / part, ignore_errors=True)
    with suppress(OSError):
        for part in ("names", "names.part", "lock"):
            (work / part).unlink(missing_ok=True)
        work.rmdir()


def _lock(handle: int, *, wait: bool = True) -> bool:
    """Whether the lock was free, or came free; False also where the file system has none."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True
