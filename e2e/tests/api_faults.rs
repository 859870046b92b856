//! What becomes of a link where the API server fails, or the leader does (faults F4, F5, F22, F23).
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use securelink_crds::conditions::ConditionType;
use securelink_e2e::plane::{Fault, LEADS_LIMIT, LIMIT, On, Plane, Proxy, Refusal, Site, Test, Verb, harness};

/// Objects that a link has, beside its pods.
const OBJECTS: usize = 8;

fn main() -> ExitCode {
    macro_rules! tests {
        ($($name:ident)*) => { vec![$(Test::new(stringify!($name), |plane| Box::pin($name(plane)))),*] };
    }
    harness::run(
        env!("CARGO_TARGET_TMPDIR"),
        tests![
            f04_a_conflict_on_each_first_write_is_got_over
            f05_a_write_that_was_done_and_answered_as_failed_is_not_done_twice
            f22_a_leader_killed_after_any_of_its_writes_leaves_a_link_that_the_next_one_completes
            f23_a_leader_that_was_paused_writes_nothing_after_its_lease_is_lost
        ],
    )
}

async fn f04_a_conflict_on_each_first_write_is_got_over(plane: &Plane) -> Result<()> {
    every_first_write(plane, Fault::Refuse(Refusal::code(409))).await
}

async fn f05_a_write_that_was_done_and_answered_as_failed_is_not_done_twice(plane: &Plane) -> Result<()> {
    every_first_write(plane, Fault::AnswerInstead(Refusal::code(500))).await
}

/// A link comes up although each object's first write goes wrong so.
async fn every_first_write(plane: &Plane, fault: Fault) -> Result<()> {
    let site = Site::new(plane).await?;
    let proxy = Proxy::start(plane).await?;
    let mut operator = site.operator(&proxy, "one").await?;
    operator.leads().await?;
    site.identity().await?;
    site.identity_is_ready().await?;
    let rule = proxy.rule(On::writes().within(&site.links.name).first_of_each(), fault);
    site.link("europol").await?;
    site.until_says("europol", ConditionType::RelayAvailable, "Pending").await?;
    site.until_pods(&["europol"]).await?;
    ensure!(rule.hits() >= OBJECTS, "only {} writes went wrong", rule.hits());
    site.until_silent("europol", ConditionType::InternalError).await?;
    let made = site.versions().await?;
    ensure!(made.len() == OBJECTS, "{made:?}");
    Ok(())
}

async fn f22_a_leader_killed_after_any_of_its_writes_leaves_a_link_that_the_next_one_completes(
    plane: &Plane,
) -> Result<()> {
    let site = Site::new(plane).await?;
    let proxy = Proxy::start(plane).await?;
    let mut operator = site.operator(&proxy, "one").await?;
    operator.leads().await?;
    site.identity().await?;
    let fingerprint = site.identity_is_ready().await?;
    for written in 0..OBJECTS {
        let name = format!("partner-{written}");
        let rule = proxy.rule(On::verbs([Verb::Create]).within(&site.links.name).after(written), Fault::Hang);
        site.link(&name).await?;
        rule.met(1, LIMIT).await?;
        operator.kill().await?;
        drop(rule);
        // Its container is started again: by its name the lease is its own.
        operator = site.operator(&proxy, "one").await?;
        operator.leads().await?;
        let pending = site.until_says(&name, ConditionType::RelayAvailable, "Pending").await;
        pending.with_context(|| format!("killed after {written} writes"))?;
        site.until_pods(&[&name]).await?;
    }
    let made = site.versions().await?;
    ensure!(made.len() == OBJECTS * OBJECTS, "{made:?}");
    ensure!(site.identity_is_ready().await? == fingerprint, "another root was made");
    Ok(())
}

async fn f23_a_leader_that_was_paused_writes_nothing_after_its_lease_is_lost(plane: &Plane) -> Result<()> {
    let site = Site::new(plane).await?;
    let (first, second) = (Proxy::start(plane).await?, Proxy::start(plane).await?);
    let mut paused = site.operator(&first, "one").await?;
    paused.leads().await?;
    site.identity().await?;
    site.identity_is_ready().await?;
    let rule = first.rule(On::verbs([Verb::Create]).of("configmaps").times(1), Fault::HoldAnswer);
    site.link("europol").await?;
    rule.met(1, LIMIT).await?;
    paused.pause(true)?;
    let mut next = site.operator(&second, "two").await?;
    next.leads().await?;
    site.until_says("europol", ConditionType::RelayAvailable, "Pending").await?;
    let before = site.versions().await?;
    let mark = first.mark();
    drop(rule);
    paused.pause(false)?;
    paused.says("this replica leads no more", LEADS_LIMIT).await?;
    let writes = first.writes_since(mark);
    ensure!(writes.is_empty(), "it writes {writes:?}");
    ensure!(site.versions().await? == before, "an object was written");
    Ok(())
}
