//! The Helm charts, rendered by Helm 3 and Helm 4: no cluster takes part.
//!
//! Here, because the charts are judged as a user has them, with the tools of the lab; the crates that they carry know
//! nothing of Helm.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod alerts;
mod helm;
mod kinds;
mod metrics;
mod objects;
mod rights;
mod schema;

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
            the_notes_end_with_the_command_that_proves_a_link
        }
        rights {
            the_rights_are_those_of_the_documented_table
            every_right_has_its_reason_beside_it
            nobody_is_granted_what_would_grant_more
            the_operator_reads_no_secret_of_the_whole_cluster
            rights_follow_the_namespaces_of_the_values
            cert_manager_can_be_asked_only_where_an_issuer_is_listed
            who_edits_workloads_cuts_nobody
        }
        objects {
            every_object_is_one_that_kubernetes_knows_field_by_field
            the_operators_pod_is_restricted
            the_operator_is_started_as_it_expects
            the_operators_configuration_is_made_of_the_values
            a_change_of_the_configuration_and_nothing_else_restarts_the_operator
            no_rule_of_the_operators_policy_is_open_by_being_empty
            a_single_replica_keeps_no_node_from_being_drained
        }
        schema {
            what_is_mistyped_is_refused_by_name
            the_operators_own_namespace_is_no_place_for_links
            an_issuer_of_a_namespace_is_listed_with_it
            every_object_of_the_schema_is_closed
            schema_and_values_name_the_same_keys
            every_value_is_explained
        }
        metrics {
            the_list_of_metrics_is_what_relays_document
            dashboard_and_alerts_ask_only_for_what_is_exported
            the_dashboard_is_laid_out_and_carried_as_it_is_written
            every_question_of_the_dashboard_is_one_that_prometheus_reads
        }
        alerts {
            the_alerts_hold_what_they_promise
            every_alert_is_seen_firing
            the_alerts_in_the_chart_are_those_that_are_tested
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
    let folder = Lab::default().tools(&["helm3", "helm4", "promtool"]);
    // Its last line says why, and what to do.
    let folder = folder.map_err(|error| error.to_string().lines().last().unwrap_or_default().to_owned())?;
    Tools::new(folder).map_err(|error| format!("no folder for Helm's files: {error}"))
}
