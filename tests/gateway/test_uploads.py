"""The page for uploads, of the real service: one file, once, with the link alone, and nothing for strangers."""

from __future__ import annotations

import re
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from opencode_common.uploads import Uploads
from support.fleet.pictures import HEIC, PNG, png
from support.gateway.browser import CONTRASTS, PHONE, chromium, fits, screenshot
from support.gateway.public_gateway import PublicGateway
from support.gateway.service import Gateway, fixture_entry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PublicGateway]:
    """The product with the real server behind it, and Caddy with the role's limits in front."""
    registry = tmp_path_factory.mktemp("registry")
    registry.chmod(0o700)
    with PublicGateway(tmp_path_factory.mktemp("served"), registry) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def phone(served: PublicGateway) -> Iterator[httpx.Client]:
    """A browser on the person's phone, which is logged in nowhere."""
    with httpx.Client(base_url=served.front_url, verify=served.trust(), trust_env=False, timeout=60.0) as client:
        yield client


@pytest.fixture
def places(served: PublicGateway) -> Uploads:
    """The places that the server behind the gateway opens."""
    return Uploads(served.config.parent / "data" / "uploads")


def path(secret: str) -> str:
    return f"/upload/{secret}"


def sent(phone: httpx.Client, secret: str, content: bytes, name: str = "shot.png") -> httpx.Response:
    return phone.post(path(secret), files={"file": (name, content, "application/x-evil")})


async def test_a_call_gives_a_link_whose_file_is_that_login_s(served: PublicGateway, places: Uploads) -> None:
    (token,) = await served.sign_in(["ann"])
    async with served.client(token) as client:
        asked = await client.call("send", instance="laptop", message="look", files=["upload"])
    link = str(asked.structured["text"])
    assert re.fullmatch(rf"{re.escape(served.front_url)}/upload/[\w-]{{43}}", link), asked.text
    async with httpx.AsyncClient(verify=served.trust(), trust_env=False, timeout=60.0) as http:
        assert "for ann." in (await http.get(link)).text
        answer = await http.post(link, files={"file": ("shot.png", PNG, "image/png")})
    assert answer.status_code == 200, answer.text
    line = next(line for line in reversed(served.audit()) if line["event"] == "upload")
    assert (line["outcome"], line["login"], line["type"], line["bytes"]) == ("ok", "ann", "image/png", len(PNG))
    secret = link.rpartition("/")[2]
    assert secret not in served.stdout.read_text() + served.log
    assert places.login_of(secret) is None
    async with served.client(token) as client:
        # It gets as far as to the laptop, which is not there.
        sent = await client.call("send", instance="laptop", message="look", files=[asked.structured["note"]])
        assert "no instance" in sent.text.lower(), sent.text
    (other,) = await served.sign_in(["ben"])
    async with served.client(other) as client:
        stolen = await client.call("send", instance="laptop", message="look", files=[asked.structured["note"]])
    assert "was sent already, or its time is over" in stolen.text


def test_a_file_is_taken_once_and_never_served_back(phone: httpx.Client, places: Uploads) -> None:
    place, secret = places.open("ann")
    shown = phone.get(path(secret))
    assert shown.status_code == 200
    assert 'enctype="multipart/form-data"' in shown.text
    assert "script" not in shown.text
    assert "form-action 'self'" in shown.headers["content-security-policy"]
    assert shown.headers["cache-control"] == "no-store"
    # Looking at it, as previews of links do, spends nothing.
    assert phone.head(path(secret)).status_code in {200, 405}
    taken = sent(phone, secret, PNG, "../../a<b>.png")
    assert taken.status_code == 200
    assert "Go back to your chat" in taken.text
    assert places.file(place, "ann") == ("a<b>.png", PNG)
    for again in (sent(phone, secret, PNG), phone.get(path(secret))):
        assert again.status_code == 404
        assert "Ask for a new link in your chat" in again.text
        assert PNG not in again.content


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        (b"", 415, "is empty"),
        (b"MZ\x90\0", 415, "is none of what is taken"),
        (HEIC, 415, "HEIC"),
        (PNG[:-12], 415, "cut off or damaged"),
        (png(noise=b"x" * 5_000_000), 415, "larger than 5 MB"),
        (b"x" * 5_100_000, 413, "larger than 5 MB"),
    ],
)
def test_what_is_not_taken_is_said_and_the_link_goes_on_to_serve(
    phone: httpx.Client, places: Uploads, content: bytes, status: int, said: str
) -> None:
    place, secret = places.open("ann")
    refused = sent(phone, secret, content)
    assert (refused.status_code, said in refused.text) == (status, True), refused.text
    assert sent(phone, secret, PNG).status_code == 200
    places.remove(place)


@pytest.mark.parametrize(
    ("headers", "content", "status"),
    [
        ({"Content-Type": "application/x-www-form-urlencoded"}, b"file=x", 415),
        ({"Content-Type": "multipart/form-data"}, b"--x", 400),
        ({"Content-Type": "multipart/form-data; boundary=x"}, b"--x\r\nnonsense", 400),
        (
            {"Content-Type": "multipart/form-data; boundary=x"},
            b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\ntext\r\n--x--\r\n',
            400,
        ),
    ],
)
def test_what_is_no_such_form_is_refused_in_words(
    phone: httpx.Client, places: Uploads, headers: dict[str, str], content: bytes, status: int
) -> None:
    place, secret = places.open("ann")
    refused = phone.post(path(secret), headers=headers, content=content)
    assert refused.status_code == status, refused.text
    assert '<p class="message" role="alert"' in refused.text
    places.remove(place)


@pytest.mark.parametrize("secret", ["x" * 43, "..%2fjournal", "%00", "x"])
def test_strangers_are_told_nothing_and_nothing_of_theirs_is_read(
    served: PublicGateway, phone: httpx.Client, secret: str
) -> None:
    assert phone.get(path(secret)).status_code == 404
    # Straight to the gateway, which does not wait for a body that it does not want.
    head = (
        f"POST {path(secret)} HTTP/1.1\r\nHost: {phone.base_url.netloc.decode()}\r\nContent-Length: 5000000\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as stranger:
        stranger.sendall(head.encode())
        assert stranger.recv(4096).startswith(b"HTTP/1.1 404")


@pytest.mark.parametrize("size", [5_990_000, 6_000_000, 30_000_000])
def test_what_is_too_large_for_caddy_gets_413(phone: httpx.Client, places: Uploads, size: int) -> None:
    place, secret = places.open("ann")
    assert sent(phone, secret, b"x" * size).status_code == 413
    places.remove(place)


def test_two_at_once_fill_a_place_once(phone: httpx.Client, places: Uploads) -> None:
    place, secret = places.open("ann")
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda number: sent(phone, secret, png(noise=bytes([65 + number]))), range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 404, 404, 404]
    places.remove(place)


def head(served: PublicGateway, secret: str, length: int, *more: str) -> bytes:
    lines = (
        f"POST {path(secret)} HTTP/1.1",
        f"Host: {served.front_url.partition('://')[2]}",
        "Content-Type: multipart/form-data; boundary=x",
        *more,
    )
    return "\r\n".join(
        [*lines, f"Content-Length: {length}" if length else "Transfer-Encoding: chunked", "", ""]
    ).encode()


def test_who_drips_into_one_link_holds_up_no_other(
    served: PublicGateway, phone: httpx.Client, places: Uploads
) -> None:
    slow_place, slow = places.open("ann")
    place, secret = places.open("ben")
    with ExitStack() as stack:
        for number in range(6):
            drip = stack.enter_context(socket.create_connection(("127.0.0.1", served.port), timeout=20))
            drip.sendall(head(served, slow, 1_000, "Expect: 100-continue"))
            if number == 0:
                assert drip.recv(4096).startswith(b"HTTP/1.1 100")
        assert sent(phone, secret, PNG).status_code == 200
    for each in (slow_place, place):
        places.remove(each)


def test_a_body_without_end_is_read_no_further_than_a_file(served: PublicGateway, places: Uploads) -> None:
    # Straight to the gateway, as behind a proxy that limits nothing.
    place, secret = places.open("ann")
    piece = b"fffff\r\n" + bytes(0xFFFFF) + b"\r\n"
    first = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as stranger:
        stranger.sendall(head(served, secret, 0) + b"%x\r\n%b\r\n" % (len(first), first))
        stranger.sendall(piece * 6)
        assert stranger.recv(4096).startswith(b"HTTP/1.1 413")
    places.remove(place)


@pytest.mark.parametrize("charset", ["punycode", "idna", "undefined", "utf-16"])
def test_a_form_s_set_of_characters_is_not_believed(phone: httpx.Client, places: Uploads, charset: str) -> None:
    # Decoding a megabyte by some takes hours, in which nobody would be answered.
    place, secret = places.open("ann")
    form = (
        b'--x\r\nContent-Disposition: form-data; name="note"\r\n\r\n'
        + b"a" * 450_000
        + b"-"
        + b"b" * 450_000
        + b'\r\n--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
        + PNG
        + b"\r\n--x--\r\n"
    )
    kind = f"multipart/form-data; boundary=x; charset={charset}"
    refused = phone.post(path(secret), headers={"Content-Type": kind}, content=form)
    assert refused.status_code == 400
    assert "did not understand this form" in refused.text
    places.remove(place)


def test_a_file_comes_byte_by_byte_as_it_is(phone: httpx.Client, places: Uploads) -> None:
    place, secret = places.open("ann")
    text = rb'{"half a character": "\ud83d"}'
    assert sent(phone, secret, text, "log.json").status_code == 200
    assert places.file(place, "ann") == ("log.json", text)
    places.remove(place)


def test_the_largest_file_passes_caddy(phone: httpx.Client, places: Uploads) -> None:
    place, secret = places.open("ann")
    largest = png(noise=b"x" * (5_000_000 - len(PNG) - 12))
    assert len(largest) == 5_000_000
    assert sent(phone, secret, largest).status_code == 200
    assert places.file(place, "ann") == ("shot.png", largest)
    places.remove(place)


def test_no_server_of_somebody_else_s_hears_of_the_places(tmp_path: Path) -> None:
    with Gateway(tmp_path, {"opencode": fixture_entry(), "notes": fixture_entry()}) as gateway:
        told = ["RELAY_UPLOADS_DIR" in child.environ() for child in gateway.process.children()]
    assert sorted(told) == [False, True]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_person_uploads_on_a_phone_without_javascript(
    browser: Browser, phone: httpx.Client, places: Uploads, tmp_path: Path, scheme: str
) -> None:
    place, secret = places.open("ann")
    (tmp_path / "shot.png").write_bytes(PNG)
    options: dict[str, Any] = {"viewport": PHONE, "color_scheme": scheme, "java_script_enabled": scheme == "light"}
    context = browser.new_context(**options, ignore_https_errors=True)
    page = context.new_page()
    page.goto(f"{phone.base_url}{path(secret)}")
    if scheme == "light":
        fits(page)
        assert page.evaluate(CONTRASTS) == []
        screenshot(page, "upload")
    page.get_by_label("File").set_input_files(tmp_path / "shot.png")
    page.get_by_role("button", name="Send").click()
    page.get_by_text("It is here").wait_for()
    assert places.file(place, "ann") == ("shot.png", PNG)
    context.close()
