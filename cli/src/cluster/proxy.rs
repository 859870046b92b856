//! Which proxy leads to an API server, as kubectl decides: the kubeconfig's for the cluster, else the environment's. Pure.
//!
//! kube's own choice holds `NO_PROXY` against the proxy's name instead of the API server's.

use std::net::IpAddr;

use hyper::Uri;
use kube::config::Kubeconfig;

/// The proxy, if one is wanted. `environment` gives a variable's value.
pub(super) fn wanted(
    kubeconfig: &Kubeconfig,
    context: Option<&str>,
    server: &Uri,
    environment: impl Fn(&str) -> Option<String>,
) -> Option<String> {
    let known = |text: Option<String>| text.filter(|text| !text.is_empty());
    let context = context.or(kubeconfig.current_context.as_deref());
    let context = kubeconfig.contexts.iter().find(|named| Some(named.name.as_str()) == context);
    let cluster = context.and_then(|named| named.context.as_ref()).map(|context| context.cluster.as_str());
    let cluster = kubeconfig.clusters.iter().find(|named| Some(named.name.as_str()) == cluster);
    let written = cluster.and_then(|named| named.cluster.as_ref()).and_then(|cluster| cluster.proxy_url.clone());
    if let Some(proxy) = known(written) {
        return Some(proxy);
    }
    let first = |names: [&str; 2]| names.into_iter().find_map(|name| known(environment(name)));
    if server.scheme_str() != Some("https") {
        return None;
    }
    let proxy = first(["HTTPS_PROXY", "https_proxy"])?;
    let without = first(["NO_PROXY", "no_proxy"]).unwrap_or_default();
    (!is_direct(server.host().unwrap_or_default(), &without)).then_some(proxy)
}

/// Whether a host is reached without a proxy: this machine, and what the list names by name, domain, address or network.
fn is_direct(host: &str, list: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    let address: Option<IpAddr> = host.parse().ok();
    if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
        return true;
    }
    list.split(',').map(|entry| entry.trim().to_ascii_lowercase()).any(|entry| match address {
        _ if entry == "*" => true,
        Some(address) => {
            let network = entry.parse::<ipnet::IpNet>();
            entry.parse() == Ok(address) || network.is_ok_and(|network| network.contains(&address))
        }
        None => {
            let domain = entry.trim_start_matches("*.").trim_start_matches('.');
            let below = host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
            !domain.is_empty() && below
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(written: &str, server: &str, without: &str) -> Option<String> {
        let cluster = serde_json::json!({ "server": server, "proxy-url": written });
        let kubeconfig = serde_json::json!({
            "current-context": "here",
            "clusters": [{ "name": "one", "cluster": cluster }],
            "contexts": [{ "name": "here", "context": { "cluster": "one", "user": "me" } }],
        });
        let kubeconfig: Kubeconfig = serde_json::from_value(kubeconfig).unwrap();
        let environment = |name: &str| match name {
            "HTTPS_PROXY" => Some("http://proxy.corp.example:3128".to_owned()),
            "NO_PROXY" => Some(without.to_owned()),
            _ => None,
        };
        wanted(&kubeconfig, None, &server.parse().unwrap(), environment)
    }

    #[test]
    fn the_kubeconfigs_proxy_comes_before_the_environments_and_no_list_holds_against_it() {
        assert_eq!(chosen("http://other:1", "https://api.example", "*").as_deref(), Some("http://other:1"));
        assert_eq!(chosen("", "https://api.example", "").as_deref(), Some("http://proxy.corp.example:3128"));
    }

    #[test]
    fn this_machine_and_what_the_list_names_are_reached_without_the_environments_proxy() {
        for (server, without) in [
            ("https://127.0.0.1:6443", ""),
            ("https://[::1]:6443", ""),
            ("https://localhost", ""),
            ("http://api.example", ""),
            ("https://api.example", "*"),
            ("https://api.example", "x, .example"),
            ("https://api.corp.example", "corp.example"),
            ("https://10.1.2.3:6443", "10.0.0.0/8"),
            ("https://10.1.2.3:6443", "10.1.2.3"),
        ] {
            assert_eq!(chosen("", server, without), None, "{server} {without}");
        }
        // The list speaks of API servers, not of the proxy.
        for (server, without) in [
            ("https://api.example", "corp.example"),
            ("https://myexample", "example"),
            ("https://10.1.2.3", "11.0.0.0/8"),
        ] {
            assert!(chosen("", server, without).is_some(), "{server} {without}");
        }
    }
}
