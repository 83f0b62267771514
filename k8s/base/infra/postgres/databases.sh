#!/bin/sh
# A database and two roles for each service, and one role that reads them all: what `stampede up` makes, see
# tools/stampede/src/infra/postgres/databases.rs. The role of the database's name serves and can connect to no other; its
# schema belongs to the one with `_owner` behind it, which migrates, and gives the first its rights (libs/service/README.md).
#
# It runs twice: by the image when there are no data yet, before the server takes connections, so that no service meets
# a server that does not know it; and as a Job with every deployment, for databases and passwords that are new. It may
# run any number of times.
set -eu

sql() {
    psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username postgres --dbname postgres "$@"
}

# The password goes through the environment: not on a command line, and not into the server's log.
role() {
    ROLE_PASSWORD=$(cat "/passwords/$1") sql --set name="$1" <<'SQL'
\getenv password ROLE_PASSWORD
SET log_statement = none;
SET log_min_error_statement = panic;
SELECT format('%s ROLE %I LOGIN PASSWORD %L',
              CASE WHEN EXISTS (SELECT FROM pg_roles WHERE rolname = :'name') THEN 'ALTER' ELSE 'CREATE' END,
              :'name', :'password') \gexec
SQL
}

role verifier
sql <<'SQL'
REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC;
GRANT pg_read_all_data TO verifier;
ALTER ROLE verifier SET default_transaction_read_only = on;
SQL

for name in catalog inventory lobby notify orders payments psp_sim; do
    role "$name"
    role "${name}_owner"
    sql --set name="$name" --set owner="${name}_owner" <<'SQL'
SELECT format('CREATE DATABASE %I OWNER %I', :'name', :'owner')
    WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'name') \gexec
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"name" TO :"name", verifier;
-- Before the owner had a role of its own, all of it was the serving role's, which goes on serving meanwhile.
\connect :"name"
BEGIN;
SELECT EXISTS (SELECT FROM pg_class WHERE relowner = quote_ident(:'name')::regrole) AS moves \gset
REASSIGN OWNED BY :"name" TO :"owner";
\if :moves
    GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO :"name";
    GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO :"name";
\endif
COMMIT;
SQL
done
