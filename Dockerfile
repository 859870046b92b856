# The image of our binary: one static program in an image of nothing else, as a user without a name. No shell.
#
#   docker build -t securelink .
#
# Without a registry, from a static binary that is there already; the build's context is the folder that holds it:
#
#   docker build -t securelink -f Dockerfile --target from-binary --build-arg BINARY=securelink FOLDER

# First, because a builder without BuildKit makes every stage above the one it was asked for.
FROM scratch AS from-binary
ARG BINARY=securelink
COPY ${BINARY} /securelink
USER 65532:65532
ENTRYPOINT ["/securelink"]

# The version of rust-toolchain.toml, which stays out of the context: the image has this toolchain and needs no lints.
FROM rust:1.95.0-bookworm AS build
WORKDIR /src
COPY . .
# A named target, even if it is the machine's own: else the flag would reach procedural macros, which cannot be static.
RUN target=$(rustc -vV | sed -n 's/^host: //p') && \
    RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --package securelink --target "$target" && \
    strip --strip-debug -o /securelink "target/$target/release/securelink"

FROM scratch
COPY --from=build /securelink /securelink
USER 65532:65532
ENTRYPOINT ["/securelink"]
