"""T12: of all bytes a reviewer's browser receives before the vote, none says which arm, adapter, path, set or job is behind an answer."""

import base64
import gzip
import json
import urllib.parse
import zlib
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import brotli
import gradio as gr
import pytest

from tests.hostile import stock
from tests.hostile.conftest import Site
from tests.hostile.site import Recorder, served

pytestmark = [pytest.mark.hostile, pytest.mark.browser]
CLOCKS = ("duration", "average_duration", "eta", "rank_eta", "avg_time")


def forms_of(word: str) -> set[bytes]:
    """The ways a word may be written down: raw, reversed, hex, URL, and base64 at each of its three alignments."""
    raw = word.encode()
    forms = {raw, raw[::-1], raw.hex().encode(), raw.upper(), urllib.parse.quote(word, safe="").encode()}
    forms.add("".join(f"%{byte:02x}" for byte in raw).encode())
    forms.add("".join(f"\\u{byte:04x}" for byte in raw).encode())
    for lead in range(3):
        whole = base64.b64encode(b"\0" * lead + raw)
        inner = whole[(0, 2, 3)[lead] : -4]
        forms |= {inner, inner.replace(b"+", b"-").replace(b"/", b"_")}
    return forms


def unpacked(headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bytes:
    """The body as the browser sees it, and once more unzipped where something zipped lies inside."""
    encoding = next((v for n, v in headers if n.lower() == b"content-encoding"), b"")
    if encoding == b"br":
        body = brotli.decompress(body)
    elif encoding == b"gzip":
        body = gzip.decompress(body)
    start, inside = 0, b""
    while (start := body.find(b"\x1f\x8b\x08", start)) >= 0:
        with suppress(zlib.error):
            inside += zlib.decompressobj(31).decompress(body[start:])
        start += 3
    return body + inside


def told(recorder: Recorder) -> bytes:
    """Every byte of every reply, headers first."""
    parts = []
    for path, headers, body in recorder.replies:
        parts.append(path.encode() + b"\n" + b"\n".join(n + b": " + v for n, v in headers) + b"\n\n" + unpacked(headers, body))
    return b"\n".join(parts)


def hits(recorder: Recorder, words: dict[str, str]) -> list[str]:
    everything = told(recorder)
    return [what for what, word in words.items() for form in forms_of(word) if form in everything]


def test_no_canary_reaches_the_browser_before_the_vote(site: Site, browser: Any) -> None:
    site.recorder.replies.clear()
    site.recorder.on = True
    context = browser.new_context(base_url=site.base)
    try:
        page = context.new_page()
        page.goto(f"/login/{site.house.people.link('Rita')}")
        page.click("main button")
        page.wait_for_selector("[data-pair]")
        for other in ("/boards", "/lab", "/admin", "/lab/gradio_api/info", "/review/config", "/ready", "/nothing"):
            page.goto(other)
        page.goto("/review")
        page.wait_for_selector("[data-pair]")
        page.keyboard.press("?")
        page.wait_for_timeout(500)
    finally:
        context.close()
        site.recorder.on = False
    assert b"Plug it in" in told(site.recorder), "the answers themselves were recorded"
    assert b"Reset it now" in told(site.recorder)
    assert len(site.canaries.words) >= 15
    assert hits(site.recorder, site.canaries.words) == []


def test_the_words_about_the_model_are_not_for_reviewers(site: Site) -> None:
    told = {name: site.visitor(name).get("/ready").json() for name in ("Rita", "Sam", None, "Erik")}
    assert [name for name, reply in told.items() if "message" in reply] == ["Erik"]
    assert told["Rita"]["state"] == "ready"


def test_no_reply_of_the_review_part_holds_a_clock(site: Site) -> None:
    """T14's door: how long a function took, or is expected to take, is not told."""
    rita = site.visitor("Rita")
    seen = 0
    for function in [f for f in site.functions if f.mount == "/review" and (f.name.endswith("begin") or not f.inputs)]:
        status, events = rita.act("/review", function.index, [{}] * function.inputs)
        assert status == 200
        direct = rita.post("/review/gradio_api/run/predict", rita.payload(function.index, [{}] * function.inputs))
        for message in [*events, *([direct.json()] if direct.status_code == 200 else [])]:
            for part in (message, message.get("output")):
                clocks = {key: part[key] for key in CLOCKS if key in part} if isinstance(part, dict) and "error" not in part else {}
                assert not any(clocks.values()), message
                seen += len(clocks)
    assert seen, "there were clocks to stop"


def test_the_same_reply_is_the_same_bytes_whoever_is_on_the_left(site: Site) -> None:
    """Without the answers' texts, the assignment's id and the person's own progress, two pairs leave the same trace."""
    from review.protocol.ballots import BlindPair
    from review.screens.review.scene import pair_scene

    base, tuned = "Plug it in, 1.", "Reset it now, 1."
    sent = (json.dumps(pair_scene(BlindPair("id", "prompt", left, right, 0, 6, 60))) for left, right in ((base, tuned), (tuned, base)))
    one, other = sent
    assert one.replace(base, "A").replace(tuned, "B") == other.replace(tuned, "A").replace(base, "B")


def traces(house: Any, turns: int) -> dict[str, list[str]]:
    """Kind of pair -> what its page is told, less the texts, the random id and the reviewer's own progress."""
    from dataclasses import replace

    from review.protocol.ballots import Ballot
    from review.screens.review.scene import scene_of
    from storage.tables import Assignment

    me, seen = house.reviewers[0], {}
    found = house.comparisons.next_pair(me)
    for _ in range(turns):
        house.clock.time += 20
        house.comparisons.vote(me, Ballot(found.assignment, "left", key=found.assignment))
        bare = replace(found, assignment="", prompt="", left="", right="", done=0, seconds_left=0, session_done=0, session_total=0)
        with house.db.session() as session:
            kind = session.get(Assignment, found.assignment).kind
        seen.setdefault(kind, []).append(json.dumps(scene_of(bare)))
        found = house.comparisons.ahead(me, found.assignment)
    return seen


def test_repeats_and_plain_pairs_leave_the_trace_of_every_other_pair(db: Any) -> None:
    from tests.topical import topical

    seen = traces(topical(db, prompts=60, reviewers=1, tags=(), criteria=["accuracy"]), 40)
    assert set(seen) == {"real", "repeat", "gold"}
    assert len({trace for kind in seen.values() for trace in kind}) == 1


def test_what_crosses_the_wire_has_no_field_for_a_kind_an_arm_or_a_subject() -> None:
    from dataclasses import fields

    from review.protocol.ballots import BlindPair, Receipt

    told = "assignment prompt left right done total seconds_left criteria scale reasons session_done session_total reveals"
    assert {f.name for f in fields(BlindPair)} == set(told.split())
    assert {f.name for f in fields(Receipt)} == {"id", "assignment", "revision", "asks"}


class TestControl:
    def test_the_search_finds_what_a_stock_page_gives_away(self) -> None:
        """A hidden value, a state of a function and a choice are all in the page or in /config."""
        with gr.Blocks() as blocks:
            gr.Textbox("kanari-hidden", visible=False)
            gr.Dropdown(["left", "kanari-choice"], visible=False)
        recorder = Recorder(stock.mounted(blocks))
        with served(recorder) as base:
            import httpx

            recorder.on = True
            httpx.get(f"{base}/app/")
        assert set(hits(recorder, {"hidden": "kanari-hidden", "choice": "kanari-choice"})) == {"hidden", "choice"}

    @pytest.mark.parametrize(
        "pack",
        [
            bytes,
            base64.b64encode,
            gzip.compress,
            lambda raw: urllib.parse.quote(raw).encode(),
            lambda raw: base64.b64encode(b"x" + raw),
            lambda raw: json.dumps({"a": raw.hex()}).encode(),
        ],
    )
    def test_the_search_sees_through_packing(self, pack: Any) -> None:
        recorder = Recorder(None)
        recorder.replies.append(("/", [], b"....." + pack(b"-- kanari0123456789 --") + b"....."))
        assert hits(recorder, {"it": "kanari0123456789"})

    def test_stock_messages_hold_clocks(self) -> None:
        from tests.hostile.site import Visitor

        with stock.stock(stock.echo()) as base:
            _, events = Visitor(base).act("/app", stock.SLOW, [])
            assert any(e["output"].get("duration") for e in events if e["msg"] == "process_completed")
