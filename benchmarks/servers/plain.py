"""Plain FastAPI and onnxruntime, as a tutorial would write it."""

import argparse
from typing import Annotated

import uvicorn
from fastapi import FastAPI, File, UploadFile

from benchmarks.servers.model import Answer, Model

app = FastAPI()
model = Model()


@app.post("/predict")
async def predict(file: Annotated[UploadFile, File()]) -> Answer:
    """Classify one uploaded image."""
    return model.classify([model.decode(await file.read())])[0]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    uvicorn.run(app, port=parser.parse_args().port)
