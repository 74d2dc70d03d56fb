# The service without torch and without a compiler. For the CPU:
#     docker build -t limbeck .
# for CUDA, with its libraries from NVIDIA's wheels (no CUDA base image needed):
#     docker build --build-arg DEVICE=cuda -t limbeck:cuda .
ARG PYTHON=3.11
ARG DEVICE=cpu

FROM python:${PYTHON}-slim AS packages
ARG DEVICE
# No pip in there: this folder is copied whole, and the service never installs anything.
RUN python -m venv --without-pip /venv
COPY requirements/serve-${DEVICE}.txt /requirements.txt
RUN pip --python /venv/bin/python install --no-cache-dir --no-deps --require-hashes \
        --disable-pip-version-check -r /requirements.txt

FROM python:${PYTHON}-slim
ARG DEVICE
ENV PATH=/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    LIMBECK_HOST=0.0.0.0 \
    LIMBECK_PORT=8000 \
    LIMBECK_MODELS_DIR=/models \
    LIMBECK_DEVICE=${DEVICE}
COPY --from=packages /venv /venv
WORKDIR /srv
COPY app app
# The root file system is meant to be read-only: compiled now or at every start.
RUN python -m compileall -q app
COPY models /models
# A number, so that "must not run as root" can be checked without reading /etc/passwd.
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ[\"LIMBECK_PORT\"]}/health/ready', timeout=4)"]
ENTRYPOINT ["python", "-m", "app"]
