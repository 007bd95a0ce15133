//! Uses across aggregates, under writers of several plugins.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use tokio::sync::Semaphore;

use super::project::{Certificate, Frontend, Groups, Project, Site};
use super::*;
use crate::resources::{Member, Record};
use fiberlb_store::Write;

const PROJECT: Uuid = Uuid::from_u128(1);
const CERTIFICATE: Member = Member { folder: "certificates", id: Uuid::from_u128(2) };
/// Steps of two writers in every order: more than both take.
const SCHEDULE_BITS: u32 = 10;

/// A write by a plugin.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    /// Uploads the certificate, or another chain for it.
    Upload,
    /// Deletes the certificate.
    Delete,
    /// Marks the certificate as deleted.
    Mark,
    /// Lets the frontend of a site use the certificate.
    Use(u128),
    /// Lets the frontend of a site use none.
    Release(u128),
    /// Deletes the frontend of a site.
    Close(u128),
}
use Act::{Close, Delete, Mark, Release, Upload, Use};

fn site(number: u128) -> Uuid {
    Uuid::from_u128(0x100 + number)
}

async fn act(writer: &Writer<Groups>, act: Act) -> Result<(), WriteError> {
    let certificate = |spec: Option<Certificate>| {
        move |before: Option<&Project>| {
            let is_there = before.is_some_and(|project| project.records.contains_key(&CERTIFICATE.id));
            let spec = spec.clone().filter(|_| is_there || act == Upload);
            let mut project = Project::with(before, PROJECT, CERTIFICATE.id, spec);
            project
                .records
                .values_mut()
                .filter(|_| act == Mark)
                .for_each(|record| *record = record.deleted());
            Ok::<_, WriteError>((Some(project), ()))
        }
    };
    let frontend = |number: u128, spec: Option<Frontend>| {
        move |before: Option<&Site>| {
            Ok::<_, WriteError>((Some(Site::with(before, site(number), site(number), spec.clone())), ()))
        }
    };
    let (root, number, spec) = match act {
        Upload | Mark => {
            let chain = Certificate { chain: "chain".into() };
            return writer.write(PROJECT, certificate(Some(chain))).await.map(|_| ());
        }
        Delete => return writer.write(PROJECT, certificate(None)).await.map(|_| ()),
        Use(number) => (site(number), number, Some(Frontend { certificate: Some(CERTIFICATE.id) })),
        Release(number) => (site(number), number, Some(Frontend { certificate: None })),
        Close(number) => (site(number), number, None),
    };
    writer.write(root, frontend(number, spec)).await.map(|_| ())
}

/// A connection whose operations each wait for a permit, or let others go first.
struct Gated {
    inner: Arc<MemoryStore>,
    permits: Option<Arc<Semaphore>>,
}

impl Gated {
    async fn pass(&self) {
        match &self.permits {
            Some(permits) => permits.acquire().await.unwrap().forget(),
            None => tokio::task::yield_now().await,
        }
    }
}

impl Store for Gated {
    fn get(&self, key: &str) -> BoxFuture<'_, Result<Option<Entry>, StoreError>> {
        let key = key.to_owned();
        async move {
            self.pass().await;
            self.inner.get(&key).await
        }
        .boxed()
    }

    fn snapshot(&self, prefix: &str) -> BoxFuture<'_, Result<Snapshot, StoreError>> {
        self.inner.snapshot(prefix)
    }

    fn commit(&self, transaction: Transaction) -> BoxFuture<'_, Result<Revision, CommitError>> {
        async move {
            self.pass().await;
            self.inner.commit(transaction).await
        }
        .boxed()
    }

    fn watch(&self, prefix: &str, after: Revision) -> BoxFuture<'_, Result<Watch, WatchError>> {
        self.inner.watch(prefix, after)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}

/// The writer of one plugin, over a connection.
fn writer(store: &Arc<MemoryStore>, connection: impl Store) -> Writer<Groups> {
    Writer::new(Arc::new(Groups(Arc::clone(store))), Arc::new(connection), Arc::default())
}

fn plain(store: &Arc<MemoryStore>) -> Writer<Groups> {
    writer(store, Gated { inner: Arc::clone(store), permits: None })
}

/// A store after these writes.
async fn after(acts: &[Act]) -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::default());
    for step in acts {
        act(&plain(&store), *step).await.unwrap();
    }
    store
}

/// Users as their key tells them; `None`: the certificate cannot be used. Checks that it agrees with the records.
async fn users(store: &Arc<MemoryStore>) -> Option<BTreeSet<u128>> {
    let told = store.get(&CERTIFICATE.users_key()).await.unwrap().map(|entry| {
        let value: serde_json::Value = serde_json::from_slice(&entry.value).unwrap();
        let users = value["users"].as_array().unwrap().iter().map(|user| user.as_str().unwrap());
        users.map(|user| user.strip_prefix("frontends/").unwrap().parse::<Uuid>().unwrap()).collect()
    });
    let groups = Groups(Arc::clone(store));
    let project: Option<Arc<Project>> = groups.current(PROJECT);
    let stands = project.is_some_and(|it| it.records.get(&CERTIFICATE.id).is_some_and(|it| !it.deleting));
    let frontends = store.snapshot("/fiberlb/frontends/").await.unwrap().collect().await.unwrap();
    let frontends = frontends.iter().map(|entry| Record::<Frontend>::decode(&entry.value).unwrap());
    let used: BTreeSet<Uuid> = frontends.filter(|it| it.spec.certificate.is_some()).map(|it| it.id).collect();
    assert!(stands || used.is_empty(), "used, and not there");
    assert_eq!(told, stands.then_some(used), "the key tells what the records are");
    told.map(|users| users.into_iter().map(|id| id.as_u128() - 0x100).collect())
}

/// Outcomes of two plugins' writes after `start` whose steps follow the bits of `schedule`, and their conflicts.
async fn interleaved(
    start: &[Act],
    acts: [Act; 2],
    schedule: u32,
) -> (Arc<MemoryStore>, [Result<(), WriteError>; 2], u64) {
    let store = after(start).await;
    let permits = [(); 2].map(|()| Arc::new(Semaphore::new(0)));
    let writers = permits.each_ref().map(|permits| {
        writer(&store, Gated { inner: Arc::clone(&store), permits: Some(Arc::clone(permits)) })
    });
    // A new budget for this task, so that whoever has a permit goes on.
    tokio::task::yield_now().await;
    let mut running = [0, 1].map(|place| act(&writers[place], acts[place]).boxed());
    let mut done = [None, None];
    for bit in 0..SCHEDULE_BITS {
        let place = usize::from(schedule >> bit & 1 == 1);
        if done[place].is_none() {
            done[place] = (&mut running[place]).now_or_never();
            permits[place].add_permits(1);
        }
    }
    permits.iter().for_each(|permits| permits.add_permits(1000));
    for (done, running) in done.iter_mut().zip(running) {
        if done.is_none() {
            *done = Some(running.await);
        }
    }
    let conflicts = writers.iter().map(|writer| writer.metrics.write_conflicts.get()).sum();
    (store, done.map(Option::unwrap), conflicts)
}

#[tokio::test(start_paused = true)]
async fn of_a_deletion_and_a_first_use_one_wins_in_every_order() {
    for deletion in [Delete, Mark] {
        let mut wins = [0, 0];
        for schedule in 0..1 << SCHEDULE_BITS {
            let (store, outcomes, _) = interleaved(&[Upload], [deletion, Use(1)], schedule).await;
            let users = users(&store).await;
            match outcomes {
                [Ok(()), Err(WriteError::User(UserError::Missing { .. }))] => assert_eq!(users, None),
                [Err(WriteError::User(UserError::InUse { by, .. })), Ok(())] => {
                    assert_eq!(users, Some([1].into()));
                    assert_eq!(by, [format!("frontends/{}", site(1))].into());
                }
                other => panic!("{schedule:b}: {other:?}"),
            }
            wins[usize::from(users.is_some())] += 1;
        }
        assert!(wins.iter().all(|wins| *wins > 0), "both happen: {wins:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn users_that_come_and_go_at_once_are_all_counted_in_every_order() {
    let pairs = [
        (&[Upload][..], [Use(1), Use(2)], &[1, 2][..]),
        (&[Upload, Use(1)], [Use(2), Release(1)], &[2]),
        (&[Upload, Use(1), Use(2)], [Close(1), Release(2)], &[]),
        (&[Upload, Use(1)], [Release(1), Close(1)], &[]),
    ];
    for (start, acts, expected) in pairs {
        for schedule in 0..1 << SCHEDULE_BITS {
            let (store, outcomes, _) = interleaved(start, acts, schedule).await;
            assert!(outcomes.iter().all(Result::is_ok), "{acts:?} {schedule:b}: {outcomes:?}");
            assert_eq!(
                users(&store).await,
                Some(expected.iter().copied().collect()),
                "{acts:?} {schedule:b}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_release_and_a_deletion_leave_no_trace_or_a_free_certificate() {
    for schedule in 0..1 << SCHEDULE_BITS {
        let (store, [released, deleted], _) =
            interleaved(&[Upload, Use(1)], [Release(1), Delete], schedule).await;
        released.unwrap();
        let users = users(&store).await;
        match deleted {
            Ok(()) => assert_eq!(users, None),
            Err(WriteError::User(UserError::InUse { .. })) => assert_eq!(users, Some(BTreeSet::new())),
            Err(error) => panic!("{schedule:b}: {error}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_of_what_is_used_collides_with_none_of_its_users() {
    for schedule in 0..1 << SCHEDULE_BITS {
        let (store, outcomes, conflicts) = interleaved(&[Upload], [Upload, Use(1)], schedule).await;
        assert!(outcomes.iter().all(Result::is_ok) && conflicts == 0, "{schedule:b}: {outcomes:?}");
        assert_eq!(users(&store).await, Some([1].into()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_certificate_can_be_deleted_after_its_last_user_is_gone() {
    let store = after(&[Upload, Use(1), Use(2), Use(2), Close(1)]).await;
    let refused = act(&plain(&store), Delete).await.unwrap_err().to_string();
    assert!(refused.contains(&site(2).to_string()) && !refused.contains(&site(1).to_string()), "{refused}");
    assert_eq!(users(&store).await, Some([2].into()));
    act(&plain(&store), Release(2)).await.unwrap();
    act(&plain(&store), Delete).await.unwrap();
    assert_eq!(users(&store).await, None);
    let missing = act(&plain(&store), Use(1)).await;
    assert!(
        matches!(missing, Err(WriteError::User(UserError::Missing { used: CERTIFICATE }))),
        "{missing:?}"
    );
    act(&plain(&store), Upload).await.unwrap();
    assert_eq!(users(&store).await, Some(BTreeSet::new()), "another one of the same id has no users");
}

#[tokio::test]
async fn many_users_of_one_certificate_queue_instead_of_colliding() {
    let store = after(&[Upload]).await;
    let writer = plain(&store);
    let outcomes = join_all((0..100).map(|number| act(&writer, Use(number)))).await;
    assert!(outcomes.iter().all(Result::is_ok));
    assert_eq!(writer.metrics.write_conflicts.get(), 0);
    assert_eq!(users(&store).await, Some((0..100).collect()));
}

#[tokio::test(start_paused = true)]
async fn uses_and_deletions_whose_answers_were_lost_are_done_once_and_acknowledged() {
    for carries_out in [true, false] {
        for (step, expected) in [(Use(2), Some([1, 2].into())), (Release(1), Some([].into())), (Delete, None)]
        {
            let store = after(if step == Delete { &[Upload] } else { &[Upload, Use(1)] }).await;
            let lossy = Lossy { inner: Arc::clone(&store), loses: AtomicBool::new(true), carries_out };
            act(&writer(&store, lossy), step).await.unwrap();
            assert_eq!(users(&store).await, expected, "{step:?}");
        }
    }
}

#[tokio::test]
async fn a_set_of_users_that_cannot_be_read_refuses_changes_of_it_alone() {
    for value in [&b"broken"[..], br#"{"version":2,"users":[]}"#] {
        let store = after(&[Upload]).await;
        let key = CERTIFICATE.users_key();
        let broken = vec![Write::Put { key: key.clone(), value: value.to_vec() }];
        store.commit(Transaction { compares: Vec::new(), writes: broken }).await.unwrap();
        for step in [Use(1), Delete] {
            let refused = act(&plain(&store), step).await.unwrap_err().to_string();
            assert!(refused.contains(&key), "{refused}");
        }
        act(&plain(&store), Release(1)).await.unwrap();
    }
}
