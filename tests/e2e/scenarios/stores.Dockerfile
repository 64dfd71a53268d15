# Redis and PostgreSQL for the scenarios about sessions, from Debian; what is run is in stores.py.
ARG BASE=python:3.13-slim
FROM ${BASE}
# Unpacked and not set up: that would make a certificate and a database, which nobody needs, and not
# every builder lets it write to /etc/ssl.
RUN useradd postgres && apt-get update \
 && apt-get install -y --no-install-recommends --download-only redis-server postgresql \
 && dpkg --unpack --force-depends /var/cache/apt/archives/*.deb && ldconfig
USER postgres
