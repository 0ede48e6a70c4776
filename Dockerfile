# Restores films on a CPU:
#   docker build -t rvrt_jax .
#   docker run --rm -v "$PWD:/work" rvrt_jax restore clip.mp4 clip_x4.mp4
FROM python:3.12-slim
WORKDIR /opt/rvrt_jax
COPY . .
RUN pip install --no-cache-dir .
WORKDIR /work
ENTRYPOINT ["rvrt"]
