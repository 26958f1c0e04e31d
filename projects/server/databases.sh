#!/bin/sh
# Run once by the image of PostgreSQL, as its account: MLflow's role and databases; the password is in no command line.
set -eu
: "${MLFLOW_DATABASE_PASSWORD:?is not set; it comes from server/compose.postgres.env (serve.py --write-only)}"
psql --username=postgres --set=ON_ERROR_STOP=1 <<'SQL'
\getenv password MLFLOW_DATABASE_PASSWORD
CREATE ROLE mlflow LOGIN PASSWORD :'password';
CREATE DATABASE mlflow OWNER mlflow;
CREATE DATABASE mlflow_auth OWNER mlflow;
SQL
