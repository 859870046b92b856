//! The control CA, in the operator's own namespace, and this replica's certificate under it.
//!
//! It is replaced while the operator runs: what the Secret says counts from when it is seen. A second certificate beside the
//! CA's own is one that relays trust as well, the next CA or the one before, so that no relay is ever without one it knows.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
use tokio_util::sync::CancellationToken;

use crate::hub::Change;
use crate::world::World;

/// The Secret's name.
pub const SECRET: &str = "securelink-control-ca";
const KEY: &str = "ca.key";
const CERTIFICATE: &str = "ca.crt";
const OTHER: &str = "other.crt";

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
    /// The second certificate.
    #[error(
        "{OTHER} in the Secret {SECRET} is no CA certificate: {0}; put the next or the previous CA there, or remove it"
    )]
    Other(IssueError),
    /// Making one.
    #[error("the control CA cannot be made: {0}")]
    Make(#[from] IssueError),
}

/// This replica as relays know it.
pub struct Controller(Mutex<Held>);

struct Held {
    authority: ControlAuthority,
    other: Option<String>,
    current: Option<(Arc<Credentials>, Timestamp)>,
}

impl Controller {
    /// A replica under this CA.
    pub fn new(authority: ControlAuthority) -> Self {
        Self(Mutex::new(Held { authority, other: None, current: None }))
    }

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
        Ok(Self(Mutex::new(read(&stored)?)))
    }

    /// Takes what the Secret says now; whether it is something else than before. What cannot be used changes nothing.
    pub fn adopt(&self, stored: &Secret) -> Result<bool, ControlError> {
        let (next, mut held) = (read(stored)?, self.lock());
        let news = next.authorities() != held.authorities();
        if news {
            *held = next;
        }
        Ok(news)
    }

    /// What relays are told to trust: at most two.
    pub fn authorities(&self) -> Vec<String> {
        self.lock().authorities()
    }

    /// This replica's certificate, made anew when it is due.
    pub fn credentials(&self, now: Timestamp) -> Result<Arc<Credentials>, ControllerError> {
        let mut held = self.lock();
        if let Some((credentials, due)) = held.current.as_ref()
            && now < *due
        {
            return Ok(Arc::clone(credentials));
        }
        let (credentials, due) = held.authority.controller(now)?;
        let credentials = Arc::new(credentials);
        held.current = Some((Arc::clone(&credentials), due));
        Ok(credentials)
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn authorities(&self) -> Vec<String> {
        std::iter::once(self.authority.certificate_pem()).chain(self.other.clone()).collect()
    }
}

/// Keeps up with the Secret until `stop`. All links are looked at again when relays are to trust another CA.
pub async fn follow(world: Arc<World>, controller: Arc<Controller>, stop: CancellationToken) {
    let mut changes = world.hub.listen();
    let mut first = true;
    loop {
        if !std::mem::take(&mut first) {
            let change = tokio::select! {
                () = stop.cancelled() => return,
                change = changes.next() => change,
            };
            match change {
                // It is nobody's in particular.
                Some(Change::Everything) => {}
                Some(_) => continue,
                None => return,
            }
        }
        let stored = world.sources.caches.keys.get(&world.namespace, SECRET);
        let Some(stored) = stored.and_then(|stored| stored.read()) else { continue };
        match controller.adopt(&stored) {
            Ok(false) => {}
            Ok(true) => {
                tracing::info!("the control CA is another one now");
                world.sources.installation.trust(controller.authorities());
                world.hub.tell(Change::Everything);
            }
            Err(error) => tracing::warn!(%error, "the control CA stays as it was"),
        }
    }
}

fn read(stored: &Secret) -> Result<Held, ControlError> {
    let text = |file: &str| stored.data.as_ref()?.get(file).map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned());
    let (Some(key), Some(certificate)) = (text(KEY), text(CERTIFICATE)) else {
        return Err(ControlError::Incomplete);
    };
    let authority = ControlAuthority::from_pem(&key, &certificate).map_err(ControlError::Damaged)?;
    let other = text(OTHER).filter(|other| !other.trim().is_empty());
    let other = other.map(|other| ControlAuthority::certificate_of(&other)).transpose();
    let other = other.map_err(ControlError::Other)?.filter(|other| *other != authority.certificate_pem());
    Ok(Held { authority, other, current: None })
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn authority() -> ControlAuthority {
        ControlAuthority::generate(Timestamp::now()).unwrap()
    }

    fn with(stored: &Secret, file: &str, text: &str) -> Secret {
        let mut stored = stored.clone();
        stored.data.get_or_insert_default().insert(file.to_owned(), ByteString(text.as_bytes().to_vec()));
        stored
    }

    #[test]
    fn a_control_ca_is_replaced_by_way_of_a_second_one_and_certificates_follow() {
        let (old, new) = (authority(), authority());
        let (before, after) = (old.certificate_pem(), new.certificate_pem());
        let stored = secret(&old);
        let controller = Controller(Mutex::new(read(&stored).unwrap()));
        let first = controller.credentials(Timestamp::now()).unwrap();
        assert!(!controller.adopt(&stored).unwrap());
        assert!(Arc::ptr_eq(&first, &controller.credentials(Timestamp::now()).unwrap()));

        assert!(controller.adopt(&with(&stored, OTHER, &after)).unwrap());
        assert_eq!(controller.authorities(), [before.clone(), after.clone()]);
        let replaced = with(&secret(&new), OTHER, &before);
        assert!(controller.adopt(&replaced).unwrap());
        assert_eq!(controller.authorities(), [after.clone(), before]);
        assert!(!Arc::ptr_eq(&first, &controller.credentials(Timestamp::now()).unwrap()));
        assert!(controller.adopt(&with(&replaced, OTHER, "")).unwrap());
        assert_eq!(controller.authorities(), [after]);
    }

    #[test]
    fn what_cannot_be_used_changes_nothing() {
        let stored = secret(&authority());
        let controller = Controller(Mutex::new(read(&stored).unwrap()));
        let before = controller.authorities();
        let other = secret(&authority()).data.unwrap_or_default()[CERTIFICATE].0.clone();
        let mixed = with(&stored, CERTIFICATE, &String::from_utf8_lossy(&other));
        for bad in [Secret::default(), mixed, with(&stored, KEY, "x"), with(&stored, OTHER, "x")] {
            assert!(controller.adopt(&bad).is_err());
            assert_eq!(controller.authorities(), before);
        }
    }
}
