"""What is the same prompt, what is nearly the same, and which split it belongs to for life.

Near-duplicates are found by MinHash over runs of four letters; a cluster is a chain of them. A hash of the cluster decides train,
validation or test, and a new prompt close to a known one goes where that one is, so that no retraining can eat its test set. Wording
is all it sees: two questions that mean the same in other words are not found. Must not know files, the database or the screens.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

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
    """MinHash signatures of texts, and which of them are close to one."""

    def __init__(self, texts: Iterable[str]) -> None:
        import numpy as np
        from rensa import RMinHash, RMinHashLSH

        self.prints: list[Any] = []
        self.index = RMinHashLSH(threshold=CLOSE, num_perm=PERMUTATIONS, num_bands=BANDS)
        digests = []
        for key, text in enumerate(texts):
            print_ = RMinHash(num_perm=PERMUTATIONS, seed=7)
            print_.update(_shingles(text))
            self.index.insert(key, print_)
            self.prints.append(print_)
            digests.append(np.asarray(print_.digest(), dtype=np.uint32))
        self.digests = np.stack(digests) if digests else np.zeros((0, PERMUTATIONS), dtype=np.uint32)

    def close_to(self, key: int) -> list[int]:
        candidates = sorted(self.index.query(self.prints[key]))
        alike = (self.digests[candidates] == self.digests[key]).mean(axis=1)
        return [other for other, share in zip(candidates, alike, strict=True) if share >= CLOSE and other != key]


def near(texts: Sequence[str], known: Sequence[str]) -> set[int]:
    """Which of `texts` are nearly equal to any of `known`, by position."""
    nearness = _Nearness([*texts, *known])
    return {key for key in range(len(texts)) if any(other >= len(texts) for other in nearness.close_to(key))}


def _chains(new: Sequence[New], known: Sequence[Known]) -> list[tuple[list[int], set[int]]]:
    """Groups of new prompts that are chained by nearness, each with the known prompts it touches."""
    nearness = _Nearness([*(prompt.text for prompt in new), *(prompt.text for prompt in known)])
    parent = list(range(len(new)))

    def root(at: int) -> int:
        while parent[at] != at:
            parent[at] = at = parent[parent[at]]
        return at

    touched: dict[int, set[int]] = {}
    for key in range(len(new)):
        for other in nearness.close_to(key):
            if other < len(new):
                first, second = sorted((root(key), root(other)))
                parent[second] = first
            else:
                touched.setdefault(key, set()).add(other - len(new))
    groups: dict[int, tuple[list[int], set[int]]] = {}
    for key in range(len(new)):
        members, touches = groups.setdefault(root(key), ([], set()))
        members.append(key)
        touches |= touched.get(key, set())
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
