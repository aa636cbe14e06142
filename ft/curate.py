"""What is the same prompt, what is nearly the same, and which split it belongs to for life.

Near-duplicates are found by MinHash over runs of four letters; a cluster is a chain of them. A hash of the cluster decides train,
validation or test, and a new prompt close to a known one goes where that one is, so that no retraining can eat its test set. Wording
is all it sees: two questions that mean the same in other words are not found. Must not know files, the database or the screens.
"""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ft.personal import KINDS, NOT_FOUND, Finding, find, mask

__all__ = ["KINDS", "NOT_FOUND", "Finding", "Known", "New", "Placed", "content_hash", "find", "mask", "near", "place", "split_of"]

SHARES = (("train", 0.8), ("validation", 0.1), ("test", 0.1))
STRICTNESS = {"test": 0, "validation": 1, "train": 2}  # the split that wins where nearly equal prompts name several
CLOSE = 0.6  # estimated Jaccard similarity from which two prompts are nearly the same
SHINGLE = 4
PERMUTATIONS = 128
BANDS = 32  # of 4: two prompts at CLOSE meet in 98.8 of 100 cases, at 0.7 in 99.98


@dataclass(frozen=True, slots=True)
class Known:
    """A prompt that already has its place."""

    text: str
    cluster: str
    split: str


@dataclass(frozen=True, slots=True)
class New:
    """A prompt to be placed. `split` is what its row or its import names, or None."""

    text: str
    hash: str
    split: str | None = None


@dataclass(frozen=True, slots=True)
class Placed:
    """`moved`: the prompt named another split, but one nearly equal to it is in this one."""

    cluster: str
    split: str
    moved: bool = False


def normal(text: str) -> str:
    """Unicode NFKC, case folded, white space collapsed."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def content_hash(instruction: str, context: str = "") -> str:
    """Identity of a prompt: equal for texts that differ only in case, white space or Unicode form. 32 hex digits."""
    return hashlib.sha256(f"{normal(instruction)}\n{normal(context)}".encode()).hexdigest()[:32]


def whole(instruction: str, context: str = "") -> str:
    """The text by which prompts are compared for nearness."""
    return f"{instruction} {context}" if context else instruction


def split_of(cluster: str) -> str:
    """train, validation or test, by hash: 80, 10 and 10 of 100 clusters, the same on every machine."""
    at = int(hashlib.sha256(f"split:{cluster}".encode()).hexdigest()[:12], 16) / 16**12
    for name, share in SHARES:
        if at < share:
            return name
        at -= share
    return SHARES[-1][0]


def _shingles(text: str) -> list[str]:
    text = normal(text)
    letters = re.sub(r"[\W_]+", " ", text).strip() or text
    return list({letters[i : i + SHINGLE] for i in range(max(1, len(letters) - SHINGLE + 1))})


class _Nearness:
    """MinHash signatures of at most `size` texts, kept as half a kilobyte each, and which of them are close to one more."""

    def __init__(self, size: int) -> None:
        from rensa import RMinHash, RMinHashLSH

        self._new_print = RMinHash
        self._index = RMinHashLSH(threshold=CLOSE, num_perm=PERMUTATIONS, num_bands=BANDS)
        self._digests = np.zeros((size, PERMUTATIONS), dtype=np.uint32)
        self._size = 0

    def _print(self, text: str) -> Any:
        made = self._new_print(num_perm=PERMUTATIONS, seed=7)
        made.update(_shingles(text))
        return made

    def _add(self, made: Any) -> None:
        self._index.insert(self._size, made)
        self._digests[self._size] = made.digest()
        self._size += 1

    def _close_to(self, made: Any) -> list[int]:
        candidates = sorted(self._index.query(made))
        if not candidates:
            return []
        alike = (self._digests[candidates] == np.asarray(made.digest(), dtype=np.uint32)).mean(axis=1)
        return [other for other, share in zip(candidates, alike, strict=True) if share >= CLOSE]

    def add(self, text: str) -> None:
        self._add(self._print(text))

    def close_to(self, text: str) -> list[int]:
        """Which of the texts added so far are close to this one, by the order in which they were added."""
        return self._close_to(self._print(text))

    def close_and_add(self, text: str) -> list[int]:
        made = self._print(text)
        close = self._close_to(made)
        self._add(made)
        return close


def near(texts: Sequence[str], known: Sequence[str]) -> set[int]:
    """Which of `texts` are nearly equal to any of `known`, by position."""
    nearness = _Nearness(len(known))
    for text in known:
        nearness.add(text)
    return {at for at, text in enumerate(texts) if nearness.close_to(text)}


def _chains(new: Sequence[New], known: Sequence[Known]) -> list[tuple[list[int], set[int]]]:
    """Groups of new prompts that are chained by nearness, each with the known prompts it touches."""
    nearness = _Nearness(len(known) + len(new))
    for prompt in known:
        nearness.add(prompt.text)
    parent = list(range(len(new)))

    def root(at: int) -> int:
        while parent[at] != at:
            parent[at] = at = parent[parent[at]]
        return at

    touched: dict[int, set[int]] = {}
    for at, fresh in enumerate(new):
        for other in nearness.close_and_add(fresh.text):
            if other < len(known):
                touched.setdefault(at, set()).add(other)
            else:
                first, second = sorted((root(at), root(other - len(known))))
                parent[second] = first
    groups: dict[int, tuple[list[int], set[int]]] = {}
    for at in range(len(new)):
        members, touches = groups.setdefault(root(at), ([], set()))
        members.append(at)
        touches |= touched.get(at, set())
    return list(groups.values())


def place(new: Sequence[New], known: Sequence[Known] = ()) -> list[Placed]:
    """Cluster and split of each new prompt.

    Nearly equal prompts share both. Known prompts keep theirs and pull new ones in; where a chain touches several, or names several splits,
    the strictest wins: test before validation before train.
    """
    placed: list[Placed] = [Placed("", "")] * len(new)
    for members, touches in _chains(new, known):
        named = [split for at in members if (split := new[at].split)]
        if touches:
            home = min((known[at] for at in touches), key=lambda prompt: (STRICTNESS[prompt.split], prompt.cluster))
            cluster, split = home.cluster, home.split
        else:
            cluster = new[members[0]].hash
            split = min(named, key=STRICTNESS.__getitem__) if named else split_of(cluster)
        for at in members:
            placed[at] = Placed(cluster, split, moved=new[at].split not in (None, split))
    return placed
