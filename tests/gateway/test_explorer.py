"""The explorer as it is served; test_explorer_browser.py looks at it in a browser."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from qnet_actors.gateway.explorer import PREFIX, load_assets, prefers_html
from qnet_actors.wire.codes import Code
from tests.gateway.fakes import check_problem, world

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
ASSETS = load_assets()
SCRIPTS = sorted(name for name in ASSETS if name.endswith(".js"))
PAGE = ASSETS["index.html"].content.decode()


class Links(HTMLParser):
    """What a page refers to, and what it has inline."""

    def __init__(self) -> None:
        super().__init__()
        self.files: list[str] = []
        self.inline: list[str] = []
        self._inside = ""

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag in ("script", "link", "img"):
            self.files.append(values.get("src") or values["href"])
        self.inline += [name for name in values if name == "style" or name.startswith("on")]
        self._inside = tag if tag in ("script", "style") else ""

    def handle_data(self, data):
        if self._inside and data.strip():
            self.inline.append(data)
        self._inside = ""


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        (BROWSER, True),
        ("text/html", True),
        ("TEXT/HTML ; q=0.5", True),
        ("text/*", True),
        ("application/json;q=0.2, text/html;q=0.9", True),
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("application/json, text/plain, */*", False),
        ("application/json, text/html", False),
        ("application/*, text/html;q=0.9", False),
        ("text/html;q=0", False),
        ("text/html;q=none", False),
        ("," * 1_000 + "text/html", False),
    ],
)
async def test_browsers_get_the_page_and_programs_the_index(accept, html):
    assert prefers_html(accept) == html
    async with world() as w:
        response = await w.http.get("/", headers={"accept": accept})
        assert response.status_code == 200
        assert response.headers["vary"] == "Accept"
        if html:
            assert response.headers["content-type"] == "text/html; charset=utf-8"
            assert response.text == PAGE
        else:
            assert response.headers["content-type"] == "application/json"
            assert response.json()["docs"] == "/docs"


async def test_the_page_may_load_and_call_only_its_own_origin():
    async with world() as w:
        response = await w.http.get("/", headers={"accept": BROWSER})
        directives = {
            name: sources
            for name, *sources in (
                part.split() for part in response.headers["content-security-policy"].split(";")
            )
        }
        assert directives["default-src"] == ["'none'"]
        for name in ("script-src", "style-src", "img-src", "connect-src"):
            assert directives[name] == ["'self'"]
        for name in ("base-uri", "form-action", "frame-ancestors", "trusted-types"):
            assert directives[name] == ["'none'"]
        assert directives["require-trusted-types-for"] == ["'script'"]
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("name", sorted(ASSETS.keys() - {"index.html"}))
async def test_a_file_is_served_once_and_then_only_confirmed(name):
    expected = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
    async with world() as w:
        url = f"{PREFIX}/{name}"
        response = await w.http.get(url)
        assert response.content == ASSETS[name].content
        assert response.headers["content-type"].startswith(expected[name.rpartition(".")[2]])
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-cache"
        etag = response.headers["etag"]
        for condition in (etag, f'"other", W/{etag}', "*"):
            again = await w.http.get(url, headers={"if-none-match": condition})
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["etag"] == etag
        assert (await w.http.get(url, headers={"if-none-match": '"other"'})).status_code == 200
        head = await w.http.head(url)
        assert head.headers["content-length"] == str(len(ASSETS[name].content))


async def test_the_etag_of_the_page_is_not_that_of_the_index():
    async with world() as w:
        page = await w.http.get("/", headers={"accept": BROWSER})
        condition = {"if-none-match": page.headers["etag"]}
        assert (await w.http.get("/", headers={"accept": BROWSER, **condition})).status_code == 304
        assert (await w.http.get("/", headers=condition)).status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/explorer/nothing.js", "/explorer/index.html", "/explorer/", "/explorer/%2e%2e/app.py"],
)
async def test_there_is_no_other_file(path):
    async with world() as w:
        check_problem(await w.http.get(path), Code.NOT_FOUND)


def test_the_page_refers_to_files_that_are_there_and_has_nothing_inline():
    links = Links()
    links.feed(PAGE)
    assert links.inline == []
    served = {f"{PREFIX}/{name}" for name in ASSETS}
    assert set(links.files) <= served
    # Every module is fetched at once, not one after the other as imports are met.
    assert {f"{PREFIX}/{name}" for name in SCRIPTS} <= set(links.files)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_imports_only_its_neighbours_and_writes_no_markup(name):
    source = ASSETS[name].content.decode()
    for target in re.findall(r'from "(.+?)"', source):
        assert target.removeprefix("./") in SCRIPTS
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", source
    )


def test_nothing_names_an_address_elsewhere():
    for name, asset in ASSETS.items():
        addresses = re.findall(r"(?:https?:|wss?:)?//[\w.-]+\.\w+\S*", asset.content.decode())
        namespaces = {"http://www.w3.org/2000/svg"}
        assert {address.rstrip('";>') for address in addresses} <= namespaces, name
