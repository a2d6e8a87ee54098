# The wheel is built and installed in one stage; the image carries the result, without pip's or
# the compiler's leavings.
FROM python:3.11-slim AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY constraints.txt ./
RUN pip install --no-cache-dir --constraint constraints.txt hatchling
COPY pyproject.toml README.md LICENSE ./
COPY cti_listener ./cti_listener
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .
RUN python -m venv --without-pip /app \
    && pip --python /app/bin/python install --no-cache-dir --constraint constraints.txt \
        "$(echo /wheels/cti_listener-*.whl)[http,socks]"

FROM python:3.11-slim
LABEL org.opencontainers.image.title="cti-listener" \
    org.opencontainers.image.description="Listens to a CTI server's event stream: every event once, in its device's order, and every gap named" \
    org.opencontainers.image.licenses="MIT"
ENV PATH=/app/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
COPY --from=builder /app /app
# A number, so that Kubernetes' runAsNonRoot can tell that it is not root.
USER 10001:10001
WORKDIR /tmp
# Drains, then leaves: docker stop must wait longer than the drain time.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=15s CMD ["cti-listen", "healthcheck"]
# Events on stdout, logs on stderr.
ENTRYPOINT ["cti-listen"]
