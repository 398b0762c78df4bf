# The service for Jetson Orin with JetPack 6 (CUDA 12.6, Python 3.10), built on the Jetson itself from the repository's
# root: docker build -f deploy/jetson.Dockerfile -t mbunet:jetson .
#
# JetPack 7.2 takes plain arm64 images of CUDA 13; there say
#     --build-arg BUILD_IMAGE=nvidia/cuda:13.0.1-devel-ubuntu24.04 --build-arg BASE_IMAGE=ubuntu:24.04
#
# The build runs where nvcc is, for Orin's sm_87 alone. CUDA's runtime is linked statically: BASE_IMAGE stays a plain
# Ubuntu, of the same release as BUILD_IMAGE, and the driver comes in by `runtime: nvidia`. Without it the engine counts
# bits on the CPU's NEON units, and says so.
ARG BUILD_IMAGE=nvcr.io/nvidia/l4t-jetpack:r36.4.0
ARG BASE_IMAGE=ubuntu:22.04

# hadolint ignore=DL3006
FROM ${BUILD_IMAGE} AS build
# hadolint ignore=DL3008
RUN apt-get update && \
    apt-get install -y --no-install-recommends build-essential python3 python3-venv python3-dev && \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*
# OFF builds without nvcc, for a plain BUILD_IMAGE
ARG MBUNET_CUDA=ON
ENV PATH=/usr/local/cuda/bin:$PATH \
    CUDAARCHS=87-real \
    SKBUILD_CMAKE_DEFINE=MBUNET_CUDA=${MBUNET_CUDA}
RUN python3 -m venv /opt/mbunet
WORKDIR /source
COPY . .
# uvloop's wheel comes with 12 MB of symbols, those of SciPy and numpy with 30 and 17 MB of tests
RUN /opt/mbunet/bin/python -m pip install --no-cache-dir . && \
    /opt/mbunet/bin/python -m pip uninstall -y pip setuptools && \
    strip --strip-unneeded /opt/mbunet/lib/python3*/site-packages/uvloop/*.so && \
    find /opt/mbunet/lib/python3*/site-packages/scipy /opt/mbunet/lib/python3*/site-packages/numpy -name tests -prune -exec rm -r {} +

# hadolint ignore=DL3006
FROM ${BASE_IMAGE} AS jetson
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends python3 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
ARG BASE_IMAGE
ARG REVISION=unknown
LABEL org.opencontainers.image.title="mbunet" \
      org.opencontainers.image.description="The segmentation server that runs a U-Net on single bits, for Jetson Orin" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}"
COPY --from=build /opt/mbunet /opt/mbunet
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
