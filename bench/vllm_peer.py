"""vLLM answering many prompts at once, each by the base or by an adapter: run by a Python that has vLLM, and knows nothing else.

Reads one JSON object from standard input; among what vLLM prints is then a line `{"seconds": ...}`, without start and warm-up.
"""

import json
import sys
import time


def main() -> None:
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    job = json.load(sys.stdin)
    engine = LLM(
        job["folder"], enable_lora=True, max_lora_rank=16, max_loras=2, max_model_len=1024, dtype=job["dtype"],
        max_num_seqs=len(job["asked"]), enable_prefix_caching=False,
    )  # fmt: skip
    adapter = LoRARequest("demo", 1, job["adapter"])
    chats = [[{"role": role, "content": text} for role, text in row["messages"]] for row in job["asked"]]
    exactly = [SamplingParams(temperature=0, max_tokens=row["tokens"], min_tokens=row["tokens"], ignore_eos=True) for row in job["asked"]]
    arms = [None if row["base"] else adapter for row in job["asked"]]
    engine.chat(chats[:4], exactly[:4], lora_request=arms[:4], use_tqdm=False)
    best = float("inf")
    for _ in range(2):
        begun = time.perf_counter()
        done = engine.chat(chats, exactly, lora_request=arms, use_tqdm=False)
        best = min(best, time.perf_counter() - begun)
    written = [len(one.outputs[0].token_ids) for one in done]
    if written != [row["tokens"] for row in job["asked"]]:
        raise SystemExit(f"vLLM wrote {sum(written)} tokens, not what was asked")
    print(json.dumps({"seconds": best}), flush=True)


if __name__ == "__main__":
    main()
