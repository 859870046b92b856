//! `grant`: lets the operator work in a namespace.

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::super::process::wait;
use crate::args::{ClusterArgs, teach};
use crate::cluster::{Bound, Cluster, ClusterError, Grant};
use crate::output::{Failure, Out, Tone, clean, in_words};

/// Where the operator is, if nobody says (docs/helm.md).
const OPERATOR_NAMESPACE: &str = "securelink-system";
/// The chart's role for namespaces with links.
const LINK: &str = "securelink-link";
/// The chart's role for namespaces with exported Services only.
const EXPORT: &str = "securelink-export";

/// Let the operator keep links in a namespace of a cluster
///
/// Makes one RoleBinding there, to a ClusterRole of the chart. The operator may then read Secrets and make workloads in that
/// namespace; with --exports only read its Services. A namespace in the chart's values needs no grant; where both are, each is
/// taken back by itself: the RoleBinding that is made here is called after the role, with -granted behind it.
#[derive(Debug, Args)]
#[command(after_help = teach!(
    "  Links may be in this namespace:
    kubectl securelink grant liaison
    securelink grant liaison --context production

  Services of this one may be exported by links of another:
    kubectl securelink grant records --exports

  Into a repository instead:
    kubectl securelink grant liaison -o yaml > grant.yaml",
    "  0  granted; also if it was before
  1  it cannot be granted, or you may not
  2  the command line is wrong
  3  there is no cluster",
    "  {namespace, role, operatorNamespace, result}
  result is Made, Added, Before; what it would be with --dry-run"
))]
pub struct GrantArgs {
    /// The namespace
    #[arg(value_name = "NAMESPACE", id = "granted")]
    granted: String,

    /// Only read access to Services, for exports of links elsewhere
    #[arg(long)]
    exports: bool,

    /// Have the API server judge it, and change nothing
    #[arg(long)]
    dry_run: bool,

    /// Where the operator is [default: where its Deployment is, else securelink-system]
    #[arg(long, value_name = "NAMESPACE")]
    operator_namespace: Option<String>,

    /// How to answer: for people, as one JSON object, or only the RoleBinding, of which nothing is made
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: GrantFormat,
}

/// How `grant` answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum GrantFormat {
    /// For people.
    #[default]
    Table,
    /// For programs: one object.
    Json,
    /// The RoleBinding.
    Yaml,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    namespace: String,
    role: &'static str,
    operator_namespace: String,
    result: String,
}

/// Grants.
pub fn run(args: &GrantArgs, place: &ClusterArgs, out: Out) -> Result<(), Failure> {
    if place.namespace.is_some() {
        return Err(Failure::usage("the namespace to grant stands without -n: `kubectl securelink grant NAMESPACE`"));
    }
    let (grant, bound) = wait(async {
        let cluster = Cluster::connect(place).await?;
        let grant = wanted(args, &cluster, out).await?;
        if args.output == GrantFormat::Yaml {
            return Ok((grant, None));
        }
        let bound = cluster.grant(&grant, args.dry_run).await?;
        Ok((grant, Some(bound)))
    })?;
    let Some(bound) = bound else {
        let yaml = serde_saphyr::to_string(&grant.binding());
        return out
            .raw(&yaml.map_err(|error| Failure::failed(format!("it cannot be written as YAML: {error}; report it")))?);
    };
    if args.output == GrantFormat::Json {
        let (namespace, role, operator_namespace) = (grant.namespace, grant.role, grant.operator);
        return out.json(&Answer { namespace, role, operator_namespace, result: format!("{bound:?}") });
    }
    let told = match (bound, args.dry_run) {
        (Bound::Before, _) => "was granted before",
        (_, true) => "would be granted",
        (_, false) => "is granted",
    };
    let line =
        format!("{} {told}: {} to ServiceAccount {}/securelink-operator", grant.namespace, grant.role, grant.operator);
    out.line(format!("{} {line}", out.style().paint(Tone::Good, "✓")))
}

async fn wanted(args: &GrantArgs, cluster: &Cluster, out: Out) -> Result<Grant, Failure> {
    let operator = match &args.operator_namespace {
        Some(namespace) => namespace.clone(),
        None => operator(cluster, out).await?,
    };
    if operator == args.granted && !args.exports {
        return Err(Failure::failed(format!(
            "{operator} is the operator's own namespace, where the keys of roots lie; make another one for links"
        )));
    }
    if operator == args.granted {
        return Err(Failure::failed(format!("{operator} is the operator's own namespace; export Services of another")));
    }
    let role = if args.exports { EXPORT } else { LINK };
    Ok(Grant { namespace: args.granted.clone(), role, operator })
}

/// Where the operator is.
async fn operator(cluster: &Cluster, out: Out) -> Result<String, Failure> {
    let guess = |why: &str| {
        let text = format!("{why}, so it is taken to be in {OPERATOR_NAMESPACE}; else say --operator-namespace");
        out.complain("warning", Tone::Warn, &text);
        Ok(OPERATOR_NAMESPACE.to_owned())
    };
    match cluster.operators().await {
        Ok(found) => match found.as_slice() {
            [one] => Ok(one.clone()),
            [] => guess("no operator is in this cluster yet"),
            several => {
                let names: Vec<_> = several.iter().map(|name| clean(name)).collect();
                let all = in_words(&names);
                Err(Failure::failed(format!("operators are in {all}; say which by --operator-namespace")))
            }
        },
        Err(ClusterError::Forbidden { .. }) => guess("you may not look for the operator in all namespaces"),
        Err(error) => Err(error.into()),
    }
}
