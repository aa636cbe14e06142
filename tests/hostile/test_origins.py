"""T11: other sites can neither act as a signed-in person, nor read anything, nor put the app in a frame."""

import pytest

from tests.hostile import stock
from tests.hostile.conftest import Site
from tests.hostile.site import Visitor

pytestmark = pytest.mark.hostile
FOREIGN = ("https://evil.example", "null", "http://127.0.0.1:1", "http://localhost", "https://127.0.0.1", "http://127.0.0.1.evil.example")


@pytest.mark.parametrize("origin", FOREIGN)
def test_nothing_is_changed_or_told_for_another_origin(site: Site, origin: str) -> None:
    visitor = site.visitor("Erik")
    with site.watching() as acted:
        for method, path in [
            ("POST", "/lab/gradio_api/queue/join"),
            ("POST", "/lab/gradio_api/run/predict"),
            ("POST", "/logout"),
            ("POST", "/login"),
            ("POST", "/login/x"),
            ("POST", "/lab/gradio_api/upload"),
            ("GET", "/lab/"),
            ("GET", "/boards/"),
            ("OPTIONS", "/lab/gradio_api/queue/join"),
            ("GET", "/health"),
        ]:
            for host in (None, "tiebreak.example"):
                headers = {"origin": origin} | ({"host": host} if host else {})
                body = visitor.payload(0, []) if method == "POST" else None
                reply = visitor.http.request(method, path, json=body, headers=headers)
                assert reply.status_code == 403, (method, path, host, reply.status_code)
                assert not [name for name in reply.headers if name.startswith("access-control")]
    assert acted == []
    assert visitor.get("/lab/").status_code == 200, "the session is still there"


def test_a_change_needs_an_origin(site: Site) -> None:
    visitor = site.visitor("Erik")
    assert visitor.http.post("/logout").status_code == 403
    assert visitor.http.post("/lab/gradio_api/queue/join", json=visitor.payload(0, [])).status_code == 403


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "127.0.0.1", "localhost:1", "", "127.0.0.1:80:80", "a b"])
def test_another_host_name_is_not_answered(site: Site, host: str) -> None:
    """A rebound DNS name gets nothing, not even a sign-in page."""
    reply = site.visitor("Erik").get("/login", host=host)
    assert reply.status_code in (400, 403)


def test_claims_of_a_proxy_change_nothing(site: Site) -> None:
    reply = site.visitor("Erik").get(
        "/lab/", **{"x-forwarded-host": "evil.example", "x-forwarded-proto": "https", "x-gradio-server": "http://evil.example"}
    )
    assert reply.status_code == 200
    assert "evil.example" not in reply.text


def test_a_session_starts_only_by_a_deliberate_post(site: Site) -> None:
    """Looking at a link, as mail scanners do, neither signs in nor uses it up; signing in replaces the session that was there."""
    visitor = site.visitor()
    token = site.house.people.link("Sam")
    for method in ("GET", "HEAD", "GET"):
        reply = visitor.http.request(method, f"/login/{token}")
        assert reply.status_code in (200, 405)
        assert "set-cookie" not in reply.headers
    assert visitor.post(f"/login/{token}").status_code == 303
    first = dict(visitor.http.cookies)
    assert visitor.post(f"/login/{token}").status_code == 404
    assert visitor.post(f"/login/{site.house.people.link('Sam')}").status_code == 303
    second = dict(visitor.http.cookies)
    assert first != second
    assert Visitor(site.base, cookies=first).get("/boards/", accept="*/*").status_code == 401


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(site: Site) -> None:
    reply = site.visitor().post(f"/login/{site.house.people.link('Sam')}")
    attributes = reply.headers["set-cookie"].lower()
    for wanted in ("httponly", "samesite=strict", "path=/"):
        assert wanted in attributes


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (None, "/login"),
        (None, "/static/look.css"),
        ("Rita", "/review/"),
        ("Erik", "/lab/"),
        ("Ada", "/admin/"),
        ("Rita", "/lab/"),
        ("Rita", "/nothing"),
        (None, "/review/"),
    ],
)
def test_every_reply_carries_the_headers(site: Site, name: str | None, path: str) -> None:
    reply = site.visitor(name).get(path, accept="text/html")
    policy = reply.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy
    assert "default-src 'none'" in policy
    assert "'unsafe-inline'" not in policy.split("style-src")[0]
    assert "http" not in policy.replace("https:", "")
    assert "*" not in policy
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["x-frame-options"] == "DENY"
    assert reply.headers["referrer-policy"] == "same-origin"
    if not path.startswith("/static"):
        assert reply.headers["cache-control"] == "no-store"


def test_other_sites_cannot_embed_anything(site: Site) -> None:
    visitor = site.visitor("Erik")
    for fetch in ({"sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}, {"sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}):
        assert visitor.get("/lab/", **{"sec-fetch-site": "cross-site", **fetch}).status_code == 403


def test_a_link_from_a_chat_finds_the_session_of_this_browser(site: Site) -> None:
    """A strict cookie is not sent with a click on another site; the page then asks once more from here."""
    arrival = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document", "accept": "text/html"}
    reply = site.visitor().get("/review/", **arrival)
    assert (reply.status_code, reply.headers.get("refresh"), reply.text) == (200, "0", "")
    assert site.visitor().get("/review/", **(arrival | {"sec-fetch-site": "same-origin"})).headers["location"] == "/login"


class TestControl:
    def test_stock_reflects_any_origin_and_may_be_framed(self) -> None:
        with stock.stock(stock.echo(), who=lambda request: "anybody") as base:
            visitor = Visitor(base)
            reply = visitor.get("/app/", origin="https://evil.example", host="tiebreak.example")
            assert reply.headers["access-control-allow-origin"] == "https://evil.example"
            assert reply.headers["access-control-allow-credentials"] == "true"
            assert "content-security-policy" not in reply.headers
            assert "x-frame-options" not in reply.headers
            joined = visitor.http.post(
                "/app/gradio_api/queue/join",
                json=visitor.payload(stock.TEXT, ["x"]),
                headers={"origin": "https://evil.example", "host": "tiebreak.example"},
            )
            assert joined.status_code == 200
