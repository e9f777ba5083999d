"""`send` with files, against real OpenCode: what the model gets, what is refused, and what is shown of it later."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from opencode_common.uploads import Uploads
from support.chat.mcp_client import relay_client
from support.fleet.pictures import PDF, PNG, png
from support.waiting import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.chat.mcp_client import Answer, RelayClient
    from support.opencodes.driven import Driven
    from support.opencodes.scripted_model import ModelRequest, ScriptedModel

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def uploads(tmp_path_factory: pytest.TempPathFactory) -> Uploads:
    return Uploads(tmp_path_factory.mktemp("uploads") / "places")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def with_page(shared: Driven, uploads: Uploads) -> AsyncIterator[RelayClient]:
    """A client of a server whose parent serves a page for uploads."""
    connected: asyncio.Future[RelayClient] = asyncio.get_running_loop().create_future()
    done = asyncio.Event()
    env = {"RELAY_UPLOADS_DIR": str(uploads._directory), "RELAY_UPLOADS_URL": "https://relay.example.org/upload"}

    async def hold() -> None:
        async with relay_client(shared.registry, env=env) as client:
            connected.set_result(client)
            await done.wait()

    holder = asyncio.create_task(hold())
    yield await connected
    done.set()
    await holder


async def send(client: RelayClient, message: str, **more: object) -> Answer:
    arguments = {"instance": "laptop", "message": message, "session": "new"} | more
    return await client.call("send", on_progress=None, **arguments)


def asked(model: ScriptedModel, session: str) -> list[ModelRequest]:
    return [each for each in model.requests if each.session == session and not each.for_title]


def got(model: ScriptedModel, session: str) -> list[dict[str, Any]]:
    """Return the parts of the last message of a person that the model got in a session."""
    request = asked(model, session)[-1]
    content = next(each["content"] for each in reversed(request.messages) if each["role"] == "user")
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def uploaded(client_answer: Answer, uploads: Uploads, name: str, content: bytes) -> str:
    """Upload a file on the link that was answered; return its handle."""
    assert client_answer.structured["result"] == "upload", client_answer.text
    secret = str(client_answer.structured["text"]).rpartition("/")[2]
    assert uploads.fill(secret, name, content)
    return str(client_answer.structured["note"])


async def test_the_model_gets_a_text_and_the_conversation_names_it(client: RelayClient, model: ScriptedModel) -> None:
    answer = await send(client, "see this", files=[{"name": "notes.md", "text": "the secret of tests is 4711"}])
    assert answer.structured["result"] == "done", answer.text
    session = answer.structured["session"]
    assert "the secret of tests is 4711" in str(got(model, session))
    read = await client.call("read", instance="laptop", session=session)
    assert "[file] notes.md" in read.text
    assert "4711" not in read.structured["messages"][0]["text"]


async def test_the_model_gets_the_picture_that_a_person_uploaded_and_it_is_sent_once(
    with_page: RelayClient, model: ScriptedModel, laptop: Driven, uploads: Uploads
) -> None:
    before = laptop.sessions()
    link = await send(with_page, "look at this", files=["upload"])
    assert "https://relay.example.org/upload/" in link.text
    assert "Nothing was sent yet" in link.text
    handle = link.structured["note"]
    early = await send(with_page, "look at this", files=[handle])
    assert early.is_error
    assert "nothing was uploaded for" in early.text
    assert laptop.sessions() == before
    uploaded(link, uploads, "../IMG 0001.png", PNG)
    answer = await send(with_page, "look at this", files=[handle])
    assert answer.structured["result"] == "done", answer.text
    urls = [part["image_url"]["url"] for part in got(model, answer.structured["session"]) if "image_url" in part]
    assert urls == [f"data:image/png;base64,{base64.b64encode(PNG).decode()}"]
    read = await with_page.call("read", instance="laptop", session=answer.structured["session"])
    assert "[file] IMG 0001.png" in read.text
    again = await send(with_page, "look at this once more", files=[handle])
    assert again.is_error
    assert "was sent already" in again.text


async def test_the_largest_files_pass_and_the_turn_is_followed(
    with_page: RelayClient, model: ScriptedModel, uploads: Uploads
) -> None:
    large = png(noise=b"x" * 4_900_000)

    async def handle() -> str:
        return uploaded(await send(with_page, "", files=["upload"]), uploads, "large.png", large)

    answer = await send(with_page, "both", files=[await handle(), {"name": "a.log", "text": "x" * 90_000}])
    assert answer.structured["result"] == "done", answer.text
    # OpenCode 1 leaves out of a picture what is not seen.
    parts = got(model, answer.structured["session"])
    assert len([part for part in parts if "image_url" in part]) == 1
    assert "x" * 90_000 in str(parts)
    refused = await send(with_page, "both", files=[await handle(), await handle()])
    assert refused.is_error
    assert "MB together, and one message takes 5 MB" in refused.text


@pytest.mark.generations(1)
async def test_a_model_that_takes_pdf_gets_it(with_page: RelayClient, model: ScriptedModel, uploads: Uploads) -> None:
    handle = uploaded(await send(with_page, "", files=["upload"]), uploads, "paper.pdf", PDF)
    answer = await send(with_page, "read it", files=handle)
    assert base64.b64encode(PDF).decode() in str(got(model, answer.structured["session"]))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["/etc/passwd"], "files of this machine are not read"),
        (["file:///etc/passwd"], "files of this machine are not read"),
        (["http://example.com/x.png"], "files come by https alone"),
        (["https://127.0.0.1/x.png"], "names a machine by its number"),
        (["https://localhost/x.png"], "leads to an address that is not public"),
        (["upload"], "there is no upload page here"),
        (["u99999"], "no upload has the handle u99999"),
        ([{"name": "a.txt", "text": "a\0b"}], "the file 'a.txt' is none of what is taken"),
        ([{"name": "a.txt", "text": "x" * 500_001}], "a text of more than 500 kB"),
        ([{"name": "a.txt", "text": "x"}] * 9, "at most 8"),
        ([{"name": "a.txt", "text": "x", "path": "/etc"}], "nothing was done"),
    ],
)
async def test_what_may_not_be_sent_is_refused_in_words_and_nothing_is_sent(
    client: RelayClient, laptop: Driven, files: list[object], said: str
) -> None:
    before = laptop.sessions()
    refused = await send(client, "never sent", files=files)
    assert refused.is_error
    assert said in refused.text
    assert laptop.sessions() == before


async def test_a_command_takes_no_files_and_files_need_a_message(client: RelayClient) -> None:
    text = {"name": "a.txt", "text": "x"}
    for message, said in (("/init", "`files`"), (" ", "is empty; nothing was sent")):
        refused = await send(client, message, files=[text])
        assert refused.is_error
        assert said in refused.text


async def test_all_instances_get_the_file(client: RelayClient, model: ScriptedModel) -> None:
    answer = await send(client, "to all", instance="all", files={"name": "a.txt", "text": "for all of you"})
    (row,) = answer.structured["sent"]
    session = row["session"]
    await eventually_async(lambda: asked(model, session), "the model", within=60)
    assert "for all of you" in str(got(model, session))
