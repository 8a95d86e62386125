# Two images: docker build --target runtime -t resnest:runtime .     exported files, without torch
#             docker build --target training -t resnest:training .   everything, for CPUs and NVIDIA's GPUs
# Versions are those of requirements.txt, whose hashes are verified. tests/test_install.py runs every step.
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS tools
RUN python -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir --quiet uv==0.13.9
ENV PATH=/opt/uv/bin:$PATH UV_PYTHON=/opt/resnest/bin/python \
    UV_CONSTRAINT=requirements.txt UV_BUILD_CONSTRAINT=requirements.txt
WORKDIR /opt/source
COPY requirements.txt ./

FROM tools AS build
COPY packaging packaging
RUN python -m venv --without-pip /opt/resnest && uv pip install -r packaging/runtime/pyproject.toml
COPY LICENSE ./
COPY src src
RUN uv pip install --no-deps ./packaging/runtime
# The image is read-only in use, so bytecode of what the server imports is written here.
RUN /opt/resnest/bin/python -c "import onnxruntime, uvicorn, resnest.serving.app, resnest.serving.running, resnest.cli.app"

FROM python:${PYTHON}-slim AS runtime
COPY --from=build /opt/resnest /opt/resnest
ENV PATH=/opt/resnest/bin:$PATH PYTHONUNBUFFERED=1 HOME=/tmp
WORKDIR /models
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request as web; web.urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=2)"]
ENTRYPOINT ["resnest"]
CMD ["serve", "model.onnx", "--host", "0.0.0.0"]

FROM tools AS build-training
COPY pyproject.toml ./
RUN python -m venv --without-pip /opt/resnest && uv pip install -r pyproject.toml --extra all
COPY README.md LICENSE ./
COPY src src
RUN uv pip install --no-deps --compile-bytecode .

# Not the slim one: kernels are compiled for the GPU that is there, by Triton, which needs a C compiler.
FROM python:${PYTHON} AS training
COPY --from=build-training /opt/resnest /opt/resnest
RUN mkdir -m 1777 /cache /runs
ENV PATH=/opt/resnest/bin:$PATH PYTHONUNBUFFERED=1 HOME=/tmp USER=resnest RESNEST_HOME=/cache
WORKDIR /
USER 10001:10001
ENTRYPOINT ["resnest"]
CMD ["doctor"]
