//! How the demo looks: a spinner while a step runs, its lines when it is done, a table at the end. Plain when piped,
//! silent until the end for a program.

use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use serde_json::Value;

use crate::output::{Cell, Failure, Out, Table, Tone, bytes, clean, span};

/// Between two frames of a spinner.
const FRAME: Duration = Duration::from_millis(80);

/// What a step has to tell.
pub(super) struct Told {
    figure: String,
    figures: Value,
    rows: Vec<[String; 3]>,
}

impl Told {
    /// The figure for the table at the end, and the figures for a program.
    pub(super) fn new(figure: impl Into<String>, figures: Value) -> Self {
        Self { figure: figure.into(), figures, rows: Vec::new() }
    }

    /// Adds a line: who, what, more.
    pub(super) fn row(mut self, row: [String; 3]) -> Self {
        self.rows.push(row);
        self
    }
}

/// A step that is over, or was not tried.
#[derive(Serialize)]
struct Step {
    name: &'static str,
    title: &'static str,
    ok: bool,
    millis: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    figure: String,
    figures: Value,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Lines {
    name: String,
    trust_domain: String,
    endpoint: String,
    fingerprint: String,
}

#[derive(Serialize)]
struct Answer<'a> {
    ok: bool,
    millis: u64,
    organizations: &'a [Lines],
    steps: &'a [Step],
    #[serde(skip_serializing_if = "Option::is_none")]
    folder: Option<PathBuf>,
}

/// The stage.
pub(super) struct Show {
    out: Out,
    json: bool,
    began: Instant,
    steps: Vec<Step>,
    organizations: Vec<Lines>,
}

impl Show {
    /// An empty one.
    pub(super) fn new(out: Out, json: bool) -> Self {
        Self { out, json, began: Instant::now(), steps: Vec::new(), organizations: Vec::new() }
    }

    /// Says what is to come.
    pub(super) fn title(&self) {
        let style = self.out.style();
        let title = style.paint(Tone::Strong, "Two organizations link up on this machine");
        self.say(&format!("{title}  {}\n", style.paint(Tone::Dim, "loopback only, gone afterwards")));
    }

    /// Notes what each handed over.
    pub(super) fn organizations(&mut self, one: [String; 4], other: [String; 4]) {
        let lines = |[name, trust_domain, endpoint, fingerprint]: [String; 4]| Lines {
            name,
            trust_domain,
            endpoint,
            fingerprint,
        };
        self.organizations = vec![lines(one), lines(other)];
    }

    /// Runs a step and shows it. What went wrong is shown, and the demo goes on.
    pub(super) async fn step<T, F>(
        &mut self,
        (name, title): (&'static str, &'static str),
        work: impl FnOnce(Progress) -> F,
    ) -> Option<T>
    where
        F: Future<Output = anyhow::Result<(T, Told)>>,
    {
        let progress = Progress::new(self.out, self.json, title);
        let began = Instant::now();
        let done = work(progress.clone()).await;
        let took = began.elapsed();
        progress.clear();
        let (value, told, error) = match done {
            Ok((value, told)) => (Some(value), told, None),
            Err(error) => (None, Told::new("", Value::Null), Some(clean(&format!("{error:#}")))),
        };
        self.shown(title, &told, error.as_deref(), took);
        self.steps.push(Step {
            name,
            title,
            ok: error.is_none(),
            millis: super::launch::millis(took),
            error,
            figure: told.figure,
            figures: told.figures,
        });
        value
    }

    /// Notes steps for which nothing was there to try them on.
    pub(super) fn skip(&mut self, steps: &[(&'static str, &'static str)]) {
        let error = Some("not tried: an earlier step failed".to_owned());
        self.steps.extend(steps.iter().map(|(name, title)| Step {
            name,
            title,
            ok: false,
            millis: 0,
            error: error.clone(),
            figure: String::new(),
            figures: Value::Null,
        }));
    }

    fn shown(&self, title: &str, told: &Told, error: Option<&str>, took: Duration) {
        let style = self.out.style();
        let mark = if error.is_none() { style.paint(Tone::Good, "✓") } else { style.paint(Tone::Bad, "✗") };
        let title = style.paint(Tone::Strong, title);
        self.say(&format!("{mark} {title}  {}", style.paint(Tone::Dim, &span(took))));
        let mut table = Table::new(&[]).indented(4).within(self.out.width());
        if let Some(error) = error {
            table.row([Cell::new(Tone::Bad, error)]);
        }
        for [who, what, more] in &told.rows {
            table.row([who.as_str().into(), Cell::new(Tone::Value, what), more.as_str().into()]);
        }
        self.say(&table.render(style));
    }

    /// Shows the table, or the object, and says whether all went well.
    pub(super) fn end(self, folder: Option<PathBuf>) -> Result<(), Failure> {
        let ok = self.steps.iter().all(|step| step.ok);
        let took = self.began.elapsed();
        if self.json {
            let (organizations, steps) = (self.organizations.as_slice(), self.steps.as_slice());
            self.out.json(&Answer { ok, millis: super::launch::millis(took), organizations, steps, folder })?;
        } else {
            self.table(ok, took)?;
            if let Some(folder) = folder {
                self.out.line(format!("kept: {}", clean(&folder.display().to_string())))?;
            }
        }
        if ok { Ok(()) } else { Err(Failure::told()) }
    }

    fn table(&self, ok: bool, took: Duration) -> Result<(), Failure> {
        let mut table = Table::new(&["", "STEP", "FIGURE"]).within(self.out.width());
        for step in &self.steps {
            let (mark, tone) = if step.ok { ("✓", Tone::Good) } else { ("✗", Tone::Bad) };
            let figure = match &step.error {
                None => Cell::new(Tone::Value, &step.figure),
                Some(error) => Cell::new(Tone::Bad, error),
            };
            table.row([Cell::new(tone, mark), step.title.into(), figure]);
        }
        self.out.table(&table)?;
        let (all, right) = (self.steps.len(), self.steps.iter().filter(|step| step.ok).count());
        let (tone, count) =
            if ok { (Tone::Good, format!("all {all}")) } else { (Tone::Bad, format!("only {right} of {all}")) };
        let result = format!("{count} steps did what they should");
        self.out.line(format!("\n{} in {}", self.out.style().paint(tone, &result), span(took)))
    }

    /// A reader that is gone will be noticed at the end.
    fn say(&self, text: &str) {
        if !self.json {
            let _ = self.out.line(text);
        }
    }
}

/// What moves while a step runs.
#[derive(Clone)]
pub(super) struct Progress {
    out: Out,
    silent: bool,
    title: String,
    bar: ProgressBar,
}

impl Progress {
    fn new(out: Out, json: bool, title: &str) -> Self {
        let live = out.is_terminal() && !json;
        let target = if live { ProgressDrawTarget::stdout() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        bar.set_style(style("{spinner} {msg}", out));
        bar.set_message(title.to_owned());
        if live {
            bar.enable_steady_tick(FRAME);
        }
        Self { out, silent: json || live, title: title.to_owned(), bar }
    }

    /// Turns the spinner into a bar over `size` bytes.
    pub(super) fn bytes(&self, size: u64) -> Moving {
        self.bar.set_length(size);
        self.bar.set_style(style("{spinner} {msg}\n    {bar:40} {percent:>3}%  {binary_bytes} of {binary_total_bytes}  {binary_bytes_per_sec}", self.out));
        self.bar.set_message(self.title.clone());
        self.bar.reset_elapsed();
        Moving { progress: self.clone(), size, began: Instant::now(), quarter: std::cell::Cell::new(0) }
    }

    /// Says what goes on, beside the title.
    pub(super) fn note(&self, text: &str) {
        self.bar.set_message(format!("{}: {text}", self.title));
    }

    fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// A bar, or a line at every quarter where nobody watches.
pub(super) struct Moving {
    progress: Progress,
    size: u64,
    began: Instant,
    quarter: std::cell::Cell<u64>,
}

impl Moving {
    /// So many bytes are through.
    pub(super) fn at(&self, done: u64) {
        self.progress.bar.set_position(done);
        let quarter = done.saturating_mul(4) / self.size.max(1);
        if !self.progress.silent && quarter > self.quarter.replace(quarter) {
            let rate = u128::from(done) * 1_000_000 / self.began.elapsed().as_micros().max(1);
            let rate = bytes(u64::try_from(rate).unwrap_or(u64::MAX));
            let _ = self.progress.out.line(format!("    {:>3}%  {} at {rate}/s", quarter * 25, bytes(done)));
        }
    }

    /// All of them are.
    pub(super) fn done(&self) {
        self.progress.bar.set_position(self.size);
    }
}

fn style(template: &str, out: Out) -> ProgressStyle {
    let template = if out.style().colours() {
        template.replace("{spinner}", "{spinner:.cyan}").replace("{bar:40}", "{bar:40.cyan/dim}")
    } else {
        template.to_owned()
    };
    // The templates are this file's own; a slip would show as indicatif's plain bar.
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ").progress_chars("━╸─")
}
