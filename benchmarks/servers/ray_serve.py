"""The same on Ray Serve, its batching on."""

import argparse

import numpy as np
import numpy.typing as npt
import ray
from ray import serve
from starlette.requests import Request

from benchmarks.servers.model import MAX_BATCH_SIZE, Answer, Model

Image = npt.NDArray[np.float32]


class Classify:
    """Decodes each request on its own, and computes in batches."""

    def __init__(self) -> None:
        self.model = Model()

    @serve.batch(  # type: ignore[untyped-decorator]  # untyped where it is not installed
        max_batch_size=MAX_BATCH_SIZE, batch_wait_timeout_s=0.005
    )
    async def classify(self, images: list[Image]) -> list[Answer]:
        """An answer for each image."""
        return self.model.classify(images)

    async def __call__(self, request: Request) -> Answer:
        """Classify the image in the body."""
        answer: Answer = await self.classify(self.model.decode(await request.body()))
        return answer


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    ray.init(num_cpus=1, include_dashboard=False, _node_ip_address="127.0.0.1")
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    deployment = serve.deployment(Classify, max_ongoing_requests=4 * MAX_BATCH_SIZE)
    serve.run(deployment.bind(), route_prefix="/predict", blocking=True)
