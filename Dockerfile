# The image of our binaries, `securelink` (a relay is `securelink relay`) and `securelink-operator`: static programs in an
# image of nothing else, as a user without a name. No shell.
#
#   docker build -t securelink .
#
# Without a registry, from static binaries that are there already; the build's context is the folder that holds them:
#
#   docker build -t securelink -f Dockerfile --target from-binary FOLDER

# First, because a builder without BuildKit makes every stage above the one it was asked for.
FROM scratch AS from-binary
COPY securelink securelink-operator /
USER 65532:65532
ENTRYPOINT ["/securelink"]

# The version of rust-toolchain.toml, which stays out of the context: the image has this toolchain and needs no lints.
FROM rust:1.95.0-bookworm AS build
WORKDIR /src
COPY . .
# A named target, even if it is the machine's own: else the flag would reach procedural macros, which cannot be static.
RUN target=$(rustc -vV | sed -n 's/^host: //p') && \
    RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked \
        --package securelink --package securelink-operator --target "$target" && \
    for binary in securelink securelink-operator; do \
        strip --strip-debug -o "/$binary" "target/$target/release/$binary" || exit 1; \
    done

FROM scratch
COPY --from=build /securelink /securelink-operator /
USER 65532:65532
ENTRYPOINT ["/securelink"]
