"""`python -m ft.export FOLDER`: make one export and prove it, in a process of its own; `export.json` in the folder says how it ended.

Must not know the database or the screens.
"""

import contextlib
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
        words = f"The export stopped on an unexpected error ({type(error).__name__}). Its log has the details."
        if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):
            words = "The machine ran out of memory. Close other programs, or export the adapter alone, then try again."
        elif isinstance(error, OSError) and error.errno in (27, 28, 122):
            words = "The disk is full, so the export could not be written. Make room and try again."
        with contextlib.suppress(OSError):  # no room even for that: who looks finds it lost
            write_whole(folder / TOLD, {"state": "failed", "message": words})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
