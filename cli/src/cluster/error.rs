//! Why a cluster did not do what it was asked, and what to do.

use std::error::Error;
use std::fmt;

use kube::client::AuthError;
use kube::config::KubeconfigError;
use kube::core::Status;

use super::Kind;

/// What an API server was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The verb, as in a role.
    pub verb: &'static str,
    /// The kind, as in YAML.
    pub kind: String,
    /// The resource, as in a role.
    pub resource: String,
    /// The one object, if one is meant.
    pub name: Option<String>,
    /// Its namespace; none: all, or the cluster.
    pub namespace: Option<String>,
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if let Some(name) = &self.name {
            write!(f, " {name}")?;
        }
        match &self.namespace {
            Some(namespace) => write!(f, " in namespace {namespace}"),
            None => f.write_str(" in the whole cluster"),
        }
    }
}

/// Why a cluster did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Nothing says which cluster.
    #[error(
        "there is no kubeconfig; name one by --kubeconfig or KUBECONFIG, or run `securelink` for a process on this machine"
    )]
    NoKubeconfig,
    /// It cannot be read, or does not say enough.
    #[error(
        "the kubeconfig cannot be used: {0}; check --kubeconfig, KUBECONFIG and --context (`kubectl config get-contexts`)"
    )]
    Kubeconfig(KubeconfigError),
    /// Its credentials or certificates cannot be used.
    #[error("the credentials of the kubeconfig cannot be used: {0}; log in anew, or check the context's user")]
    Credentials(String),
    /// Nobody answers.
    #[error("the API server {server} cannot be reached: {cause}; check the context, the network and the cluster")]
    Unreachable {
        /// Its address.
        server: String,
        /// What the system said.
        cause: String,
    },
    /// It does not answer in time.
    #[error(
        "the API server {server} did not {asked} within {seconds} s; whether it did later is not known, so ask again"
    )]
    TimedOut {
        /// Its address.
        server: String,
        /// What for.
        asked: Asked,
        /// How long it was waited for.
        seconds: u64,
    },
    /// It does not know who asks.
    #[error("the API server does not accept your credentials; log in anew, or check the context's user")]
    Unauthorized,
    /// It knows who asks, and says no.
    #[error("you may not {asked} ({said}); {}", remedy(asked))]
    Forbidden {
        /// What for.
        asked: Asked,
        /// What it said.
        said: String,
    },
    /// It does not know the kind.
    #[error("the cluster does not know {resource}; install the chart securelink-crds, or check the context")]
    NoKind {
        /// The kind's resource.
        resource: String,
    },
    /// The namespace is not there.
    #[error("there is no namespace {0}; check its name, or create it")]
    NoNamespace(String),
    /// The object is not there.
    #[error("there is no {kind} {name} in namespace {namespace}; check its name, and -n")]
    NotFound {
        /// The kind.
        kind: String,
        /// The object.
        name: String,
        /// Where it was looked for.
        namespace: String,
    },
    /// It refused for another reason.
    #[error("the API server did not {asked}: {said}; mend that and ask again")]
    Refused {
        /// What for.
        asked: Asked,
        /// What it said.
        said: String,
    },
    /// It answered with something else than an answer.
    #[error(
        "the answer to {asked} cannot be understood: {cause}; compare the versions of this program and of the cluster's kinds"
    )]
    Unreadable {
        /// What for.
        asked: Asked,
        /// Why not.
        cause: String,
    },
    /// An object is in the way, or not there, as the text says.
    #[error("{0}")]
    InTheWay(String),
}

impl ClusterError {
    /// There is no such object.
    pub fn missing<K: Kind>(namespace: &str, name: &str) -> Self {
        Self::NotFound { kind: K::kind(&()).into_owned(), name: name.to_owned(), namespace: namespace.to_owned() }
    }

    /// Before a request: the client cannot be made.
    pub(super) fn unusable(error: &kube::Error) -> Self {
        Self::Credentials(cause(error))
    }

    /// Of a request.
    pub(super) fn of(error: kube::Error, asked: Asked, server: &str) -> Self {
        match error {
            kube::Error::Api(status) => Self::answered(&status, asked),
            kube::Error::Auth(_) => Self::unusable(&error),
            kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => Self::Unreadable { asked, cause: cause(&error) },
            _ => Self::Unreachable { server: server.to_owned(), cause: cause(&error) },
        }
    }

    /// Of an answer that says no.
    pub(super) fn answered(status: &Status, asked: Asked) -> Self {
        let details = status.details.as_ref();
        let about = |kind: &str| details.is_some_and(|details| details.kind == kind);
        match (status.code, asked.namespace.clone(), asked.name.clone()) {
            (401, ..) => Self::Unauthorized,
            (403, ..) => Self::Forbidden { asked, said: status.message.clone() },
            (404, Some(namespace), _) if about("namespaces") => Self::NoNamespace(namespace),
            // A kind that is not installed is a path that is not there: no object is named.
            (404, ..) if details.is_none_or(|details| details.name.is_empty()) => {
                Self::NoKind { resource: asked.resource }
            }
            (404, Some(namespace), Some(name)) => Self::NotFound { kind: asked.kind, name, namespace },
            _ => Self::Refused { said: status.message.clone(), asked },
        }
    }
}

/// The innermost cause: the outer ones say only that there was one.
fn cause(error: &kube::Error) -> String {
    // What a login program printed may be a token.
    if let kube::Error::Auth(AuthError::AuthExecRun { cmd, out }) = error {
        return format!("`{cmd}` failed with {}", out.status);
    }
    let mut last: &dyn Error = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

/// Which role to ask for.
fn remedy(asked: &Asked) -> String {
    let role = match (asked.verb, asked.resource.as_str()) {
        ("delete", "linkcuts") => "securelink-resume",
        (_, "linkcuts") => "securelink-cut",
        ("get" | "list" | "watch", "securelinks" | "linkidentities") => "securelink-view",
        (_, "securelinks" | "linkidentities") => "securelink-edit",
        _ => return "ask an administrator of the cluster to run this command".to_owned(),
    };
    let bind = match &asked.namespace {
        Some(namespace) => format!("kubectl -n {namespace} create rolebinding {role} --clusterrole={role} --user=YOU"),
        None => format!("kubectl create clusterrolebinding {role} --clusterrole={role} --user=YOU"),
    };
    format!("ask an administrator to bind you to {role}: `{bind}`")
}
