//! Names of our own kinds' objects, in which kube's driver looks up what is queued. All else is in the store.

use std::marker::PhantomData;

use kube::Resource;
use kube::api::{DynamicObject, ObjectMeta, PartialObjectMeta};
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::Event;

/// The names of a kind's objects.
pub type Names<K> = Store<PartialObjectMeta<K>>;

/// No names yet, and what follows a watch.
pub(super) fn names<K>() -> (Names<K>, impl FnMut(&Event<DynamicObject>) + Send + 'static)
where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
{
    let (names, mut writer) = reflector::store();
    let follow = move |event: &Event<DynamicObject>| {
        writer.apply_watcher_event(&match event {
            Event::Init => Event::Init,
            Event::InitApply(object) => Event::InitApply(bare(object)),
            Event::InitDone => Event::InitDone,
            Event::Apply(object) => Event::Apply(bare(object)),
            Event::Delete(object) => Event::Delete(bare(object)),
        });
    };
    (names, follow)
}

fn bare<K>(object: &DynamicObject) -> PartialObjectMeta<K> {
    let metadata = &object.metadata;
    let (namespace, name) = (metadata.namespace.clone(), metadata.name.clone());
    PartialObjectMeta {
        types: None,
        metadata: ObjectMeta { namespace, name, ..ObjectMeta::default() },
        _phantom: PhantomData,
    }
}

#[cfg(test)]
mod tests {
    use kube::api::ApiResource;
    use kube::runtime::reflector::ObjectRef;
    use securelink_crds::SecureLink;

    use super::*;

    #[test]
    fn names_are_known_while_their_objects_are_there_and_nothing_else_is_kept() {
        let (names, mut follow) = names::<SecureLink>();
        let mut object = DynamicObject::new("a", &ApiResource::erase::<SecureLink>(&())).within("n");
        object.metadata.uid = Some("1".to_owned());
        let found = || names.get(&ObjectRef::new("a").within("n"));
        follow(&Event::Init);
        follow(&Event::InitApply(object.clone()));
        assert!(found().is_none());
        follow(&Event::InitDone);
        assert_eq!(found().map(|found| found.metadata.uid.clone()), Some(None));
        follow(&Event::Delete(object.clone()));
        assert!(found().is_none());
        follow(&Event::Apply(object));
        assert!(found().is_some());
    }
}
