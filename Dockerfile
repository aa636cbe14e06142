# Tiebreak with the CUDA build of PyTorch (it runs on a CPU too). No weights and no secrets inside: the base model is brought at the first
# start into the volume, or mounted. Build: docker build -t tiebreak .   Run: docker compose --profile cpu up
FROM python:3.12-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /opt/tiebreak
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY app.py ./
COPY ft ft
COPY review review
COPY storage storage
COPY demo demo
RUN /opt/tiebreak/bin/pip install -c constraints.txt .

FROM python:3.12-slim-bookworm
# WordNet is for METEOR; its data does not change between releases.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends wordnet-base \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home --shell /usr/sbin/nologin tiebreak \
    && install -d -m 0700 -o tiebreak -g tiebreak /data
COPY --from=build /opt/tiebreak /opt/tiebreak
ENV PATH=/opt/tiebreak/bin:$PATH \
    TIEBREAK_HOME=/data \
    TIEBREAK_HOST=0.0.0.0 \
    PYTHONUNBUFFERED=1
USER 10001
VOLUME /data
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/health', timeout=4)"]
ENTRYPOINT ["tiebreak"]
CMD ["serve"]
