import asyncio

import httpx

from app.main import create_app
from app.settings import Settings


def test_a_running_service_is_live_and_ready(client: httpx.Client) -> None:
    assert client.get("/health/live").json() == {"status": "live"}
    assert client.get("/health/ready").json() == {"status": "ready"}


def test_before_the_start_and_after_the_end_it_is_live_but_not_ready(settings: Settings) -> None:
    app = create_app(settings)

    async def statuses() -> list[tuple[int, int]]:
        seen = []
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:

            async def look() -> None:
                ready, live = await client.get("/health/ready"), await client.get("/health/live")
                seen.append((ready.status_code, live.status_code))
                if ready.status_code == 503:
                    assert ready.json()["code"] == "not_ready"

            await look()
            async with app.router.lifespan_context(app):
                await look()
            await look()
        return seen

    assert asyncio.run(statuses()) == [(503, 200), (200, 200), (503, 200)]
