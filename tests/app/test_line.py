import asyncio
import socket
import threading

from app.line import Message, Word, WorkerEnd, read_message


def test_a_worker_is_heard_until_it_ends() -> None:
    ours, theirs = socket.socketpair()

    async def listen() -> list[Message | None]:
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        end = WorkerEnd(theirs)
        end.say(Word.READY)
        end.say(Word.UNWELL, "a reason\nof two lines")
        theirs.close()
        heard = [await read_message(reader) for _ in range(3)]
        writer.close()
        return heard

    assert asyncio.run(listen()) == [
        Message(Word.READY),
        Message(Word.UNWELL, "a reason\nof two lines"),
        None,
    ]


def test_a_worker_notices_that_its_supervisor_is_gone_and_goes_on_talking() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        end = WorkerEnd(theirs)
        waiting = threading.Thread(target=end.wait_for_end)
        waiting.start()
        ours.close()
        waiting.join(60)
        assert not waiting.is_alive()
        end.say(Word.BEAT)
