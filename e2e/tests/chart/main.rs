//! The Helm charts, rendered by Helm 3 and Helm 4: no cluster takes part.
//!
//! Here, because the chart is judged as a user has it, with the tools of the lab; the crates that it carries know
//! nothing of Helm.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod helm;
mod kinds;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Completion, Trial};
use securelink_e2e::Lab;
use securelink_e2e::harness::tell;

use helm::Tools;

macro_rules! tests {
    ($($module:ident { $($name:ident)* })*) => {
        [$($((stringify!($name), $module::$name as fn(&Tools)),)*)*]
    };
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let made = if arguments.list { Err("listed only".to_owned()) } else { made() };
    if let (Err(reason), false) = (&made, arguments.list) {
        tell(&format!("charts: every test is skipped: {reason}"));
        if std::env::var_os("CI").is_some() {
            return ExitCode::FAILURE;
        }
    }
    let made = Arc::new(made);
    let tests = tests! {
        kinds {
            the_kinds_in_the_chart_are_the_manifests_byte_for_byte
            the_rendered_kinds_are_those_of_the_types_and_stay_when_the_chart_goes
        }
        helm {
            helm_3_and_helm_4_render_the_same
            helm_has_no_complaint
            charts_and_crates_have_one_version
        }
    };
    let trials = tests.into_iter().map(|(name, body)| {
        let made = made.clone();
        Trial::ignorable_test(name, move || match &*made {
            Ok(tools) => {
                body(tools);
                Ok(Completion::Completed)
            }
            Err(reason) => Ok(Completion::ignored_with(reason.clone())),
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// The tools, made by the lab where they are missing; else why there are none.
fn made() -> Result<Tools, String> {
    let folder = Lab::default().tools(&["helm3", "helm4"]);
    // Its last line says why, and what to do.
    let folder = folder.map_err(|error| error.to_string().lines().last().unwrap_or_default().to_owned())?;
    Tools::new(folder).map_err(|error| format!("no folder for Helm's files: {error}"))
}
