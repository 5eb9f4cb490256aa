# The image of the application, for any role. It needs external servers, whose addresses are set with
# IOTISTICA_DATABASE_URL, IOTISTICA_REDIS_URL and IOTISTICA_MQTT_URL. All containers of one deployment share
# IOTISTICA_SECRET_KEY. `--target broker` builds the image of the broker: Mosquitto, whose accounts come from the
# database of IOTISTICA_DATABASE_URL.
FROM python:3.11-slim-bookworm AS build
WORKDIR /build
COPY . .
RUN python -m venv /app \
 && /app/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements.txt \
 && /app/bin/pip install --no-cache-dir --no-deps .

FROM python:3.11-slim-bookworm AS application
COPY --from=build /app /app
RUN useradd --system --create-home --home-dir /data iotistica
USER iotistica
WORKDIR /data
ENV PATH=/app/bin:$PATH IOTISTICA_LISTEN=0.0.0.0 IOTISTICA_DATA_DIR=/data IOTISTICA_LOG_FORMAT=json
# Acknowledged messages can wait in /data/spool, so the volume must outlive the container.
VOLUME /data
EXPOSE 3002 3003
ENTRYPOINT ["iotistica"]
CMD ["serve"]

FROM application AS broker
USER root
RUN apt-get update \
 && apt-get install --yes --no-install-recommends mosquitto \
 && rm -rf /var/lib/apt/lists/*
USER iotistica
EXPOSE 1883 3003
CMD ["broker"]

# The default target.
FROM application
