# One image for every service of ours; docker-compose.yml names the command of each.
FROM python:3.11-slim AS build
WORKDIR /app
COPY requirements.txt .
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir --require-hashes -r requirements.txt
COPY pyproject.toml README.md LICENSE celeryconfig.py ./
COPY orchestrator orchestrator
COPY workers workers
COPY web web
RUN /venv/bin/pip install --no-cache-dir --no-build-isolation --no-deps .

FROM python:3.11-slim
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 ORCH_HOME=/var/lib/orch
RUN useradd --system --uid 10001 --home-dir /var/lib/orch --create-home orch
COPY --from=build /venv /venv
USER orch
WORKDIR /var/lib/orch
VOLUME /var/lib/orch
CMD ["orch", "--help"]
