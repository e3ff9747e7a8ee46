# docker build -t deauville .
# docker run --rm -v "$PWD:/work" deauville prepro-script --input DICOM_ROOT --output mips
# --build-arg TORCH_INDEX=URL takes PyTorch from that index: of its CPU wheels, see pytorch.org/get-started
FROM python:3.12-slim
ARG TORCH_INDEX=""
WORKDIR /opt/deauville
COPY . .
RUN if [ -n "$TORCH_INDEX" ]; then \
        pip install --no-cache-dir --index-url "$TORCH_INDEX" $(grep -hE '^torch(vision)?==' requirements.txt); \
    fi \
 && pip install --no-cache-dir ".[search,dicom,tensorboard]" \
 && rm -rf build *.egg-info \
 && printf '#!/bin/sh\nname=$1; shift\nexec "deauville-$name" "$@"\n' > /usr/local/bin/deauville \
 && chmod +x /usr/local/bin/deauville
RUN useradd --create-home user
USER user
WORKDIR /work
ENTRYPOINT ["deauville"]
CMD ["predict", "--help"]
