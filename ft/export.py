"""`python -m ft.export FOLDER`: make one export and prove it, in a process of its own; `export.json` in the folder says how it ended.

Must not know the database or the screens.
"""

import contextlib
import errno
import json
import os
import sys
import traceback
from pathlib import Path

from ft.errors import UserError
from ft.journal import write_whole

ASKED, TOLD = "asked.json", "export.json"


def main(folder: Path) -> int:
    os.umask(0o077)
    os.nice(5)
    try:
        from ft.exporting import export

        asked = json.loads((folder / ASKED).read_bytes())
        told = export(
            asked, folder, lambda share, words: write_whole(folder / TOLD, {"state": "running", "share": share, "message": words})
        )
        write_whole(folder / TOLD, {"state": "finished", "share": 1.0, **told})
    except UserError as error:
        write_whole(folder / TOLD, {"state": "failed", "message": str(error)})
        return 1
    except BaseException as error:
        traceback.print_exc()
        with contextlib.suppress(OSError):  # no room even for that: who looks finds it lost
            write_whole(folder / TOLD, {"state": "failed", "message": why(error, folder)})
        return 1
    return 0


def why(error: BaseException, folder: Path) -> str:
    """What to tell people of an error that nobody foresaw."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "The machine ran out of memory. Close other programs, or export the adapter alone, then try again."
    full = isinstance(error, OSError) and error.errno in (errno.EFBIG, errno.ENOSPC, errno.EDQUOT)
    if full or "No space left" in str(error):  # safetensors has an error of its own
        return "The disk is full, so the export could not be written. Make room and try again."
    with contextlib.suppress(OSError, ValueError, KeyError):
        if not Path(json.loads((folder / ASKED).read_bytes())["adapter"]).is_dir():
            return "The adapter was removed while it was being exported, so there is nothing to give out."
    return f"The export stopped on an unexpected error ({type(error).__name__}). Its log has the details."


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
