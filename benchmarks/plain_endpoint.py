"""The contender of benchmarks/serve.py: the endpoint that a tutorial has, with the same model and the same decoding.

python benchmarks/plain_endpoint.py model.onnx         # prints "serving at http://127.0.0.1:PORT"
"""

from __future__ import annotations

import socket
import sys
import threading

import uvicorn
from fastapi import FastAPI, UploadFile

import resnest


def create_app(model: str) -> FastAPI:
    app = FastAPI()
    predict, lock = resnest.Predictor(model), threading.Lock()

    @app.post("/predict")
    def answer(file: UploadFile) -> dict[str, object]:  # in FastAPI's pool of threads
        content = file.file.read()
        with lock:
            return predict(content).to_dict()

    @app.get("/v2/health/ready")
    def ready() -> dict[str, str]:
        return {}

    return app


def main() -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    app = create_app(sys.argv[1])
    print(f"serving at http://127.0.0.1:{sock.getsockname()[1]}", file=sys.stderr, flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[sock])


if __name__ == "__main__":
    main()
