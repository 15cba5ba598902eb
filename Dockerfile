# An image with the binary, the roots of the public certificate authorities, and nothing else.
#
#   docker build -t penstock:0.1.0 .        or        buildah build -t penstock:0.1.0 .
#
# PROFILE=quick builds in a fraction of the time, for tests. BUILDER may name any image with a Rust toolchain, a C compiler and
# /etc/ssl/certs/ca-certificates.crt.
ARG BUILDER=rust:1.95
FROM ${BUILDER} AS builder
ARG PROFILE=release
WORKDIR /src
COPY . .
# With an explicit target the flags hold for the program alone, not for build scripts and macros, which cannot be static.
RUN set -eu; \
    target=$(rustc -vV | sed -n 's/^host: //p'); \
    export RUSTFLAGS="-C target-feature=+crt-static"; \
    if [ "$PROFILE" = release ]; then pgo/build; \
    else cargo build --locked --bin penstock --profile "$PROFILE" --target "$target"; fi; \
    mkdir -p /out/etc/ssl/certs /out/usr/local/bin /out/var/lib/penstock /out/tmp; \
    cp "target/$target/$PROFILE/penstock" /out/usr/local/bin/penstock; \
    cp /etc/ssl/certs/ca-certificates.crt /out/etc/ssl/certs/; \
    echo 'penstock:x:65532:65532:penstock:/var/lib/penstock:/sbin/nologin' >/out/etc/passwd; \
    echo 'penstock:x:65532:' >/out/etc/group; \
    echo 'hosts: files dns' >/out/etc/nsswitch.conf; \
    chmod 1777 /out/tmp; \
    chmod 0700 /out/var/lib/penstock; \
    chown 65532:65532 /out/var/lib/penstock; \
    if ldd /out/usr/local/bin/penstock 2>&1 | grep -q '=>'; then echo 'the binary is not static' >&2; exit 1; fi

FROM scratch
COPY --from=builder /out/ /
USER 65532:65532
ENV PENSTOCK_STATE_DIR=/var/lib/penstock
# http, https, admin: above 1023, so that no capability is needed.
EXPOSE 8080 8443 9090
ENTRYPOINT ["/usr/local/bin/penstock"]
CMD ["controller"]
