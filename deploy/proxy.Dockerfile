# The proxy: any Debian-like BASE with Python 3.11 or newer. Runs as an account without rights, needs no
# capability, and writes to /var/lib/fairlead and /tmp only.
ARG BASE=debian:bookworm-slim
# The emulator of the terminal in the browser: files of npm packages, of which no script runs.
FROM ${BASE} AS emulator
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends ca-certificates npm \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY proxy/web/terminal/emulator ./
RUN npm ci --loglevel=error \
 && find node_modules -type f \( -name '*.map' -o -name '*.mjs' -o -name '*.ts' \) -delete

FROM ${BASE} AS build
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
      $(python3 -m ensurepip --version >/dev/null 2>&1 || echo python3 python3-venv) \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY requirements.lock requirements-dev.lock ./
COPY deploy/bundle deploy/bundle
COPY deploy/__init__.py deploy/
# The drivers that production wants are locked with the tests that use them.
RUN python3 -m venv /opt/fairlead \
 && python3 -m deploy.bundle.lock requirements-dev.lock asyncpg obstore > drivers.lock \
 && /opt/fairlead/bin/pip install --quiet --disable-pip-version-check --no-cache-dir --require-hashes \
      -r requirements.lock -r drivers.lock
COPY pyproject.toml README.md LICENSE ./
COPY protos protos
COPY shelld shelld
COPY proxy proxy
COPY --from=emulator /src/node_modules proxy/web/terminal/emulator/node_modules
RUN /opt/fairlead/bin/pip install --quiet --disable-pip-version-check --no-cache-dir --no-deps . \
 && /opt/fairlead/bin/pip uninstall --quiet --yes pip

FROM ${BASE}
# git fetches blueprints; the rest is for workspaces of the local backend, which are processes in here.
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
      ca-certificates git less openssh-client openssh-sftp-server procps rsync \
      $(command -v python3 >/dev/null || echo python3) \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 10001 fairlead \
 && useradd --uid 10001 --gid 10001 --home-dir /var/lib/fairlead --shell /bin/bash fairlead \
 && install -d -o fairlead -g fairlead -m 0700 /var/lib/fairlead
COPY --from=build /opt/fairlead /opt/fairlead
COPY deploy/compose/blueprints /etc/fairlead/blueprints
ENV PATH=/opt/fairlead/bin:$PATH \
    FAIRLEAD_HOME=/var/lib/fairlead \
    FAIRLEAD_LISTEN=*:2222 \
    FAIRLEAD_BLUEPRINT__DIRECTORY=/etc/fairlead/blueprints
USER 10001:10001
WORKDIR /var/lib/fairlead
VOLUME /var/lib/fairlead
EXPOSE 2222
STOPSIGNAL SIGTERM
# Bash instead of Python: a probe every few seconds should cost nothing.
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s \
  CMD ["bash", "-c", "read -r line </dev/tcp/localhost/${FAIRLEAD_LISTEN##*:} && [[ $line == SSH-2.0-* ]]"]
ENTRYPOINT ["fairlead"]
CMD ["serve"]
