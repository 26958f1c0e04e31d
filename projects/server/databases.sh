#!/bin/sh
# Run once by the image of PostgreSQL: MLflow's role and databases; the password is in no command line.
set -eu
psql --username=postgres --set=ON_ERROR_STOP=1 <<'SQL'
\set password `cat /run/secrets/database`
CREATE ROLE mlflow LOGIN PASSWORD :'password';
CREATE DATABASE mlflow OWNER mlflow;
CREATE DATABASE mlflow_auth OWNER mlflow;
SQL
