# ModelAPIs that ask LiteLLM (a provider, or LiteLLM's configuration): the KAOS image with it.
#   docker build -t kaos/kaos-litellm:0.1.0 -f deploy/litellm.Dockerfile .
ARG KAOS=kaos/kaos:0.1.0
FROM ${KAOS}
USER root
COPY requirements/ci.txt /tmp/ci.txt
# By the base image's pip: the environment of KAOS has none.
RUN /usr/local/bin/python -m pip --python /opt/kaos/bin/python install --no-cache-dir --compile \
      --constraint /tmp/ci.txt litellm \
 && rm /tmp/ci.txt
USER 65532:65532
