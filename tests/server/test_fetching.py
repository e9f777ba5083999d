"""Files by https: from public addresses alone, whatever a name, an address or a redirect leads to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from opencode_common.addresses import is_public, looked_up
from opencode_fleet.errors import Refused
from opencode_fleet.fetching import Fetcher
from support.fleet.pictures import PNG
from support.pages.fake_internet import NAME, Internet, internet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def net(tmp_path: Path) -> AsyncIterator[Internet]:
    async with internet(tmp_path) as found:
        yield found


async def refusal(fetcher: Fetcher, address: str) -> str:
    with pytest.raises(Refused) as refused:
        await fetcher.fetch(address)
    assert str(refused.value).endswith("Nothing was sent")
    return str(refused.value)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_an_address_of_the_public_internet_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1"),
        *("169.254.169.254", "192.0.0.170", "198.18.0.1", "192.0.2.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1"),
        *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1"),
        *("2002:7f00:1::", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "", "localhost", "127.1"),
    ],
)
def test_any_other_address_is_not(address: str) -> None:
    assert not is_public(address)


async def test_a_file_is_fetched_by_name_without_anything_of_ours(net: Internet) -> None:
    assert await net.fetcher().fetch(f"{net.url}/pictures/My%20shot.png?size=1") == ("My shot.png", PNG)
    (request,) = net.asked
    assert request.headers["host"] == f"{NAME}:{net.port}"
    assert not {"cookie", "authorization", "referer"} & {name.lower() for name in request.headers}


async def test_redirects_are_followed_and_named_by_where_they_end(net: Internet) -> None:
    assert await net.fetcher().fetch(f"{net.url}/to/a?to=/to/b?to=/end.png") == ("end.png", PNG)
    assert "is redirected too often" in await refusal(net.fetcher(), f"{net.url}/round/x")
    assert len(net.asked) == 3 + 4


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("http://files.example.org/x.png", "by https alone"),
        ("ftp://files.example.org/x.png", "by https alone"),
        ("//files.example.org/x.png", "by https alone"),
        ("https:///x.png", "https"),
        ("https://ann:secret@HOST/x.png", "holds a name or password"),
        ("https://files.example.org@HOST/x.png", "holds a name or password"),
        ("https://files.example.org/x.png", "names another port"),
        ("https://files.example.org:22/x.png", "names another port"),
        ("https://127.0.0.1:PORT/x.png", "by its number"),
        ("https://[::1]:PORT/x.png", "by its number"),
        ("https://[::ffff:127.0.0.1]:PORT/x.png", "by its number"),
        ("https://2130706433:PORT/x.png", "by its number"),
        ("https://0x7f000001:PORT/x.png", "by its number"),
        ("https://0177.0.0.1:PORT/x.png", "by its number"),
        ("https://127.1:PORT/x.png", "by its number"),
        ("https://127.0.0.1.:PORT/x.png", "by its number"),
        ("https://1.2.3.4.5:PORT/x.png", "by its number"),
        ("https://99999999999:PORT/x.png", "by its number"),
        ("https://\uff11\uff12\uff17.0.0.1:PORT/x.png", "by its number"),
        ("https://no.such.example:PORT/x.png", "a name that is not known"),
        ("https://HOST/status/404", "HTTP 404"),
        ("https://HOST/status/204", "HTTP 204"),
        ("https://HOST/" + "x" * 2_000, "longer than"),
        ("https://HOST/told", "larger than 5 MB"),
        ("https://HOST/huge", "larger than 5 MB"),
        ("https://HOST/gzip", "came compressed"),
    ],
)
async def test_what_may_not_or_cannot_be_fetched_is_refused_in_words(net: Internet, address: str, why: str) -> None:
    address = address.replace("HOST", f"{NAME}:{net.port}").replace("PORT", str(net.port))
    told = await refusal(net.fetcher(), address)
    assert why in told
    assert "ann:" not in told


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["::1"], ["::ffff:10.0.0.1"], ["169.254.169.254"], []]
)
async def test_a_name_with_an_address_that_is_not_public_is_not_connected_to(
    net: Internet, addresses: list[str]
) -> None:
    net.names[NAME] = [addresses]
    assert "not public" in await refusal(net.fetcher(is_public), f"{net.url}/x.png")
    assert net.asked == []


async def test_a_name_that_leads_elsewhere_the_second_time_is_looked_up_once(net: Internet) -> None:
    # What was checked is what is connected to: nobody asks again between the two.
    net.names[NAME] = [["127.0.0.1"], ["169.254.169.254"]]
    assert (await net.fetcher(lambda address: address == "127.0.0.1").fetch(f"{net.url}/x.png"))[1] == PNG
    assert net.names[NAME] == [["169.254.169.254"]]


@pytest.mark.parametrize("target", ["https://inner.example:PORT/x", "https://127.0.0.1:PORT/x", "http://HOST/x"])
async def test_a_redirect_to_where_nobody_may_ask_is_not_followed(net: Internet, target: str) -> None:
    net.names["inner.example"] = [["10.0.0.1"]]
    target = target.replace("PORT", str(net.port)).replace("HOST", NAME)
    await refusal(net.fetcher(lambda address: address == "127.0.0.1"), f"{net.url}/to/x?to={target}")
    assert len(net.asked) == 1


async def test_one_that_drips_is_given_up(net: Internet) -> None:
    assert "did not come within" in await refusal(net.fetcher(seconds=1.0), f"{net.url}/drip")


async def test_a_certificate_of_another_name_or_authority_is_not_trusted(net: Internet) -> None:
    net.names["other.example"] = [["127.0.0.1"]]
    assert "certificate" in await refusal(net.fetcher(), f"https://other.example:{net.port}/x.png")
    stranger = Fetcher(net.look_up, lambda _: True, net.port)
    assert "certificate" in await refusal(stranger, f"{net.url}/x.png")
    assert net.asked == []


async def test_the_system_looks_names_up() -> None:
    assert set(await looked_up("localhost")) <= {"127.0.0.1", "::1"}
    assert "not public" in await refusal(Fetcher(), "https://localhost/x.png")
