"""The HTTP floor: FastAPI reads the upload and answers a constant."""

import argparse
from typing import Annotated

import uvicorn
from fastapi import FastAPI, File, Request, Response, UploadFile

app = FastAPI()

_ANSWER = b'{"label":"none","confidence":0.0}'


@app.post("/raw")
async def raw(request: Request) -> Response:
    """Read a raw body."""
    await request.body()
    return Response(_ANSWER, media_type="application/json")


@app.post("/multipart")
async def multipart(file: Annotated[UploadFile, File()]) -> Response:
    """Read a form."""
    await file.read()
    return Response(_ANSWER, media_type="application/json")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    uvicorn.run(app, port=parser.parse_args().port, access_log=False)
