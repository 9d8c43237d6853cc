# PostgreSQL from the packages of BASE: for one machine, where no registry is at hand.
ARG BASE=debian:bookworm-slim
FROM ${BASE}
# The package takes the account as it finds it; a number is what Kubernetes wants to know.
RUN groupadd --gid 10002 postgres && useradd --uid 10002 --gid 10002 --home-dir /var/lib/postgresql postgres \
 && apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql-common \
 && sed -i 's/^#\?create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql \
 && rm -rf /var/lib/apt/lists/* \
 && ln -s /usr/lib/postgresql/*/bin /usr/local/pgsql \
 && install -d -o postgres -g postgres -m 0700 /var/lib/postgresql/data \
 && install -d -o postgres -g postgres -m 0755 /run/credentials
COPY deploy/compose/postgres.sh /usr/local/bin/serve-postgres
COPY deploy/compose/credentials.sh /usr/local/bin/make-credentials
ENV PATH=/usr/local/pgsql:$PATH PGDATA=/var/lib/postgresql/data PGUSER=fairlead PGDATABASE=fairlead
USER 10002:10002
VOLUME /var/lib/postgresql/data
EXPOSE 5432
# TERM would wait for every client to leave; INT ends them and shuts down in order.
STOPSIGNAL SIGINT
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s CMD ["pg_isready", "-q", "-h", "127.0.0.1"]
ENTRYPOINT ["serve-postgres"]
