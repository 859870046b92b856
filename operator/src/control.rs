//! The control CA, in the operator's own namespace, and this replica's certificate under it.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;
use securelink_crds::keys::{COMPONENT, MANAGED_BY, MANAGER, NAME, PRODUCT};
use securelink_pki::control::{ControlAuthority, ControllerError};
use securelink_pki::issue::IssueError;
use securelink_pki::tls::{Credentials, TlsError};

/// The Secret's name.
pub const SECRET: &str = "securelink-control-ca";
const KEY: &str = "ca.key";
const CERTIFICATE: &str = "ca.crt";

/// Why there is no control CA.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The API server.
    #[error("the Secret {SECRET} cannot be read or made: {0}")]
    Api(#[from] kube::Error),
    /// What is stored.
    #[error(
        "the Secret {SECRET} holds no usable control CA: {0}; restore it, or delete it to have relays trust a new one"
    )]
    Damaged(IssueError),
    /// What is stored lacks a file.
    #[error(
        "the Secret {SECRET} lacks {KEY} or {CERTIFICATE}; restore it, or delete it to have relays trust a new one"
    )]
    Incomplete,
    /// Making one.
    #[error("the control CA cannot be made: {0}")]
    Make(#[from] IssueError),
}

/// This replica as relays know it.
pub struct Controller {
    authority: ControlAuthority,
    current: Mutex<Option<(Arc<Credentials>, Timestamp)>>,
}

impl Controller {
    /// Reads the control CA, or makes it: of several replicas that start at once one creates it and all read it.
    pub async fn open(secrets: &Api<Secret>, now: Timestamp) -> Result<Self, ControlError> {
        let stored = match secrets.get_opt(SECRET).await? {
            Some(stored) => stored,
            None => match secrets.create(&PostParams::default(), &secret(&ControlAuthority::generate(now)?)).await {
                Ok(made) => made,
                Err(kube::Error::Api(status)) if status.code == 409 => secrets.get(SECRET).await?,
                Err(error) => return Err(error.into()),
            },
        };
        let text =
            |file: &str| stored.data.as_ref()?.get(file).map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned());
        let (Some(key), Some(certificate)) = (text(KEY), text(CERTIFICATE)) else {
            return Err(ControlError::Incomplete);
        };
        let authority = ControlAuthority::from_pem(&key, &certificate).map_err(ControlError::Damaged)?;
        Ok(Self { authority, current: Mutex::default() })
    }

    /// What relays are told to trust.
    pub fn authority_pem(&self) -> String {
        self.authority.certificate_pem()
    }

    /// This replica's certificate, made anew when it is due.
    pub fn credentials(&self, now: Timestamp) -> Result<Arc<Credentials>, ControllerError> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((credentials, due)) = current.as_ref()
            && now < *due
        {
            return Ok(Arc::clone(credentials));
        }
        let (credentials, due) = self.authority.controller(now)?;
        let credentials = Arc::new(credentials);
        *current = Some((Arc::clone(&credentials), due));
        Ok(credentials)
    }
}

/// Why a relay cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// No certificate.
    #[error(transparent)]
    Controller(#[from] ControllerError),
    /// No TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

fn secret(authority: &ControlAuthority) -> Secret {
    let file = |name: &str, text: &str| (name.to_owned(), ByteString(text.as_bytes().to_vec()));
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    Secret {
        metadata: ObjectMeta {
            name: Some(SECRET.to_owned()),
            labels: Some([label(COMPONENT, "control-ca"), label(NAME, PRODUCT), label(MANAGED_BY, MANAGER)].into()),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".to_owned()),
        data: Some([file(KEY, &authority.key().to_pem()), file(CERTIFICATE, &authority.certificate_pem())].into()),
        ..Secret::default()
    }
}
