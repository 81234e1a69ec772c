# The image of warmnode: Debian's Python without a shell, the packages that requirements/run.txt names by hash, no more.
#
#   docker build --tag ghcr.io/warmnode/warmnode:dev .
#
# Both bases are Debian 13 with Python 3.13: what the first one compiles for, the second one runs.
ARG BUILD_IMAGE=python:3.13-slim-trixie
ARG RUN_IMAGE=gcr.io/distroless/python3-debian13:nonroot

FROM ${BUILD_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /src
COPY requirements/build.txt requirements/run.txt requirements/
RUN python3 -m pip install --quiet --require-hashes --only-binary :all: --no-compile --target /tools -r requirements/build.txt
RUN python3 -m pip install --quiet --require-hashes --only-binary :all: --no-compile --target /app -r requirements/run.txt \
    && rm -rf /app/bin
COPY pyproject.toml README.md LICENSE ./
COPY extender extender
RUN PYTHONPATH=/tools python3 -m pip install --quiet --no-index --no-deps --no-build-isolation --no-compile --target /app .
RUN set -eu; cd /app; \
    rm -rf bin; \
    find . \( -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.c' -o -name '*.h' \) -delete; \
    find . -type d -name tests -prune -exec rm -rf {} +; \
    python3 -m compileall -q --invalidation-mode unchecked-hash -j 0 .

FROM ${RUN_IMAGE}
LABEL org.opencontainers.image.title="warmnode" \
      org.opencontainers.image.description="Keeps a worker pool's oldest nodes full and its newest nodes empty" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /app /app
ENV PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /
USER 65532:65532
ENTRYPOINT ["/usr/bin/python3", "-P", "-m", "extender"]
CMD ["--help"]
