# MCPServers of type node-runtime: the KAOS image with Node.js of Debian.
#   docker build -t kaos/kaos-node:0.1.0 -f deploy/node.Dockerfile .
ARG KAOS=kaos/kaos:0.1.0
FROM ${KAOS}
USER root
RUN apt-get update \
 && apt-get install -y --no-install-recommends nodejs npm \
 && rm -rf /var/lib/apt/lists/*
USER 65532:65532
