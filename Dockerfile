# The service as an image, without PyTorch and without a compiler:
#
#   docker build -t mbunet .                       target cpu
#   docker build -t mbunet:cuda --target cuda .    and for GPUs: run it with --gpus all, or `runtime: nvidia`
#
# BASE_IMAGE may be any Debian or Ubuntu. One that brings a Python (3.10 or newer) keeps it; a plain one gets its own.
# CUDA_IMAGE brings nvcc and is of a release with the same Python as CUDA_BASE_IMAGE, under which the result runs: CUDA's
# runtime is linked statically, the driver comes from the host. CUDA_ARCHITECTURES as in 80-real;90-real builds for some
# GPUs alone; by default for all that csrc/cuda/cuda.cmake lists.
ARG BASE_IMAGE=python:3.12-slim
ARG CUDA_IMAGE=nvidia/cuda:13.0.1-devel-ubuntu24.04
ARG CUDA_BASE_IMAGE=ubuntu:24.04

# hadolint ignore=DL3006
FROM ${BASE_IMAGE} AS python
# hadolint ignore=DL3008
RUN command -v python3 || { \
        apt-get update && apt-get install -y --no-install-recommends python3 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*; \
    }

FROM python AS build
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends build-essential && \
    can_build='import ensurepip, os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' && \
    { python3 -c "$can_build" || apt-get install -y --no-install-recommends python3-venv python3-dev; } && \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*
RUN python3 -m venv /opt/mbunet
WORKDIR /source
COPY . .
# uvloop's wheel comes with 12 MB of symbols, those of SciPy and numpy with 30 and 17 MB of tests
RUN /opt/mbunet/bin/python -m pip install --no-cache-dir . && \
    /opt/mbunet/bin/python -m pip uninstall -y pip setuptools && \
    strip --strip-unneeded /opt/mbunet/lib/python3*/site-packages/uvloop/*.so && \
    find /opt/mbunet/lib/python3*/site-packages/scipy /opt/mbunet/lib/python3*/site-packages/numpy -name tests -prune -exec rm -r {} +

# hadolint ignore=DL3006
FROM ${CUDA_IMAGE} AS cuda-build
# hadolint ignore=DL3008
RUN apt-get update && \
    apt-get install -y --no-install-recommends build-essential python3 python3-venv python3-dev && \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*
ARG CUDA_ARCHITECTURES=
ENV PATH=/usr/local/cuda/bin:$PATH \
    CUDAARCHS=${CUDA_ARCHITECTURES} \
    SKBUILD_CMAKE_DEFINE=MBUNET_CUDA=ON
RUN python3 -m venv /opt/mbunet
WORKDIR /source
COPY . .
# uvloop's wheel comes with 12 MB of symbols, those of SciPy and numpy with 30 and 17 MB of tests
RUN /opt/mbunet/bin/python -m pip install --no-cache-dir . && \
    /opt/mbunet/bin/python -m pip uninstall -y pip setuptools && \
    strip --strip-unneeded /opt/mbunet/lib/python3*/site-packages/uvloop/*.so && \
    find /opt/mbunet/lib/python3*/site-packages/scipy /opt/mbunet/lib/python3*/site-packages/numpy -name tests -prune -exec rm -r {} +

# hadolint ignore=DL3006
FROM ${CUDA_BASE_IMAGE} AS cuda
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends python3 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
ARG CUDA_BASE_IMAGE
ARG REVISION=unknown
LABEL org.opencontainers.image.title="mbunet" \
      org.opencontainers.image.description="The segmentation server that runs a U-Net on single bits, for NVIDIA GPUs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${CUDA_BASE_IMAGE}"
COPY --from=cuda-build /opt/mbunet /opt/mbunet
ENV PATH=/opt/mbunet/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MBUNET_HOST=0.0.0.0 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
WORKDIR /
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=4s --start-period=30s \
    CMD ["python3", "-m", "service.healthcheck"]
ENTRYPOINT ["mbunet"]
CMD ["serve"]

FROM python AS cpu
ARG BASE_IMAGE
ARG REVISION=unknown
LABEL org.opencontainers.image.title="mbunet" \
      org.opencontainers.image.description="The segmentation server that runs a U-Net on single bits" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}"
COPY --from=build /opt/mbunet /opt/mbunet
ENV PATH=/opt/mbunet/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MBUNET_HOST=0.0.0.0
# a number, not a name: Kubernetes can tell that it is not root. Nothing is written: the root file system may be read-only
USER 10001:10001
WORKDIR /
EXPOSE 8080
# SIGTERM drains: what is under way is answered, then the process exits with 0
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=4s --start-period=30s \
    CMD ["python3", "-m", "service.healthcheck"]
ENTRYPOINT ["mbunet"]
CMD ["serve"]
