//! How a running process is spoken to: a socket for its owner or a port for its controller, with the verbs, and a port that
//! only shows.
//!
//! The control socket is a file of mode 0600 in a folder of mode 0700: who can open it may cut and resume. The control port
//! asks for a certificate under a control CA. The port that shows changes nothing and shows no secret.

mod client;
mod error;
mod health;
mod http;
mod port;
mod socket;
mod standalone;
mod verbs;

pub use client::Client;
pub use error::ControlError;
pub(crate) use health::{Health, HealthPort};
pub(crate) use http::{Answer, body, done};
pub(crate) use port::{Guard, Port};
pub(crate) use socket::Socket;
pub(crate) use verbs::{Holder, to_the_end, unknown};
