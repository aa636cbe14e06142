"""T12, T17 for live compare: before the vote nothing that is sent says which arm answers where; a reviewer reaches none of it."""

import json
import re
import time
from typing import Any

import pytest

from storage.tables import Arm
from tests.hostile.conftest import Site
from tests.hostile.site import Function, Visitor
from tests.hostile.test_blind import hits

pytestmark = pytest.mark.hostile
STYLES = {"live one": "You are terse.", "live other": "You are warm."}
LONGEST, HEAT = 32, 0


@pytest.fixture(scope="module")
def arms(site: Site) -> tuple[str, str]:
    """Two arms named by canaries, that answer differently."""
    with site.house.db.write() as session:
        session.add_all(
            Arm(name=site.canaries(name), kind="base", system_prompt=style, settings_hash=site.canaries(f"{name} settings"))
            for name, style in STYLES.items()
        )
    return site.canaries("live one"), site.canaries("live other")


def function(site: Site, ending: str, at: int = 0) -> Function:
    return [one for one in site.functions if one.mount == "/lab" and one.name.endswith(ending)][at]


def engineer(site: Site) -> Visitor:
    """Erik, with the Chat tab opened: its choices are known to his page from then on."""
    erik = site.visitor("Erik")
    for tab in (one for one in site.functions if one.mount == "/lab" and one.name.endswith("open_tab")):
        if any(getattr(part, "elem_id", "") == "blind-first" for part in site.blocks["/lab"].fns[tab.index].outputs):
            erik.act("/lab", tab.index, list(tab.given))
    return erik


def ask(site: Site, visitor: Visitor, arms: tuple[str, str], question: str = "My light is amber?") -> list[dict[str, Any]]:
    status, events = visitor.act("/lab", function(site, "ask_blind").index, [question, *arms, LONGEST, HEAT, None])
    assert status == 200
    assert events[-2]["msg"] == "process_completed", events
    assert events[-2]["success"], events
    return events


def panes(events: list[dict[str, Any]]) -> list[str]:
    """The answers as last shown, left then right, turn by turn."""
    return re.findall(r"<h3[^>]*>(?:Left|Right) answer[^<]*</h3><pre[^>]*>([^<]*)</pre>", json.dumps(events[-2]).replace('\\"', '"'))


def test_before_the_vote_no_byte_names_an_arm_and_the_vote_tells_both(site: Site, arms: tuple[str, str]) -> None:
    erik = engineer(site)
    time.sleep(0.5)  # the server ends the stream that brought the choices, which do name all arms
    site.recorder.replies.clear()
    site.recorder.on = True
    try:
        ask(site, erik, arms)
        events = ask(site, erik, arms, "And after that?")
    finally:
        site.recorder.on = False
    assert len(panes(events)) == 4, "both turns are shown, with both answers"
    assert len(set(panes(events)[:2])) == 2, "the arms answer differently"
    assert hits(site.recorder, site.canaries.words) == []
    _, told = erik.act("/lab", function(site, "vote_blind").index, [None, None])
    assert all(arm in str(told) for arm in arms)


def test_what_is_sent_is_the_same_whichever_arm_is_on_the_left(site: Site, arms: tuple[str, str]) -> None:
    traces: dict[str, set[str]] = {}
    for _ in range(12):
        erik = engineer(site)
        events = ask(site, erik, arms)
        left, right = panes(events)
        bare = json.dumps(events[-2]["output"]["data"]).replace(left, "LEFT").replace(right, "RIGHT")
        traces.setdefault(left, set()).add(bare)
    assert len(traces) == 2, "sides are drawn"
    one, other = traces.values()
    assert one == other
    assert len(one) == 1


def test_a_reviewer_reaches_no_part_of_it(site: Site, arms: tuple[str, str]) -> None:
    rita = site.visitor("Rita")
    for ending in ("ask_blind", "vote_blind", "start_over", "stop_blind"):
        with site.watching() as acted:
            status, _ = rita.act("/lab", function(site, ending).index, ["x", *arms, LONGEST, HEAT, None])
        assert status == 403
        assert acted == []
    assert not [one for one in site.functions if one.mount == "/review" and "blind" in one.name.rsplit(".", 1)[-1]]
    for path in ("/download/study?name=x", "/download/board?prompts=x", "/download/backups/x"):
        assert rita.get(path).status_code == 403


def test_downloads_are_for_their_roles_and_hold_the_study(site: Site) -> None:
    study = site.house.studies.studies()[0].name
    erik, sam = site.visitor("Erik"), site.visitor("Sam")
    for form, ending in (("study", "jsonl"), ("votes", "jsonl"), ("votes.csv", "csv")):
        reply = erik.http.get("/download/study", params={"name": study, "form": form})
        assert reply.status_code == 200
        assert re.fullmatch(rf'attachment; filename="[\w.-]+\.{ending}"', reply.headers["content-disposition"])
        assert site.canaries.words["arm"] in reply.text
        assert sam.http.get("/download/study", params={"name": study, "form": form}).status_code == 403
    board = sam.http.get("/download/board", params={"prompts": site.canaries.words["set"], "split": "test"})
    assert board.status_code == 200
    assert site.canaries.words["arm"] in board.text
    missing = erik.http.get("/download/study", params={"name": "../../etc/passwd"})
    assert missing.status_code == 404
    assert site.visitor().get("/download/study?name=x").status_code == 401
