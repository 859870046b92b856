//! Cuts that relays hold and nobody orders any more, such as of a `LinkCut` that came and went before any snapshot named it.
//!
//! The API server itself is asked whether their objects are gone: the cache here may lag behind the one of the replica that
//! ordered them, and must not resume what is cut.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::{Api, Client};
use securelink_crds::{LinkCut, LinkPolicy};
use securelink_plan::{Orders, Verdict, policy_applies, unordered};

use crate::gather::Known;
use crate::world::World;

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Withdrawn {
    /// Identifiers of the cuts to release.
    pub ids: BTreeSet<String>,
    /// Whether there are others of which it is not known yet.
    pub open: bool,
}

/// Looks for the cuts to release. Where the API server does not answer none is: relays stay cut.
pub async fn find(world: &World, known: &Known, verdict: &Verdict) -> Withdrawn {
    let words = world.relays.words(&verdict.link);
    let reported = words.iter().filter_map(|word| word.status.as_ref()).flat_map(|status| &status.report.cuts);
    let held: BTreeSet<String> = reported.cloned().collect();
    let orders: Orders<'_> = verdict.orders();
    let open = unordered(orders, known.snapshot.as_ref(), &held);
    if open.is_empty() {
        return Withdrawn::default();
    }
    let asked = Asked { client: &world.client, namespace: &verdict.link.namespace, link: &known.declared.object };
    let gone = asked.gone(&open).await;
    gone.unwrap_or_else(|error| {
        tracing::warn!(link = %verdict.link, %error, "whether cuts that relays hold were withdrawn is not known yet");
        Withdrawn { ids: BTreeSet::new(), open: true }
    })
}

/// Whom to ask about which link.
struct Asked<'a> {
    client: &'a Client,
    namespace: &'a str,
    link: &'a DynamicObject,
}

impl Asked<'_> {
    async fn gone(&self, open: &BTreeSet<String>) -> kube::Result<Withdrawn> {
        let mut found = Withdrawn::default();
        let of = |kind: &str| open.iter().filter(|id| id.starts_with(kind)).cloned().collect::<BTreeSet<_>>();
        // This link has another uid, which has been seen: that one is gone.
        found.ids.extend(of("SecureLink/"));
        let (cuts, policies) = (of("LinkCut/"), of("LinkPolicy/"));
        if !cuts.is_empty() {
            let there = self.cuts().await?;
            found.ids.extend(cuts.difference(&there).cloned());
        }
        if !policies.is_empty() {
            let there = self.policies().await?;
            let orders = |id: &String| there.contains(id.split_once('#').map_or(id.as_str(), |(object, _)| object));
            found.ids.extend(policies.into_iter().filter(|id| !orders(id)));
        }
        for id in of("Service/") {
            if !self.is_exported(&id).await? {
                found.ids.insert(id);
            }
        }
        found.open = found.ids.len() < open.len();
        Ok(found)
    }

    /// The cuts of the namespace, by uid and by name. Who is being deleted orders nothing any more.
    async fn cuts(&self) -> kube::Result<BTreeSet<String>> {
        let resource = ApiResource::erase::<LinkCut>(&());
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), self.namespace, &resource);
        let all = api.list(&ListParams::default()).await?;
        let there = all.items.into_iter().filter(|cut| cut.metadata.deletion_timestamp.is_none());
        let ids = |cut: DynamicObject| {
            let by_name = cut.metadata.name.map(|name| format!("LinkCut/{}/{name}", self.namespace));
            cut.metadata.uid.map(|uid| format!("LinkCut/{uid}")).into_iter().chain(by_name)
        };
        Ok(there.flat_map(ids).collect())
    }

    /// The policies that apply here. One that cannot be read may.
    async fn policies(&self) -> kube::Result<BTreeSet<String>> {
        let resource = ApiResource::erase::<LinkPolicy>(&());
        let all = Api::<DynamicObject>::all_with(self.client.clone(), &resource).list(&ListParams::default()).await?;
        let namespace = Api::<Namespace>::all(self.client.clone()).get_metadata(self.namespace).await?;
        let labels = namespace.metadata.labels.unwrap_or_default();
        let applies = |policy: &DynamicObject| {
            let read = serde_json::to_value(policy).and_then(serde_json::from_value::<LinkPolicy>);
            read.map_or(true, |policy| policy_applies(&policy, self.namespace, Some(&labels)))
        };
        let there = all.items.into_iter().filter(applies);
        Ok(there.filter_map(|policy| Some(format!("LinkPolicy/{}", policy.metadata.uid?))).collect())
    }

    /// Whether the Service of `Service/<uid>#exports/<name>` is still the one behind that export.
    async fn is_exported(&self, id: &str) -> kube::Result<bool> {
        let Some((object, export)) = id.split_once("#exports/") else { return Ok(false) };
        let exports = self.link.data["spec"]["exports"].as_array();
        let Some(export) = exports.into_iter().flatten().find(|known| known["name"] == export) else {
            return Ok(false);
        };
        let target = &export["target"];
        let Some(name) = target["service"].as_str() else { return Ok(false) };
        let namespace = target["namespace"].as_str().unwrap_or(self.namespace);
        let service = Api::<Service>::namespaced(self.client.clone(), namespace).get_opt(name).await?;
        Ok(service.and_then(|service| service.metadata.uid).is_some_and(|uid| object == format!("Service/{uid}")))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{Server, list};

    /// An API server that answers these paths, and with a fault all others.
    async fn server(answers: impl Fn(&str) -> Option<Value> + Send + Sync + 'static) -> Client {
        let answers = move |asked: &crate::testing::Asked| {
            let found = answers(&asked.path);
            (if found.is_some() { 200 } else { 500 }, found.unwrap_or_default())
        };
        Server::new(answers).await.client
    }

    fn ids(ids: &[&str]) -> BTreeSet<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    async fn gone(client: &Client, open: &[&str]) -> kube::Result<Withdrawn> {
        let mut link = DynamicObject::new("l", &ApiResource::erase::<securelink_crds::SecureLink>(&()));
        link.data = json!({"spec": {"exports": [
            {"name": "here", "target": {"service": "web"}},
            {"name": "there", "target": {"service": "web", "namespace": "records"}},
            {"name": "outside", "target": {"host": "h.example"}},
        ]}});
        Asked { client, namespace: "liaison", link: &link }.gone(&ids(open)).await
    }

    const CUTS: &str = "/apis/securelink.dev/v1alpha1/namespaces/liaison/linkcuts";
    const POLICIES: &str = "/apis/securelink.dev/v1alpha1/linkpolicies";

    #[tokio::test]
    async fn a_cut_is_released_only_when_the_api_server_says_that_its_object_is_gone() {
        let client = server(|path| match path {
            CUTS => Some(list(&json!([
                {"metadata": {"name": "a", "uid": "1"}},
                {"metadata": {"name": "b", "uid": "2", "deletionTimestamp": "2026-01-01T00:00:00Z"}},
            ]))),
            _ => None,
        })
        .await;
        let open = ["LinkCut/1", "LinkCut/liaison/a", "LinkCut/2", "LinkCut/liaison/b", "LinkCut/3", "SecureLink/u"];
        let found = gone(&client, &open).await.unwrap();
        assert_eq!(found.ids, ids(&["LinkCut/2", "LinkCut/liaison/b", "LinkCut/3", "SecureLink/u"]));
        assert!(found.open);
        assert!(
            gone(&client, &["LinkPolicy/p", "LinkCut/3"]).await.is_err(),
            "nothing is known where it does not answer"
        );
    }

    #[tokio::test]
    async fn a_policy_that_applies_here_or_cannot_be_read_is_not_gone() {
        let client = server(|path| match path {
            POLICIES => Some(list(&json!([
                {"metadata": {"name": "unreadable", "uid": "1"}, "spec": {"namespaceSelector": 7}},
                {"metadata": {"name": "all", "uid": "2"}, "spec": {"namespaceSelector": {}}},
                {"metadata": {"name": "others", "uid": "3"}, "spec": {"namespaceSelector": {"matchLabels": {"a": "b"}}}},
            ]))),
            "/api/v1/namespaces/liaison" => Some(json!({"metadata": {"name": "liaison", "labels": {"a": "c"}}})),
            _ => None,
        })
        .await;
        let open = ["LinkPolicy/1", "LinkPolicy/2#exports/a", "LinkPolicy/3", "LinkPolicy/4#exports/a"];
        let found = gone(&client, &open).await.unwrap();
        assert_eq!((found.ids, found.open), (ids(&["LinkPolicy/3", "LinkPolicy/4#exports/a"]), true));
    }

    #[tokio::test]
    async fn a_service_is_not_gone_while_it_is_behind_the_export_in_this_namespace_or_another() {
        let client = server(|path| match path {
            "/api/v1/namespaces/liaison/services/web" => Some(json!({"metadata": {"name": "web", "uid": "1"}})),
            "/api/v1/namespaces/records/services/web" => Some(json!({"metadata": {"name": "web", "uid": "2"}})),
            _ => None,
        })
        .await;
        let there = ["Service/1#exports/here", "Service/2#exports/there"];
        assert_eq!(gone(&client, &there).await.unwrap(), Withdrawn { ids: BTreeSet::new(), open: true });
        let away = ["Service/2#exports/here", "Service/1#exports/outside", "Service/1#exports/none", "Service/1"];
        assert_eq!(gone(&client, &away).await.unwrap(), Withdrawn { ids: ids(&away), open: false });
    }
}
