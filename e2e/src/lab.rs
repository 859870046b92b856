//! The command `e2e/cluster/lab`, run for a test. Decides nothing that the command decides.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// How many of the command's last lines an error repeats.
const LINES_IN_ERROR: usize = 12;

/// The lab of this checkout.
#[derive(Debug, Clone)]
pub struct Lab {
    command: PathBuf,
}

impl Default for Lab {
    fn default() -> Self {
        Self::at(Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster/lab"))
    }
}

impl Lab {
    /// The lab whose command is this one.
    pub fn at(command: impl Into<PathBuf>) -> Self {
        Self { command: command.into() }
    }

    /// Why no cluster can be made here, in one line with the remedy; nothing where one can.
    pub fn hindrance(&self) -> Option<String> {
        let check = Command::new(&self.command).arg("check").stdin(Stdio::null()).output();
        match check {
            Ok(output) if output.status.success() => None,
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                Some(
                    said.trim()
                        .lines()
                        .last()
                        .unwrap_or("the lab says no reason")
                        .trim_start_matches("lab: ")
                        .to_owned(),
                )
            }
            Err(error) => Some(format!("cannot run {}: {error}", self.command.display())),
        }
    }

    /// Makes and starts what is missing of these clusters.
    pub fn up(&self, clusters: &[&str]) -> Result<()> {
        self.run(&["up", "--clusters", &clusters.join(",")]).map(drop)
    }

    /// Ends everything. An error names what is left.
    pub fn down(&self) -> Result<()> {
        self.run(&["down"]).map(drop)
    }

    /// Builds the test image and puts it into every cluster; the image's name.
    pub fn probe(&self) -> Result<String> {
        self.run(&["probe"])
    }

    /// Builds the product's image from this checkout and puts it into every cluster; the image's name.
    pub fn image(&self) -> Result<String> {
        self.run(&["image"])
    }

    /// A folder that holds the program of an image of the product, as a plugin of kubectl.
    pub fn cli(&self, image: &str) -> Result<PathBuf> {
        self.run(&["cli", image]).map(PathBuf::from)
    }

    /// Stops the processes of the pod with this uid.
    pub fn freeze(&self, cluster: &str, uid: &str) -> Result<()> {
        self.run(&["freeze", cluster, uid]).map(drop)
    }

    /// Lets them go on.
    pub fn thaw(&self, cluster: &str, uid: &str) -> Result<()> {
        self.run(&["thaw", cluster, uid]).map(drop)
    }

    /// Puts images of the engine into every cluster.
    pub fn load(&self, images: &[&str]) -> Result<()> {
        self.run(&[&["load"], images].concat()).map(drop)
    }

    /// Makes tools that are missing; the folder that holds them. Needs no cluster.
    pub fn tools(&self, names: &[&str]) -> Result<PathBuf> {
        self.run(&[&["tools"], names].concat()).map(PathBuf::from)
    }

    /// Makes the programs of a Kubernetes node where they are missing; the folder that holds them. Needs no cluster.
    pub fn programs(&self) -> Result<PathBuf> {
        self.run(&["programs"]).map(PathBuf::from)
    }

    /// The kubeconfig of a cluster.
    pub fn kubeconfig(&self, cluster: &str) -> Result<PathBuf> {
        self.run(&["kubeconfig", cluster]).map(PathBuf::from)
    }

    /// The address at which other clusters dial a cluster.
    pub fn address(&self, cluster: &str) -> Result<String> {
        self.run(&["address", cluster])
    }

    /// Loses everything between two clusters.
    pub fn cut(&self, one: &str, other: &str) -> Result<()> {
        self.run(&["cut", one, other]).map(drop)
    }

    /// Loses what `from` sends to `to`.
    pub fn drop_from(&self, from: &str, to: &str) -> Result<()> {
        self.run(&["drop", from, to]).map(drop)
    }

    /// Limits both ways to a rate, written as `tc` does: `1mbit`.
    pub fn throttle(&self, one: &str, other: &str, rate: &str) -> Result<()> {
        self.run(&["throttle", one, other, rate]).map(drop)
    }

    /// Undoes every cut, drop and throttle.
    pub fn heal(&self) -> Result<()> {
        self.run(&["heal"]).map(drop)
    }

    /// Collects objects, events and logs of every cluster into a folder.
    pub fn logs(&self, folder: &Path) -> Result<()> {
        self.run(&["logs", &folder.display().to_string()]).map(drop)
    }

    /// What the lab has left on this machine by its own record, one thing a line; nothing after `down`.
    pub fn leftovers(&self) -> Result<Vec<String>> {
        let output = Command::new(&self.command)
            .arg("leftovers")
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {}", self.command.display()))?;
        let said = String::from_utf8_lossy(&output.stdout);
        let left: Vec<String> = said.lines().map(str::to_owned).collect();
        match output.status.code() {
            Some(0 | 1) if left.is_empty() == output.status.success() => Ok(left),
            _ => bail!("lab leftovers: {}; {}", output.status, String::from_utf8_lossy(&output.stderr).trim()),
        }
    }

    /// What runs.
    pub fn status(&self) -> Result<Status> {
        self.run(&["status"]).map(|text| Status { text })
    }

    /// Runs one command, shows its progress as it comes, and returns what it printed.
    fn run(&self, arguments: &[&str]) -> Result<String> {
        let words = arguments.join(" ");
        let mut child = Command::new(&self.command)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", self.command.display()))?;
        let progress = child.stderr.take().map(|stream| std::thread::spawn(move || show(stream)));
        let mut printed = String::new();
        if let Some(mut stream) = child.stdout.take() {
            stream.read_to_string(&mut printed).with_context(|| format!("lab {words}: what it prints is no text"))?;
        }
        let status = child.wait().with_context(|| format!("lab {words}: cannot be waited for"))?;
        let said = progress.and_then(|thread| thread.join().ok()).unwrap_or_default();
        if !status.success() {
            bail!("lab {words}: {status}; it said:\n{}", said.join("\n"));
        }
        Ok(printed.trim_end().to_owned())
    }
}

/// What `lab status` said.
#[derive(Debug, Clone)]
pub struct Status {
    text: String,
}

impl Status {
    /// The first process of the lab's own engine; nothing where the engine is the user's, or is not running.
    pub fn own_engine(&self) -> Option<i32> {
        let rest = self.text.lines().find_map(|line| line.strip_prefix("engine: our own, pid "))?;
        rest.split(',').next()?.trim().parse().ok()
    }

    /// The clusters that are ready.
    pub fn ready(&self) -> Vec<String> {
        let clusters = self.text.lines().filter_map(|line| line.strip_prefix("cluster ")?.split_once(": "));
        clusters.filter(|(_, state)| state.starts_with("ready")).map(|(name, _)| name.to_owned()).collect()
    }
}

/// Passes lines on and keeps the last ones.
fn show(stream: impl Read) -> Vec<String> {
    let mut kept = std::collections::VecDeque::new();
    for line in BufReader::new(stream).lines().map_while(std::io::Result::ok) {
        crate::harness::tell(&line);
        if kept.len() == LINES_IN_ERROR {
            kept.pop_front();
        }
        kept.push_back(line);
    }
    kept.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(text: &str) -> Status {
        Status { text: text.to_owned() }
    }

    #[test]
    fn the_status_names_the_own_engine_and_the_clusters_that_are_ready() {
        let up = status(
            "engine: our own, pid 4711, unix:///run/x/docker.sock\n\
             cluster org-a: ready, 2026-11-24T20:18:00, address 172.31.128.2, kubeconfig /a.yaml\n\
             cluster org-b: does not answer, 2026-11-24T20:18:00, address 172.31.128.3, kubeconfig /b.yaml\n",
        );
        assert_eq!(up.own_engine(), Some(4711));
        assert_eq!(up.ready(), ["org-a"]);
    }

    #[test]
    fn an_engine_that_is_gone_or_the_users_is_not_the_labs() {
        let gone =
            status("engine: our own, pid gone, unix:///run/x/docker.sock\nengine: does not answer; run 'lab up'");
        assert_eq!(gone.own_engine(), None);
        assert_eq!(status("engine: the Docker of this machine").own_engine(), None);
        assert!(gone.ready().is_empty());
    }

    #[test]
    fn an_error_of_the_lab_repeats_what_the_lab_said() {
        let error = Lab::default().run(&["no-such-command"]).expect_err("there is no such command");
        assert!(error.to_string().contains("there is no command 'no-such-command'"), "{error}");
    }
}
