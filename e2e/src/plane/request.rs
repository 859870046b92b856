//! What a request to the API server is about, in the words of RBAC.

use std::fmt;

use hyper::Method;
use serde_json::Value;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// Reads one object.
    Get,
    /// Reads all.
    List,
    /// Follows changes.
    Watch,
    /// Makes one.
    Create,
    /// Replaces one.
    Update,
    /// Changes one, or applies it.
    Patch,
    /// Removes one.
    Delete,
    /// Removes several.
    DeleteCollection,
}

impl Verb {
    /// As RBAC has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }

    /// Whether it changes anything.
    pub fn writes(self) -> bool {
        !matches!(self, Self::Get | Self::List | Self::Watch)
    }
}

/// One request. What a path does not name is empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Call {
    /// What is done.
    pub verb: Verb,
    /// The API group; empty for the oldest.
    pub group: String,
    /// In the plural, with the part of the object: `securelinks/status`. For what is no resource, the path.
    pub resource: String,
    /// The namespace.
    pub namespace: String,
    /// The object's name; of one that is created, what its body says.
    pub name: String,
}

impl Call {
    /// Reads the head and the body of a request.
    pub(super) fn read(method: &Method, path: &str, query: Option<&str>, body: &[u8]) -> Self {
        let mut parts = path.split('/').filter(|part| !part.is_empty());
        let group = match parts.next() {
            Some("api") => Some(String::new()),
            Some("apis") => parts.next().map(str::to_owned),
            _ => None,
        };
        let version = parts.next();
        let mut rest: Vec<&str> = parts.collect();
        let (Some(group), Some(_), false) = (group, version, rest.is_empty()) else {
            return Self {
                verb: verb(method, true, false),
                group: String::new(),
                resource: path.to_owned(),
                namespace: String::new(),
                name: String::new(),
            };
        };
        // A namespace itself is a resource too.
        let namespace = if rest.len() > 2 && rest[0] == "namespaces" && !matches!(rest[2], "status" | "finalize") {
            rest.drain(..2).nth(1)
        } else {
            None
        };
        let (resource, name, part) = (rest[0], rest.get(1).copied(), rest.get(2).copied());
        let watches = query.is_some_and(|query| query.split('&').any(|pair| matches!(pair, "watch=true" | "watch=1")));
        let created = || serde_json::from_slice::<Value>(body).ok()?["metadata"]["name"].as_str().map(str::to_owned);
        Self {
            verb: verb(method, name.is_some(), watches),
            group,
            resource: part.map_or_else(|| resource.to_owned(), |part| format!("{resource}/{part}")),
            namespace: namespace.unwrap_or_default().to_owned(),
            name: name.map(str::to_owned).or_else(created).unwrap_or_default(),
        }
    }

    /// Whether it changes anything but a lease.
    pub fn is_write(&self) -> bool {
        self.verb.writes() && self.resource != "leases"
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}/{}", self.verb.as_str(), self.resource, self.namespace, self.name)
    }
}

fn verb(method: &Method, named: bool, watches: bool) -> Verb {
    match *method {
        Method::POST => Verb::Create,
        Method::PUT => Verb::Update,
        Method::PATCH => Verb::Patch,
        Method::DELETE if named => Verb::Delete,
        Method::DELETE => Verb::DeleteCollection,
        _ if watches => Verb::Watch,
        _ if named => Verb::Get,
        _ => Verb::List,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_called_as_rbac_calls_them() {
        let call = |method: Method, uri: &str, body: &str| {
            let (path, query) = uri.split_once('?').map_or((uri, None), |(path, query)| (path, Some(query)));
            let call = Call::read(&method, path, query, body.as_bytes());
            (call.group.clone(), call.to_string())
        };
        for (method, uri, body, group, said) in [
            (Method::GET, "/api/v1/namespaces/a/secrets?limit=500", "", "", "list secrets a/"),
            (Method::GET, "/api/v1/namespaces/a/secrets?watch=true&x=y", "", "", "watch secrets a/"),
            (Method::GET, "/api/v1/namespaces", "", "", "list namespaces /"),
            (Method::GET, "/api/v1/namespaces/a", "", "", "get namespaces /a"),
            (Method::PUT, "/api/v1/namespaces/a/finalize", "", "", "update namespaces/finalize /a"),
            (
                Method::POST,
                "/apis/apps/v1/namespaces/a/deployments",
                r#"{"metadata":{"name":"x"}}"#,
                "apps",
                "create deployments a/x",
            ),
            (
                Method::PATCH,
                "/apis/securelink.dev/v1alpha1/namespaces/a/securelinks/x/status",
                "",
                "securelink.dev",
                "patch securelinks/status a/x",
            ),
            (Method::DELETE, "/api/v1/namespaces/a/pods/p", "", "", "delete pods a/p"),
            (Method::DELETE, "/api/v1/namespaces/a/pods", "", "", "deletecollection pods a/"),
            (
                Method::GET,
                "/apis/securelink.dev/v1alpha1/securelinks?watch=1",
                "",
                "securelink.dev",
                "watch securelinks /",
            ),
            (Method::GET, "/readyz", "", "", "get /readyz /"),
            (Method::GET, "/apis/apps/v1", "", "", "get /apis/apps/v1 /"),
        ] {
            assert_eq!(call(method, uri, body), (group.to_owned(), said.to_owned()), "{uri}");
        }
    }
}
