//! What a person at a terminal runs: kubectl and its plugin, the one that the product's image holds.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use kube::config::{AuthInfo, Kubeconfig};
use tempfile::NamedTempFile;

use crate::Namespace;
use crate::harness::World;

/// Somebody at a terminal, in a namespace of one cluster.
pub struct Person {
    path: String,
    /// A kubeconfig of one context: this namespace, this user.
    kubeconfig: NamedTempFile,
    config: Kubeconfig,
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    /// Its exit code.
    pub code: Option<i32>,
    /// Its output.
    pub out: String,
    /// Its complaints.
    pub err: String,
}

impl Person {
    /// Whoever the lab's kubeconfig says, with every right.
    pub fn at(world: &World, namespace: &Namespace) -> Result<Self> {
        let image = world.product()?;
        let (plugin, tools) = (world.lab.cli(&image)?, world.lab.tools(&["kubectl"])?);
        let inherited = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{}:{inherited}", plugin.display(), tools.display());
        let mut config = Kubeconfig::read_from(world.lab.kubeconfig(&namespace.cluster.name)?)?;
        for context in config.contexts.iter_mut().filter_map(|context| context.context.as_mut()) {
            context.namespace = Some(namespace.name.clone());
        }
        Ok(Self { path, kubeconfig: written(&config)?, config })
    }

    /// Another one, who is whom a token says.
    pub fn with_token(&self, token: &str) -> Result<Self> {
        let mut config = self.config.clone();
        for user in &mut config.auth_infos {
            user.auth_info = Some(AuthInfo { token: Some(token.to_owned().into()), ..AuthInfo::default() });
        }
        Ok(Self { path: self.path.clone(), kubeconfig: written(&config)?, config })
    }

    /// Runs `kubectl` with these arguments, in the namespace.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<Said> {
        self.run("kubectl", arguments, "").await
    }

    /// Runs `kubectl securelink` with these arguments, in the namespace.
    pub async fn securelink(&self, arguments: &[&str]) -> Result<Said> {
        self.kubectl(&[&["securelink"], arguments].concat()).await
    }

    /// The same with words on its standard input.
    pub async fn told(&self, arguments: &[&str], input: &str) -> Result<Said> {
        self.run("kubectl", arguments, input).await
    }

    async fn run(&self, program: &str, arguments: &[&str], input: &str) -> Result<Said> {
        let words = format!("{program} {}", arguments.join(" "));
        let mut command = Command::new(program);
        command.args(arguments).env("PATH", &self.path).env("KUBECONFIG", self.kubeconfig.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let input = input.to_owned();
        let run = move || {
            let mut child = command.spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                // Who does not read is no fault.
                let _ = stdin.write_all(input.as_bytes());
            }
            child.wait_with_output()
        };
        let output = tokio::task::spawn_blocking(run).await?.with_context(|| words)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Said { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) })
    }
}

impl Said {
    /// Fails unless it ended with this exit code.
    pub fn expect(self, code: i32) -> Result<Self> {
        ensure!(
            self.code == Some(code),
            "exit code {:?} where {code} was expected\n{}{}",
            self.code,
            self.out,
            self.err
        );
        Ok(self)
    }

    /// Fails unless its output or its complaints hold these words.
    pub fn holds(self, words: &str) -> Result<Self> {
        ensure!(self.out.contains(words) || self.err.contains(words), "no {words:?} in\n{}{}", self.out, self.err);
        Ok(self)
    }
}

/// A kubeconfig in a file of its own; JSON is YAML too.
fn written(config: &Kubeconfig) -> Result<NamedTempFile> {
    let file = NamedTempFile::new().context("cannot make a file for a kubeconfig")?;
    serde_json::to_writer(&file, config).context("cannot write a kubeconfig")?;
    Ok(file)
}
