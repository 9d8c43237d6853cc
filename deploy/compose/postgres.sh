#!/bin/sh
# Makes the cluster and the database on the first start, in one step that is either done or not; then serves.
# POSTGRES_PASSWORD_FILE instead of POSTGRES_PASSWORD holds from every start on, for a database of before as well.
set -eu
umask 077
[ -z "${POSTGRES_PASSWORD_FILE:-}" ] || POSTGRES_PASSWORD=$(cat "$POSTGRES_PASSWORD_FILE")
if [ ! -s "$PGDATA/ready" ]; then
    rm -rf "$PGDATA"/*
    password=$(mktemp)
    printf '%s\n' "$POSTGRES_PASSWORD" >"$password"
    initdb --username="$PGUSER" --pwfile="$password" --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8 >/dev/null
    rm "$password"
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    echo "CREATE DATABASE $PGDATABASE" | postgres --single -D "$PGDATA" postgres >/dev/null
    echo 1 >"$PGDATA/ready"
fi
if [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then
    quoted=$(printf '%s' "$POSTGRES_PASSWORD" | sed "s/'/''/g")
    printf "ALTER ROLE %s PASSWORD '%s'\n" "$PGUSER" "$quoted" | postgres --single -D "$PGDATA" postgres >/dev/null
fi
unset POSTGRES_PASSWORD
exec postgres -c listen_addresses='*' -c unix_socket_directories=/tmp "$@"
