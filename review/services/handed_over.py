"""What a browser uploaded, as one thing to vet: a zip as it is, or the files of a folder laid side by side again.

Only what vetting reads is kept; of the rest only the names. Must not know screens, or what an adapter is allowed to be.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ft.errors import BadInput, Unavailable
from ft.parcels import CARD, CONFIG, MAX_MEMBERS, WEIGHTS

READ = (CONFIG, WEIGHTS, CARD)
LAID_OUT = "The upload"  # named in what is said of it


@contextmanager
def as_one(paths: Sequence[str | Path], room: Path) -> Iterator[Path]:
    """The path to vet while the block runs; `room` is a folder on the same disk. Raises BadInput for no file or two adapters at once."""
    files = [Path(path) for path in paths]
    if not files:
        raise BadInput("No file is chosen. Drop a zip, or the files of an adapter folder, on the field first.")
    if len(files) == 1 and files[0].name not in READ:
        yield files[0]
        return
    names = [path.name for path in files]
    if any(names.count(name) > 1 for name in (CONFIG, WEIGHTS)):
        raise BadInput("The upload holds more than one adapter. Give one folder, such as the last checkpoint's.")
    if len(files) > MAX_MEMBERS or sum(path.suffix.lower() == ".zip" for path in files) > 1:
        raise BadInput("That are too many files for one adapter. Give one folder, or one zip.")
    try:
        with tempfile.TemporaryDirectory(prefix=".upload-", dir=room) as work:
            yield _laid_out(files, Path(work) / LAID_OUT)
    except OSError as error:
        raise Unavailable(f"The upload could not be read ({error.strerror or error}). Check the disk and try again.") from error


def _laid_out(files: Sequence[Path], folder: Path) -> Path:
    folder.mkdir()
    for path in files:
        target = folder / path.name
        if path.name not in READ:
            target.touch()
            continue
        try:
            os.link(path, target)
        except OSError:
            shutil.copyfile(path, target)
    return folder
