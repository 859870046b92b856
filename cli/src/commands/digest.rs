//! `digest`: SHA-256 of the agreement's signed text, of any size.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use clap::Args;
use securelink_relay_config::Digest;
use serde::Serialize;

use crate::args::{OutputArgs, teach};
use crate::output::{Failure, Out, clean};

/// Bytes read at a time.
const CHUNK: usize = 256 * 1024;

/// Compute the digest of the agreement's signed text
///
/// Both organizations compute it from the same file and write it to spec.agreement.digest. A single changed byte gives
/// another digest, and then nothing flows.
#[derive(Debug, Args)]
#[command(after_help = teach!(
    "  The digest to write into both SecureLinks:
    securelink digest memorandum.pdf

  The same from a pipe:
    curl -s https://treaties.example/mou.pdf | securelink digest -

  Compare with what a partner sent:
    test \"$(securelink digest memorandum.pdf)\" = sha256:77ab…

  For a program:
    securelink digest -o json memorandum.pdf
    {\"digests\": [{\"file\": \"memorandum.pdf\", \"digest\": \"sha256:77ab…\"}]}",
    "  0  every file was read
  1  some file cannot be read
  2  the command line is wrong",
    "  {digests: [{file, digest}]}"
))]
pub struct DigestArgs {
    /// File to read; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Serialize)]
struct Answer {
    digests: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    file: String,
    digest: Digest,
}

/// Prints the digests.
pub fn run(args: &DigestArgs, out: Out) -> Result<(), Failure> {
    let mut digests = Vec::new();
    for file in &args.files {
        let failed = |error| {
            Failure::failed(format!("{} cannot be read: {error}; check its name and permissions", clean(&name(file))))
        };
        digests.push(Entry { file: name(file), digest: digest(file).map_err(failed)? });
    }
    if args.output.is_json() {
        return out.json(&Answer { digests });
    }
    match digests.as_slice() {
        [only] => out.line(only.digest.to_string()),
        several => several.iter().try_for_each(|entry| out.line(format!("{}  {}", entry.digest, clean(&entry.file)))),
    }
}

fn name(file: &Path) -> String {
    file.display().to_string()
}

fn digest(file: &Path) -> io::Result<Digest> {
    if file.as_os_str() == "-" { of(io::stdin().lock()) } else { of(File::open(file)?) }
}

fn of(mut source: impl Read) -> io::Result<Digest> {
    let mut context = Context::new(&SHA256);
    let mut chunk = vec![0; CHUNK];
    loop {
        match source.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => context.update(&chunk[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    Ok(Digest(digest))
}
