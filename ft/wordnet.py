"""WordNet for METEOR's synonyms: from $WNSEARCHDIR, from Debian's package `wordnet-base` or from NLTK's data.

Must not know metrics, the database or the screens. Safe to call from several threads.
"""

import io
import os
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

from ft.errors import Unavailable

DEBIAN = Path("/usr/share/wordnet")
MISSING = (
    "METEOR needs the dictionary WordNet, which is not on this machine. Install it with `apt install wordnet-base`, "
    "or `python -m nltk.downloader wordnet`."
)
_NOUNS = "Tops act animal artifact attribute body cognition communication event feeling food group location motive object person"
_NOUNS += " phenomenon plant possession process quantity relation shape state substance time"
_VERBS = "body change cognition communication competition consumption contact creation emotion motion perception possession social"
_VERBS += " stative weather"
_LEXNAMES = [
    *(("adj.all", 3), ("adj.pert", 3), ("adv.all", 4)),
    *((f"noun.{name}", 1) for name in _NOUNS.split()),
    *((f"verb.{name}", 2) for name in _VERBS.split()),
    ("adj.ppl", 3),
]


class WordNet:
    """What NLTK's METEOR asks of a WordNet: `synsets(word)`. `version` is that of the dictionary, such as 3.0."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self._lock = threading.Lock()
        self.version = str(reader.get_version())
        self.synsets = lru_cache(maxsize=100_000)(self._look_up)

    def _look_up(self, word: str) -> Any:
        with self._lock:  # the reader seeks in files that all threads share
            return self._reader.synsets(word)


def _bare_reader(folder: Path) -> Any:
    """A folder of the dictionary files alone, without NLTK's `lexnames` and `index.sense`."""
    import warnings

    import nltk.data
    from nltk.corpus.reader import WordNetCorpusReader

    class Bare(WordNetCorpusReader):  # type: ignore[misc]
        def open(self, file: str) -> Any:
            if file == "lexnames":
                return io.StringIO("".join(f"{i:02}\t{name}\t{part}\n" for i, (name, part) in enumerate(_LEXNAMES)))
            return super().open(file)

        def map_wn(self, version: str = "wordnet") -> None:
            """Only other languages need the map between versions, and it is made from `index.sense`."""

    if str(folder) not in nltk.data.path:
        nltk.data.path.append(str(folder))  # NLTK opens no file outside the folders it was told of
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Bare(str(folder), None)


def _nltk_reader() -> Any | None:
    import nltk.data
    from nltk.corpus import wordnet

    for name in ("corpora/wordnet", "corpora/wordnet.zip"):
        try:
            nltk.data.find(name)
        except LookupError:
            continue
        wordnet.ensure_loaded()
        return wordnet
    return None


def _folders() -> list[Path]:
    named = os.environ.get("WNSEARCHDIR")
    return [Path(named)] if named else [DEBIAN]


@lru_cache(maxsize=1)
def _found(folders: tuple[Path, ...]) -> WordNet | None:
    folder = next((folder for folder in folders if (folder / "data.noun").is_file()), None)
    reader = _bare_reader(folder) if folder else _nltk_reader()
    return WordNet(reader) if reader is not None else None


_loading = threading.Lock()


def find() -> WordNet | None:
    """The dictionary, or None where this machine has none. Loads once, in about 2 s."""
    with _loading:
        return _found(tuple(_folders()))


def load() -> WordNet:
    """The dictionary. Raises Unavailable, saying how to install it."""
    found = find()
    if found is None:
        raise Unavailable(MISSING)
    return found
