//! Faults of the API server and of the leader, and many links at once (F1 to F11, F22 to F25).

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams};
use securelink_crds::SecureLink;
use securelink_crds::conditions::ConditionType;
use securelink_e2e::plane::{Fault, LEADS_LIMIT, LIMIT, On, Plane, Proxy, Refusal, Site, Verb};
use securelink_e2e::wait::until;

use super::OBJECTS;

super::tests! {
    f01_an_api_server_that_restarts_while_twenty_links_are_made_ends_with_all_of_them
    f02_a_leader_whose_requests_are_swallowed_gives_up_and_a_link_made_meanwhile_comes_up
    f03_a_server_that_asks_for_ten_minutes_of_patience_is_asked_again_before
    f04_a_conflict_on_each_first_write_is_got_over
    f05_a_write_that_was_done_and_answered_as_failed_is_not_done_twice
    f06_watches_that_are_refused_as_too_old_begin_anew
    f07_an_object_that_vanishes_while_the_next_is_made_is_made_anew
    f09_lists_that_break_in_the_middle_or_are_no_json_are_asked_for_again
    f10_caches_that_are_five_seconds_behind_change_nothing_twice
    f11_watches_that_end_every_second_cause_no_write
    f22_a_leader_killed_after_any_of_its_writes_leaves_a_link_that_the_next_one_completes
    f23_a_leader_that_was_paused_writes_nothing_after_its_lease_is_lost
    f24_of_two_versions_that_overlap_the_one_that_leads_writes_and_each_change_of_leaders_is_one_rollout
    f25_many_links_made_at_once_and_deleted_at_once_leave_nothing
}

/// Links that are made while the API server restarts.
const LINKS: usize = 20;
/// Links that come and go at once.
const MANY: usize = 40;

async fn f01_an_api_server_that_restarts_while_twenty_links_are_made_ends_with_all_of_them(
    plane: &Plane,
) -> Result<()> {
    let (site, proxy, _operator) = plane.ready().await?;
    let names: Vec<String> = (0..LINKS).map(|number| format!("partner-{number}")).collect();
    let mark = proxy.mark();
    try_join_all(names.iter().map(|name| site.link(name))).await?;
    let some = |calls: &[securelink_e2e::plane::Call]| {
        calls.iter().filter(|call| call.verb == Verb::Create && call.resource == "services").count() >= LINKS / 2
    };
    proxy.until(mark, "services of half the links", LIMIT, some).await?;
    plane.stop_api_server().await?;
    plane.start_api_server().await?;
    for name in &names {
        site.until_says(name, ConditionType::RelayAvailable, "Pending").await?;
        site.until_silent(name, ConditionType::InternalError).await?;
    }
    for name in &names {
        site.until_all(name, OBJECTS).await?;
    }
    Ok(())
}

async fn f02_a_leader_whose_requests_are_swallowed_gives_up_and_a_link_made_meanwhile_comes_up(
    plane: &Plane,
) -> Result<()> {
    let (site, proxy, mut operator) = plane.ready().await?;
    let rule = proxy.rule(On::all(), Fault::Hang);
    site.link("europol").await?;
    operator.says("this replica leads no more", LEADS_LIMIT).await?;
    drop(rule);
    comes_up(&site).await
}

async fn f03_a_server_that_asks_for_ten_minutes_of_patience_is_asked_again_before(plane: &Plane) -> Result<()> {
    let (site, proxy, _operator) = plane.ready().await?;
    let busy = Fault::Refuse(Refusal::code(429).retry_after(600));
    let rule = proxy.rule(On::writes().within(&site.links.name).times(3), busy);
    site.link("europol").await?;
    comes_up(&site).await?;
    ensure!(rule.hits() == 3, "{} writes were refused", rule.hits());
    Ok(())
}

async fn f06_watches_that_are_refused_as_too_old_begin_anew(plane: &Plane) -> Result<()> {
    let (site, proxy, operator) = plane.ready().await?;
    let rule = proxy.rule(On::verbs([Verb::Watch]).times(40), Fault::WatchError(Refusal::code(410)));
    let mark = proxy.mark();
    proxy.end_watches();
    site.link("europol").await?;
    comes_up(&site).await?;
    ensure!(rule.hits() > 10, "only {} watches were refused", rule.hits());
    drop(rule);
    once_each(&proxy, mark)?;
    site.until_at_rest(&operator, &proxy, &["europol"]).await
}

async fn f07_an_object_that_vanishes_while_the_next_is_made_is_made_anew(plane: &Plane) -> Result<()> {
    let (site, proxy, operator) = plane.ready().await?;
    let rule = proxy.rule(On::verbs([Verb::Create]).of("deployments").times(1), Fault::Hold);
    site.link("europol").await?;
    rule.met(1, LIMIT).await?;
    site.api::<ConfigMap>().delete("europol-relay", &DeleteParams::default()).await?;
    drop(rule);
    comes_up(&site).await?;
    site.until_at_rest(&operator, &proxy, &["europol"]).await?;
    comes_up(&site).await
}

async fn f09_lists_that_break_in_the_middle_or_are_no_json_are_asked_for_again(plane: &Plane) -> Result<()> {
    let site = Site::new(plane).await?;
    site.link("europol").await?;
    for fault in [Fault::Truncate, Fault::Garbage] {
        let proxy = Proxy::start(plane).await?;
        let rule = proxy.rule(On::verbs([Verb::List]).first_of_each(), fault.clone());
        let mut operator = site.operator(&proxy, "one").await?;
        operator.leads().await?;
        comes_up(&site).await.with_context(|| format!("{fault:?}"))?;
        rule.met(11, LIMIT).await.with_context(|| format!("{fault:?}"))?;
        ensure!(operator.stop().await?.success(), "it does not end well");
    }
    Ok(())
}

async fn f10_caches_that_are_five_seconds_behind_change_nothing_twice(plane: &Plane) -> Result<()> {
    let site = Site::new(plane).await?;
    let proxy = Proxy::start(plane).await?;
    let rule = proxy.rule(On::verbs([Verb::Watch]), Fault::Delay(Duration::from_secs(5)));
    let mut operator = site.operator(&proxy, "one").await?;
    operator.leads().await?;
    let mark = proxy.mark();
    site.link("europol").await?;
    comes_up(&site).await?;
    let made = site.versions().await?;
    site.until_at_rest(&operator, &proxy, &["europol"]).await?;
    ensure!(rule.hits() > 10, "only {} watches lag", rule.hits());
    ensure!(site.versions().await? == made, "an object was written again");
    // What no cache shows for so long is asked to be made once more, and is there.
    let creates =
        proxy.since(mark).iter().filter(|call| call.verb == Verb::Create && call.resource != "events").count();
    ensure!(creates <= 2 * (OBJECTS + 1), "{creates} creates: {:#?}", proxy.counts_since(mark));
    Ok(())
}

async fn f11_watches_that_end_every_second_cause_no_write(plane: &Plane) -> Result<()> {
    let (site, proxy, operator) = plane.ready().await?;
    let mark = proxy.mark();
    site.link("europol").await?;
    let ending = async {
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        loop {
            seconds.tick().await;
            proxy.end_watches();
        }
    };
    let work = async {
        comes_up(&site).await?;
        for _ in 0..5 {
            site.look_again(&operator, &["europol"], LIMIT).await?;
        }
        site.until_at_rest(&operator, &proxy, &["europol"]).await
    };
    tokio::select! {
        never = ending => never,
        done = work => done?,
    }
    once_each(&proxy, mark)
}

/// Returns when the link `europol` has all that it needs, and no fault.
async fn comes_up(site: &Site<'_>) -> Result<()> {
    site.until_says("europol", ConditionType::RelayAvailable, "Pending").await?;
    site.until_pods(&["europol"]).await?;
    site.until_silent("europol", ConditionType::InternalError).await?;
    site.until_all("europol", OBJECTS).await
}

/// Whether no object was created twice, nor written again after it was.
fn once_each(proxy: &Proxy, mark: usize) -> Result<()> {
    let own = |call: &securelink_e2e::plane::Call| !call.resource.contains('/') && call.resource != "events";
    let mut writes: Vec<_> = proxy.writes_since(mark).into_iter().filter(own).collect();
    writes.sort();
    let all = writes.len();
    writes.dedup_by(|one, other| (&one.resource, &one.name) == (&other.resource, &other.name));
    ensure!(all == writes.len(), "{all} writes, but {} objects: {:#?}", writes.len(), proxy.counts_since(mark));
    Ok(())
}

async fn f04_a_conflict_on_each_first_write_is_got_over(plane: &Plane) -> Result<()> {
    every_first_write(plane, Fault::Refuse(Refusal::code(409))).await
}

async fn f05_a_write_that_was_done_and_answered_as_failed_is_not_done_twice(plane: &Plane) -> Result<()> {
    every_first_write(plane, Fault::AnswerInstead(Refusal::code(500))).await
}

/// A link comes up although each object's first write goes wrong so.
async fn every_first_write(plane: &Plane, fault: Fault) -> Result<()> {
    let (site, proxy, _operator) = plane.ready().await?;
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
    let (site, proxy, mut operator) = plane.leading().await?;
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

/// The newer version wants another image of each relay, as an upgrade of the chart does.
async fn f24_of_two_versions_that_overlap_the_one_that_leads_writes_and_each_change_of_leaders_is_one_rollout(
    plane: &Plane,
) -> Result<()> {
    let (site, first, mut older) = plane.ready().await?;
    site.link("europol").await?;
    comes_up(&site).await?;
    let second = Proxy::start(plane).await?;
    let upgraded = site.with_values(&["--set", "image.tag=next"])?;
    let mut newer = upgraded.operator(&second, "two").await?;
    newer.says("everything that is watched has been seen", LEADS_LIMIT).await?;
    let (before, mark) = (site.versions().await?, (first.mark(), second.mark()));
    site.until_at_rest(&older, &first, &["europol"]).await?;
    ensure!(second.writes_since(mark.1).is_empty(), "it does not lead and writes {:?}", second.writes_since(mark.1));
    ensure!(site.versions().await? == before, "an object was written");
    older.pause(true)?;
    newer.leads().await?;
    until_image(&site, "securelink:next").await?;
    site.until_at_rest(&newer, &second, &["europol"]).await?;
    let mark = (first.mark(), mark.1);
    older.pause(false)?;
    older.says("this replica leads no more", LEADS_LIMIT).await?;
    site.until_at_rest(&newer, &second, &["europol"]).await?;
    ensure!(first.writes_since(mark.0).is_empty(), "it leads no more and writes {:?}", first.writes_since(mark.0));
    ensure!(rollouts(&second, mark.1) == 1, "{} rollouts by the newer", rollouts(&second, mark.1));
    // The upgrade is taken back.
    ensure!(newer.stop().await?.success(), "it does not end well");
    until_image(&site, "securelink:0.1.0").await?;
    site.until_at_rest(&older, &first, &["europol"]).await?;
    ensure!(rollouts(&first, mark.0) == 1, "{} rollouts by the older", rollouts(&first, mark.0));
    Ok(())
}

/// Returns when the relays of `europol` are to run this image.
async fn until_image(site: &Site<'_>, image: &str) -> Result<()> {
    let runs = |it: Option<&Deployment>| {
        let relay = it.and_then(|it| it.spec.as_ref()?.template.spec.as_ref()?.containers.first());
        relay.is_some_and(|it| it.image.as_deref() == Some(image))
    };
    until(&site.api::<Deployment>(), "europol-relay", &format!("run {image}"), LIMIT, runs).await.map(drop)
}

fn rollouts(proxy: &Proxy, mark: usize) -> usize {
    proxy.writes_since(mark).iter().filter(|call| call.resource == "deployments").count()
}

async fn f25_many_links_made_at_once_and_deleted_at_once_leave_nothing(plane: &Plane) -> Result<()> {
    let (site, proxy, operator) = plane.ready().await?;
    let names: Vec<String> = (0..MANY).map(|number| format!("partner-{number}")).collect();
    // While they are being made, and once they are.
    for made in [MANY / 4, MANY] {
        let mark = proxy.mark();
        try_join_all(names.iter().map(|name| site.link(name))).await?;
        let some = |calls: &[securelink_e2e::plane::Call]| {
            calls.iter().filter(|call| call.verb == Verb::Create && call.resource == "deployments").count() >= made
        };
        proxy.until(mark, &format!("relays of {made} links"), LIMIT, some).await?;
        site.api::<SecureLink>().delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
        site.until_only(|_| false).await?;
    }
    site.link("europol").await?;
    comes_up(&site).await?;
    site.until_at_rest(&operator, &proxy, &["europol"]).await
}
