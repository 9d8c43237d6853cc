#!/bin/sh
# Makes what the services of docker-compose.yml know of each other, once: random passwords of PostgreSQL and NATS, and the
# settings of the proxy that name them. They are in a volume that these services mount and no other container.
set -eu
cd "${1:?the directory of the volume}"
[ ! -e proxy.yaml ] || exit 0
password() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

postgres=${POSTGRES_PASSWORD:-$(password)} nats=$(password)
printf '%s' "$postgres" >postgres
printf '%s' "$nats" >nats
printf 'authorization {user: fairlead, password: "%s"}\n' "$nats" >nats.conf
cat >proxy.new <<END
identity: {database_url: "postgresql+asyncpg://fairlead:$postgres@postgres/fairlead"}
events: {urls: ["nats://nats:4222"], user: fairlead, password_file: $PWD/nats}
END
mv proxy.new proxy.yaml
