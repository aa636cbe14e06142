"""The blind screen, where reviewers judge pairs: its Blocks, what stands on it, what it sends and what is sent to it."""

from review.screens.review.room import build

__all__ = ["build"]
