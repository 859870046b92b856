//! How a running process is spoken to: a socket for its owner, with the verbs, and a local port that only shows.
//!
//! The control socket is a file of mode 0600 in a folder of mode 0700: who can open it may cut and resume. The local port
//! changes nothing and shows no secret.

mod client;
mod error;
mod http;
mod local;
mod server;

pub use client::Client;
pub use error::ControlError;
pub(crate) use local::Local;
pub(crate) use server::Socket;
