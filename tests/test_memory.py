"""What memory there is: the machine's, or what a container is allowed."""

import subprocess
import sys
from pathlib import Path

import pytest

from ft import memory
from ft.memory import Memory, give_back, limits
from tests.conftest import ROOT

MB = 2**20


def group(folder: Path, limit: str, used: int, files: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon {used - files}\nfile {files}\ninactive_file {files}\n")


def test_a_containers_limit_counts_less_what_is_used_but_for_the_cache_of_files(tmp_path: Path) -> None:
    group(tmp_path / "groups", str(2048 * MB), 1500 * MB, 400 * MB)
    (tmp_path / "own").write_text("0::/\n")
    assert limits(tmp_path / "groups", tmp_path / "own") == [(2048 * MB, 948 * MB)]


def test_the_groups_around_count_too_and_those_without_a_limit_do_not(tmp_path: Path) -> None:
    groups = tmp_path / "groups"
    group(groups / "app.slice" / "tiebreak.service", "max", 300 * MB, 0)
    group(groups / "app.slice", str(1000 * MB), 600 * MB, 0)
    (tmp_path / "own").write_text("0::/app.slice/tiebreak.service\n")
    assert limits(groups, tmp_path / "own") == [(1000 * MB, 400 * MB)]


def test_the_older_kind_of_groups_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "groups" / "memory"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text(str(800 * MB))
    (folder / "memory.usage_in_bytes").write_text(str(500 * MB))
    (folder / "memory.stat").write_text(f"total_inactive_file {100 * MB}\n")
    (tmp_path / "own").write_text("5:cpu,cpuacct:/docker/1\n4:memory:/docker/1\n")
    assert limits(tmp_path / "groups", tmp_path / "own") == [(800 * MB, 400 * MB)]


@pytest.mark.parametrize("text", ["", "nonsense", "0::/gone\n"])
def test_where_nothing_is_limited_the_machine_counts(tmp_path: Path, text: str) -> None:
    (tmp_path / "own").write_text(text)
    assert limits(tmp_path / "groups", tmp_path / "own") == []
    assert limits(tmp_path / "groups", tmp_path / "absent") == []


def test_free_and_total_are_the_tightest_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Memory("cpu")
    assert 0 < whole.free() <= whole.total()
    monkeypatch.setattr(memory, "limits", lambda: [(64 * MB, 16 * MB), (128 * MB, -5)])
    assert (whole.total(), whole.free()) == (64 * MB, 0)


def test_giving_back_harms_nothing() -> None:
    give_back()
    assert Memory("cpu").held() > 0


@pytest.mark.skipif(sys.platform != "linux", reason="the GNU C library's heaps")
def test_threads_share_two_heaps_of_the_c_library() -> None:
    """malloc_info names each heap there is."""
    code = """
import ctypes, os, sys, tempfile, threading
from ft.memory import few_arenas
if len(sys.argv) > 1:
    few_arenas()
libc, gate = ctypes.CDLL(None), threading.Barrier(9)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
def use():
    libc.malloc(1000)
    gate.wait()
for _ in range(8):
    threading.Thread(target=use).start()
gate.wait()
libc.fopen.restype, libc.fopen.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_char_p]
libc.malloc_info.argtypes, libc.fclose.argtypes = [ctypes.c_int, ctypes.c_void_p], [ctypes.c_void_p]
with tempfile.NamedTemporaryFile() as told:
    out = libc.fopen(told.name.encode(), b"w")
    libc.malloc_info(0, out)
    libc.fclose(out)
    print(open(told.name).read().count("<heap "))
"""

    def heaps(*given: str) -> int:
        return int(subprocess.run([sys.executable, "-c", code, *given], check=True, capture_output=True, text=True, cwd=ROOT).stdout)

    assert heaps() > 2, "the control: each thread has a heap of its own"
    assert heaps("few") <= 2
