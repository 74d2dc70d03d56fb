"""The same on BentoML, its adaptive batching on; run with `bentoml serve`."""

import bentoml
import PIL.Image

from benchmarks.servers.model import MAX_BATCH_SIZE, Answer, Model


@bentoml.service(workers=1)
class Classify:
    """Decodes and computes in BentoML's worker."""

    def __init__(self) -> None:
        self.model = Model()

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH_SIZE)  # type: ignore[untyped-decorator]  # not everywhere installed
    def predict(self, file: list[PIL.Image.Image]) -> list[Answer]:
        """An answer for each image."""
        return self.model.classify([self.model.prepare(image) for image in file])
