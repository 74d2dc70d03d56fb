"""The same on LitServe, its batching on."""

import argparse
from collections.abc import Sequence

import litserve
import numpy as np
import numpy.typing as npt
from fastapi import Request, UploadFile

from benchmarks.servers.model import MAX_BATCH_SIZE, Answer, Model

Image = npt.NDArray[np.float32]


class Classify(litserve.LitAPI):  # type: ignore[misc]  # untyped where it is not installed
    """Decodes and computes in LitServe's worker process."""

    def setup(self, device: str) -> None:
        """Load the graphs."""
        self.model = Model()

    def decode_request(self, request: Request) -> Image:
        """The image of a form: the annotation decides how LitServe reads the body."""
        upload: UploadFile = request["file"]
        return self.model.decode(upload.file.read())

    def batch(self, inputs: list[Image]) -> list[Image]:
        """As they are: the model stacks them."""
        return inputs

    def predict(self, images: Sequence[Image]) -> list[Answer]:
        """An answer for each image."""
        return self.model.classify(images)

    def unbatch(self, output: list[Answer]) -> list[Answer]:
        """As they are."""
        return output

    def encode_response(self, output: Answer) -> Answer:
        """As it is."""
        return output


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    server = litserve.LitServer(
        Classify(max_batch_size=MAX_BATCH_SIZE, batch_timeout=0.005),
        accelerator="cpu",
        workers_per_device=1,
        fast_queue=True,
    )
    server.run(host="127.0.0.1", port=port, generate_client_file=False)
