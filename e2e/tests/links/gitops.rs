//! What docs/gitops.md gives to Argo CD and Flux, on objects as clusters hold them.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use securelink_crds::conditions::ConditionType;
use securelink_crds::{LinkCut, LinkIdentity, SecureLink};
use securelink_e2e::organization::{IDENTITIES, LINK};
use securelink_e2e::people::Person;
use securelink_e2e::{Pair, World};
use serde_json::{Value, json};

/// What both say of an object.
struct Health {
    argo: &'static str,
    flux: &'static str,
}

const HEALTHY: Health = Health { argo: "Healthy", flux: "current" };
const PROGRESSING: Health = Health { argo: "Progressing", flux: "in progress" };
const SUSPENDED: Health = Health { argo: "Suspended", flux: "in progress" };
const STALLED: Health = Health { argo: "Degraded", flux: "failed" };
const BROKEN: Health = Health { argo: "Degraded", flux: "in progress" };

pub(crate) async fn gitops_tools_are_told_whether_a_link_works(world: &World, pair: &Pair) -> Result<()> {
    let tools = world.lab.tools(&["glua"])?;
    let (a, at) = (&pair.a.organization, pair.a.organization.links());
    let links = at.api::<SecureLink>();
    let judge = |object: &Value, wanted: &Health| -> Result<()> {
        let argo = argo(&tools.join("glua"), object)?;
        ensure!(argo == wanted.argo, "Argo CD: {argo} where {} was expected of {object:#}", wanted.argo);
        let flux = flux(object)?;
        ensure!(flux == wanted.flux, "Flux: {flux} where {} was expected of {object:#}", wanted.flux);
        Ok(())
    };
    let now = async |name: &str| anyhow::Ok(serde_json::to_value(links.get(name).await?)?);

    let waited = ["wait", "--for=condition=Ready", "securelink/partner", "--timeout=60s"];
    Person::at(world, at)?.kubectl(&waited).await?.expect(0)?;
    judge(&now(LINK).await?, &HEALTHY)?;
    judge(&serde_json::to_value(at.api::<LinkIdentity>().get(IDENTITIES[0]).await?)?, &HEALTHY)?;
    let mut changed = now(LINK).await?;
    changed["metadata"]["generation"] = json!(changed["metadata"]["generation"].as_i64().context("a generation")? + 1);
    judge(&changed, &PROGRESSING)?;
    changed["status"] = Value::Null;
    changed.as_object_mut().context("an object")?.remove("status");
    judge(&changed, &PROGRESSING)?;

    // A partner that does not run yet, and one that will never be there.
    let peer = |host: &str| {
        json!({ "trustDomain": format!("{host}.example"), "fingerprints": [format!("sha256:{}", "0f".repeat(32))],
                                    "endpoints": [{ "host": host, "port": 443 }] })
    };
    a.declare(
        "lost",
        &json!({ "identityRef": { "name": "default" }, "peer": peer("nobody.invalid"), "relay": { "replicas": 1 } }),
    )
    .await?;
    a.until_link_says("lost", ConditionType::Ready, "DnsFailed").await?;
    judge(&now("lost").await?, &BROKEN)?;
    a.declare("double", &json!({ "identityRef": { "name": "default" }, "peer": peer("nobody.invalid") })).await?;
    a.until_link_says("double", ConditionType::Ready, "DuplicatePeer").await?;
    judge(&now("double").await?, &STALLED)?;

    let spec = json!({ "linkRef": { "name": LINK }, "reason": "incident 2026-114" });
    at.create::<LinkCut>(json!({ "metadata": { "name": "now" }, "spec": spec })).await?;
    a.until_says(ConditionType::Ready, "CutHere").await?;
    judge(&now(LINK).await?, &SUSPENDED)
}

/// The fenced text of a language in the page.
fn snippet(language: &str) -> Result<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/gitops.md");
    let text = std::fs::read_to_string(page)?;
    let (_, rest) = text.split_once(&format!("\n```{language}\n")).context("no such text in the page")?;
    Ok(rest.split_once("\n```").context("it does not end")?.0.to_owned())
}

/// Runs the page's Lua on an object, as Argo CD does: it is global as `obj`, what is returned counts.
fn argo(glua: &Path, object: &Value) -> Result<String> {
    let program = format!(
        "obj = {}\nlocal function check()\n{}\nend\nlocal health = check()\nassert(type(health.message) == 'string')\nprint(health.status)\n",
        literal(object)?,
        snippet("lua")?
    );
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), program)?;
    let output = Command::new(glua).arg(file.path()).output().context("glua")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// JSON as Lua writes it.
fn literal(value: &Value) -> Result<String> {
    let mut text = String::new();
    match value {
        Value::Null => text.push_str("nil"),
        Value::Bool(_) | Value::Number(_) => write!(text, "{value}")?,
        Value::String(words) => {
            text.push('"');
            for byte in words.bytes() {
                write!(text, "\\{byte:03}")?;
            }
            text.push('"');
        }
        Value::Array(items) => {
            for item in items {
                write!(text, "{}, ", literal(item)?)?;
            }
            text = format!("{{ {text} }}");
        }
        Value::Object(fields) => {
            for (key, field) in fields {
                write!(text, "[{}] = {}, ", literal(&Value::from(key.as_str()))?, literal(field)?)?;
            }
            text = format!("{{ {text} }}");
        }
    }
    Ok(text)
}

/// Judges an object by the page's expressions, in Flux's order; an expression that cannot be evaluated is false.
fn flux(object: &Value) -> Result<&'static str> {
    let page: Value = serde_saphyr::from_str(&snippet("yaml")?)?;
    let all = page["spec"]["healthCheckExprs"].as_array().context("no expressions")?;
    let of_kind = all.iter().find(|it| it["kind"] == object["kind"] && it["apiVersion"] == object["apiVersion"]);
    let of_kind = of_kind.context("no expressions for the kind")?;
    for (name, health) in [("inProgress", "in progress"), ("failed", "failed"), ("current", "current")] {
        let expression = of_kind[name].as_str().with_context(|| format!("no {name}"))?;
        let program = cel::Program::compile(expression).with_context(|| expression.to_owned())?;
        let mut context = cel::Context::default();
        for field in ["metadata", "spec", "status"] {
            let value = object.get(field).cloned().unwrap_or_else(|| json!({}));
            context.add_variable(field, value).map_err(|error| anyhow::anyhow!("{field}: {error}"))?;
        }
        if program.execute(&context).is_ok_and(|value| value == cel::Value::Bool(true)) {
            return Ok(health);
        }
    }
    Ok("in progress")
}
