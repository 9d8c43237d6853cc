# Images of the kinds that people bring, made from what a Debian mirror has.
ARG BASE
FROM ${BASE} AS tools
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
      busybox-static gcc libc6-dev musl-tools >/dev/null
COPY probe.c /
RUN mkdir -p /musl/lib \
 && gcc -static -o /probe-static /probe.c \
 && musl-gcc -o /probe-musl /probe.c \
 && cp /lib/ld-musl-*.so.1 /musl/lib/

# A distribution with glibc, sudo and a user of the uid that ours will have.
FROM ${BASE} AS glibc
RUN apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends sudo >/dev/null \
 && (id dev >/dev/null 2>&1 || useradd -m -u 1000 dev)
COPY --from=tools /probe-static /probe
ENV LD_LIBRARY_PATH=/nowhere PYTHONHOME=/nowhere PATH=/opt/tools/bin:$PATH:/usr/bin:/bin

# Nothing but busybox.
FROM scratch AS busybox
COPY --from=tools /bin/busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
COPY --from=tools /probe-static /probe
RUN ["/bin/busybox", "mkdir", "-m", "1777", "/tmp"]

# Another libc, whose loader and library are one file.
FROM scratch AS musl
COPY --from=tools /musl/lib /lib
COPY --from=tools /bin/busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
COPY --from=tools /probe-musl /probe

# One static program: no shell, no libc, no /tmp, no /etc.
FROM scratch AS nothing
COPY --from=tools /probe-static /probe
