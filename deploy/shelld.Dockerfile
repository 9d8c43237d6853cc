# The image whose init container brings shelld into workspaces: the bundle and nothing else.
# BASE is any Debian-like image with Python 3.11 or newer in its packages, or with one installed.
ARG BASE=debian:bookworm-slim
FROM ${BASE} AS build
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
      binutils libnss-wrapper openssh-sftp-server \
      $(python3 -m pip --version >/dev/null 2>&1 || echo python3 python3-pip) \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY requirements.lock ./
COPY deploy deploy
COPY protos protos
COPY shelld shelld
RUN python3 -m deploy.bundle --output /fairlead

FROM scratch
COPY --from=build /fairlead /fairlead
ENTRYPOINT ["/fairlead/lib/ld.so", "--library-path", "/fairlead/lib", "/fairlead/bin/python3", "-I", "-S", "/fairlead/app"]
CMD ["--version"]
