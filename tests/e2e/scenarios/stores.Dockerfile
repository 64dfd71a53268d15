# Redis and PostgreSQL for the scenarios about sessions, from Debian; what is run is in stores.py.
ARG BASE=python:3.13-slim
FROM ${BASE}
RUN apt-get update && apt-get install -y --no-install-recommends redis-server postgresql
USER postgres
