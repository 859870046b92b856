//! `check`: validation of YAML as an API server would do it, with the line of the file and what to do.

mod files;

use std::path::PathBuf;

use clap::Args;
use securelink_crds::load::{Loaded, Object, Problem, Source, load};
use serde::Serialize;

use crate::args::{OutputArgs, teach};
use crate::output::{Failure, Out, Style, Tone, clean, plural};

/// Validate YAML as the API server would, without a cluster
///
/// Reads SecureLink, LinkIdentity, LinkPolicy and LinkCut objects: schema, defaults and every rule. Other kinds are
/// passed over with a warning. What depends on the machine, such as two links on one port, `render` shows.
#[derive(Debug, Args)]
#[command(after_help = teach!(
    "  One file, or all of a folder:
    securelink check -f link.yaml
    securelink check -f partners/

  A repository with folders, in a pipeline:
    securelink check -R -f .

  What a chart renders:
    helm template partner-links | securelink check -f -

  For a program:
    securelink check -o json -f link.yaml | jq '.problems[] | {line, field, message, remedy}'",
    "  0  everything is valid; there may be warnings
  1  something has to be mended
  2  the command line is wrong",
    "  {valid, files, objects: [\"KIND NAMESPACE/NAME\"], warnings: [TEXT],
   problems: [{source, document, line, object: {kind, namespace, name}, field, message, remedy}]}"
))]
pub struct CheckArgs {
    /// YAML file, folder of *.yaml and *.yml, or `-` for standard input; repeat for several
    #[arg(short = 'f', long = "filename", value_name = "FILE_OR_FOLDER", required = true)]
    files: Vec<PathBuf>,

    /// Also read folders in folders
    #[arg(short = 'R', long)]
    recursive: bool,

    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Serialize)]
struct Answer<'a> {
    valid: bool,
    files: usize,
    objects: Vec<String>,
    problems: &'a [Problem],
    warnings: &'a [String],
}

/// Prints what has to be mended.
pub fn run(args: &CheckArgs, out: Out) -> Result<(), Failure> {
    let read = files::read(&args.files, args.recursive)?;
    let sources: Vec<_> = read.texts.iter().map(|(name, text)| Source { name, text }).collect();
    let mut loaded = load(&sources);
    loaded.problems.splice(0..0, read.problems);
    let objects: Vec<_> = loaded.objects.iter().map(name).collect();
    let valid = loaded.problems.is_empty();
    if args.output.is_json() {
        let (problems, warnings) = (&loaded.problems, &loaded.notes);
        out.json(&Answer { valid, files: sources.len(), objects, problems, warnings })?;
    } else {
        show(&loaded, sources.len(), out)?;
    }
    if valid { Ok(()) } else { Err(Failure::told()) }
}

fn show(loaded: &Loaded, files: usize, out: Out) -> Result<(), Failure> {
    let style = out.style();
    for problem in &loaded.problems {
        out.raw(&shown(problem, style))?;
    }
    for note in &loaded.notes {
        out.line(format!("{} {}", style.paint(Tone::Warn, "warning:"), clean(note)))?;
    }
    let objects = plural(loaded.objects.len() + loaded.invalid.len(), "object");
    let problems = plural(loaded.problems.len(), "problem");
    let (word, tone) = if loaded.problems.is_empty() { ("ok", Tone::Good) } else { ("invalid", Tone::Bad) };
    let warnings = match loaded.notes.len() {
        0 => String::new(),
        count => format!(", {}", plural(count, "warning")),
    };
    out.line(format!("{} {objects} in {}: {problems}{warnings}", style.paint(tone, word), plural(files, "file")))?;
    if loaded.objects.is_empty() && loaded.problems.is_empty() {
        return Err(Failure::failed(
            "no object of securelink.dev was found; give files that hold SecureLink, LinkIdentity, LinkPolicy or LinkCut",
        ));
    }
    Ok(())
}

/// In the manner of a compiler: what, where, what to do.
fn shown(problem: &Problem, style: Style) -> String {
    let field = if problem.field.is_empty() { String::new() } else { format!("{}: ", clean(&problem.field)) };
    let place = match (problem.line, problem.document) {
        (Some(line), _) => format!(":{line}"),
        (None, 0) => String::new(),
        (None, document) => format!(", document {document}"),
    };
    let object = problem.object.as_ref().map(|object| format!(" ({object})")).unwrap_or_default();
    format!(
        "{} {}{}\n  {} {}{place}{object}\n  {} {}\n\n",
        style.paint(Tone::Bad, "error:"),
        style.paint(Tone::Strong, &field),
        clean(&problem.message),
        style.paint(Tone::Dim, "-->"),
        clean(&problem.source),
        style.paint(Tone::Good, "do:"),
        clean(&problem.remedy),
    )
}

fn name(object: &Object) -> String {
    let (kind, metadata) = match object {
        Object::SecureLink(object) => ("SecureLink", &object.metadata),
        Object::LinkIdentity(object) => ("LinkIdentity", &object.metadata),
        Object::LinkPolicy(object) => ("LinkPolicy", &object.metadata),
        Object::LinkCut(object) => ("LinkCut", &object.metadata),
    };
    let namespace = metadata.namespace.as_ref().map(|namespace| format!("{namespace}/")).unwrap_or_default();
    format!("{kind} {namespace}{}", metadata.name.as_deref().unwrap_or_default())
}
