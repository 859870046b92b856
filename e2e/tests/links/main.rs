//! Two organizations, each with its own cluster, charts, keys and operator, and links between them.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod deletion;
mod f26_repair;
mod gitops;
mod kubectl;
mod metrics;
mod p01_public;
mod p02_one_peer;
mod p03_agreement;
mod p04_cut;
mod p06_without_operator;
mod p07_truth;
mod p12_one_way;
mod upgrade;

use std::process::ExitCode;

use securelink_e2e::harness;
use securelink_e2e::{Outcome, Test};

/// Those that change least stand first; each finds the links as they were made.
fn main() -> ExitCode {
    macro_rules! tests {
        ($($file:ident: $($name:ident)*;)*) => { vec![$($(Test::new(stringify!($name), |world| Box::pin(async move {
            match world.pair().await? {
                Some(pair) => Box::pin($file::$name(world, pair)).await.map(|()| Outcome::Held),
                None => Ok(Outcome::Skipped("a cluster has the kinds already; remove them to try this".to_owned())),
            }
        }))),*),*] };
    }
    let tests = tests![
        p12_one_way: p12_services_work_both_ways_though_one_side_cannot_be_dialed p12_only_the_named_clients_get_through;
        p01_public: p01_no_secret_is_in_what_a_person_wrote p11_relays_have_no_token;
        upgrade: f55_the_same_yaml_again_changes_nothing an_upgrade_of_the_chart_leaves_a_stream_alone;
        kubectl: kubectl_securelink_says_what_is_and_asks_the_relays kubectl_securelink_judges_files_as_the_cluster_does
                 kubectl_securelink_cuts_and_resumes kubectl_securelink_needs_the_documented_roles
                 a_namespace_is_granted_by_the_chart_and_by_kubectl;
        gitops: gitops_tools_are_told_whether_a_link_works;
        metrics: metrics_of_the_list_are_exported;
        p03_agreement: p03_digests_that_differ_end_streams_within_a_second p03_the_end_of_the_agreement_ends_streams_within_a_second;
        p04_cut: p04_a_cut_ends_streams_within_a_second_and_its_deletion_resumes
                 f72_a_cut_is_obeyed_while_the_leader_is_stopped f71_a_link_that_is_applied_again_and_again_stays_cut
                 f70_an_edit_that_suspends_beside_a_mistake_suspends;
        f26_repair: f26_what_somebody_changes_is_put_right f55_a_new_leader_writes_nothing;
        p02_one_peer: p02_strangers_are_refused_each_with_its_reason;
        p07_truth: p07_each_fault_has_its_own_reason_and_remedy;
        p06_without_operator: p06_traffic_and_a_new_relay_need_no_operator;
        deletion: deleting_a_link_leaves_nothing;
    ];
    harness::run(env!("CARGO_TARGET_TMPDIR"), tests)
}
