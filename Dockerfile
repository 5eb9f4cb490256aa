# The application alone: any role of it, beside servers that IOTISTICA_DATABASE_URL, IOTISTICA_REDIS_URL and
# IOTISTICA_MQTT_URL name. All containers of one deployment share IOTISTICA_SECRET_KEY.
FROM python:3.11-slim-bookworm AS build
WORKDIR /build
COPY . .
RUN python -m venv /app \
 && /app/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements.txt \
 && /app/bin/pip install --no-cache-dir --no-deps .

FROM python:3.11-slim-bookworm
COPY --from=build /app /app
RUN useradd --system --create-home --home-dir /data iotistica
USER iotistica
WORKDIR /data
ENV PATH=/app/bin:$PATH IOTISTICA_LISTEN=0.0.0.0 IOTISTICA_DATA_DIR=/data IOTISTICA_LOG_FORMAT=json
EXPOSE 3002 3003
ENTRYPOINT ["iotistica"]
CMD ["serve"]
